package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync/atomic"
	"time"
)

const (
	hangAll     = "all"
	hangAnswers = "answers"
	// What the real server allows a connection; it announces both.
	keepAliveIdle     = 5 * time.Second
	keepAliveRequests = 100
	// Tokens of an answer to a request that sets no limit.
	defaultTokens = 16
	fingerprint   = "b11669-standin"
)

type engine struct {
	flags     flags
	behaviour behaviour
	loaded    atomic.Bool
	// slots holds a value for each request that is worked on.
	slots    chan struct{}
	deferred atomic.Int64
	started  time.Time
	requests *requests
	// Totals of tokens, as the metrics tell them.
	promptTokens, cachedTokens, predictedTokens atomic.Int64
	// Requests that asked for a completion, counted from 1.
	completions atomic.Int64
	restarted   atomic.Pointer[time.Time]
	tokenizer   tokenizer
	// isVllm: metrics are vLLM's.
	isVllm bool
}

func newEngine(flags flags, behaviour behaviour) *engine {
	pod := os.Getenv("HOSTNAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	return &engine{
		flags:     flags,
		behaviour: behaviour,
		slots:     make(chan struct{}, flags.parallel),
		started:   time.Now(),
		requests:  newRequests(pod),
		tokenizer: behaviour.tokenizer,
	}
}

type connectionKey struct{}

func countRequests(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(atomic.Int64))
}

func (e *engine) handler() http.Handler {
	paths := http.NewServeMux()
	paths.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, object{"status": "ok"})
	})
	paths.HandleFunc("GET /v1/models", e.models)
	paths.HandleFunc("GET /metrics", e.metrics)
	paths.HandleFunc("POST /v1/chat/completions", e.usingModel(e.complete(true)))
	paths.HandleFunc("POST /v1/completions", e.usingModel(e.complete(false)))
	paths.HandleFunc("POST /tokenize", e.tokenize)
	paths.HandleFunc("POST /v1/embeddings", e.usingModel(e.embed))
	paths.HandleFunc("POST /v1/rerank", e.usingModel(e.rank))
	paths.HandleFunc("GET /standin/requests", e.requests.serve)
	paths.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found_error", "File Not Found")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Server", "llama.cpp")
		if r.Context().Value(connectionKey{}).(*atomic.Int64).Add(1) >= keepAliveRequests {
			header.Set("Connection", "close")
		} else {
			header.Set("Keep-Alive", fmt.Sprintf("timeout=%d, max=%d", int(keepAliveIdle.Seconds()), keepAliveRequests))
		}
		own := strings.HasPrefix(r.URL.Path, "/standin/")
		switch {
		case e.behaviour.hang == hangAll && !own:
			hang(r)
		case !e.loaded.Load() && r.URL.Path != "/v1/models" && !own:
			refuse(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
		default:
			paths.ServeHTTP(w, r)
		}
	})
}

// hang reads the body, without which Go does not notice that a client goes away, and waits for that.
func hang(r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// body is what is read of a request. The real server ignores unknown fields too.
type body struct {
	Model               string          `json:"model"`
	User                string          `json:"user"`
	Messages            []message       `json:"messages"`
	Prompt              json.RawMessage `json:"prompt"`
	Input               json.RawMessage `json:"input"`
	Query               json.RawMessage `json:"query"`
	Documents           []string        `json:"documents"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Stream              bool            `json:"stream"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

func (b *body) tokens() (count int, limited bool) {
	for _, limit := range []*int{b.MaxTokens, b.MaxCompletionTokens} {
		if limit != nil && *limit >= 0 {
			return *limit, true
		}
	}
	return defaultTokens, false
}

// text gives the string that a JSON value is, and the JSON of all other values.
func text(value json.RawMessage) string {
	var plain string
	if json.Unmarshal(value, &plain) == nil {
		return plain
	}
	return string(value)
}

// usingModel reads the body, counts the request, and waits for a slot.
func (e *engine) usingModel(work func(http.ResponseWriter, *http.Request, *body) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request body
		read, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(read, &request)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
			return
		}
		e.requests.note(request.User, seen)
		if e.behaviour.hang == hangAnswers {
			<-r.Context().Done()
			e.requests.note(request.User, cut)
			return
		}
		if e.behaviour.status != 0 {
			refuse(w, e.behaviour.status, "server_error", "STANDIN_STATUS")
			e.requests.note(request.User, done)
			return
		}
		if !e.takeSlot(r.Context()) {
			e.requests.note(request.User, cut)
			return
		}
		defer func() { <-e.slots }()
		if work(w, r, &request) {
			e.requests.note(request.User, done)
		} else {
			e.requests.note(request.User, cut)
		}
	}
}

// takeSlot waits for a slot; false if the client went away before there was one.
func (e *engine) takeSlot(ctx context.Context) bool {
	select {
	case e.slots <- struct{}{}:
		return true
	default:
	}
	e.deferred.Add(1)
	defer e.deferred.Add(-1)
	select {
	case e.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// wait lets time pass; false if the client went away.
func wait(ctx context.Context, time_ time.Duration) bool {
	if time_ <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(time_)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// token is a function of the prompt and its index. e2e/standin/__init__.py has the same one.
func token(prompt string, index int) string {
	return fmt.Sprintf(" %08x", crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", prompt, index)))
}

func (e *engine) complete(isChat bool) func(http.ResponseWriter, *http.Request, *body) bool {
	return func(w http.ResponseWriter, r *http.Request, request *body) bool {
		prompt := text(request.Prompt)
		if isChat {
			lines := make([]string, len(request.Messages))
			for i, each := range request.Messages {
				lines[i] = each.Role + ": " + text(each.Content)
			}
			prompt = strings.Join(lines, "\n")
			if len(request.Messages) == 0 {
				refuse(w, http.StatusBadRequest, "invalid_request_error", "'messages' is required")
				return true
			}
		} else if request.Prompt == nil {
			refuse(w, http.StatusBadRequest, "invalid_request_error", `"prompt" must be a string or an array of tokens`)
			return true
		}
		count, limited := request.tokens()
		completion := &completion{engine: e, isChat: isChat, prompt: prompt, count: count, finish: "stop"}
		if limited {
			completion.finish = "length"
		}
		completion.begin()
		if completion.fraud == fraudError {
			refuse(w, http.StatusInternalServerError, "server_error", "STANDIN_ERROR_SHARE")
			return true
		}
		if request.Stream {
			return completion.stream(w, r.Context(), request.StreamOptions.IncludeUsage)
		}
		return completion.whole(w, r.Context())
	}
}

// completion is one answer of the model.
type completion struct {
	engine  *engine
	isChat  bool
	prompt  string
	count   int
	finish  string
	id      string
	created int64
	began   time.Time
	// due is when the next token comes: of the beginning, not of the token before, so that no delay adds up.
	due   time.Time
	pace  float64
	fraud fraud
	// promptTokens of which cachedTokens are said to come from a cache.
	promptTokens, cachedTokens int
}

func (c *completion) begin() {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := make([]byte, 32)
	for i := range id {
		id[i] = letters[rand.IntN(len(letters))]
	}
	c.id, c.began = "chatcmpl-"+string(id), time.Now()
	c.created, c.due = c.began.Unix(), c.began
	e := c.engine
	c.promptTokens = e.tokenizer.count(c.prompt)
	c.cachedTokens = int(float64(c.promptTokens) * e.behaviour.cachedShare)
	e.promptTokens.Add(int64(c.promptTokens))
	e.cachedTokens.Add(int64(c.cachedTokens))
	number := e.completions.Add(1)
	if number == e.behaviour.restartAfter {
		e.restarted.Store(&c.began)
	}
	c.pace, c.fraud = e.behaviour.pace(number), e.behaviour.fraud(number)
	if share := e.behaviour.outputShare; share != 1 {
		c.count, c.finish = max(1, int(float64(c.count)*share)), "stop"
	}
}

// next waits for a token; false if the client went away.
func (c *completion) next(ctx context.Context, index int) bool {
	if c.fraud == fraudHang {
		<-ctx.Done()
		return false
	}
	time_ := c.engine.behaviour.token
	if index == 0 {
		time_ = c.engine.behaviour.firstToken
	}
	c.due = c.due.Add(time.Duration(float64(time_) * c.pace))
	if !wait(ctx, time.Until(c.due)) {
		return false
	}
	c.engine.predictedTokens.Add(1)
	return true
}

func (c *completion) whole(w http.ResponseWriter, ctx context.Context) bool {
	var content strings.Builder
	for i := range c.count {
		if !c.next(ctx, i) {
			return false
		}
		content.WriteString(token(c.prompt, i))
	}
	choice := object{"index": 0, "finish_reason": c.finish}
	if c.isChat {
		choice["message"] = object{"role": "assistant", "content": content.String()}
	} else {
		choice["text"], choice["logprobs"] = content.String(), nil
	}
	sent := c.frame("chat.completion", choice)
	sent["usage"], sent["timings"] = c.usage(), c.timings()
	answer(w, http.StatusOK, sent)
	return true
}

func (c *completion) stream(w http.ResponseWriter, ctx context.Context, withUsage bool) bool {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no")
	flusher := w.(http.Flusher)
	send := func(frame any) bool {
		encoded, _ := json.Marshal(frame)
		_, err := fmt.Fprintf(w, "data: %s\n\n", encoded)
		flusher.Flush()
		return err == nil
	}
	kind := "chat.completion.chunk"
	for i := range c.count {
		if !c.next(ctx, i) {
			return false
		}
		if i == c.count/2 && c.fraud == fraudCut {
			return true // the answer ends well, as far as HTTP knows
		}
		if i == c.count/2 && c.fraud == fraudInStream {
			send(object{"error": object{"message": "STANDIN_STREAM_ERROR_SHARE", "type": "stream_error"}})
			io.WriteString(w, "data: [DONE]\n\n")
			return true
		}
		if i == 0 && c.isChat {
			first := object{"role": "assistant", "content": nil}
			if !send(c.frame(kind, object{"index": 0, "finish_reason": nil, "delta": first})) {
				return false
			}
		}
		choice := object{"index": 0, "finish_reason": nil}
		if c.isChat {
			choice["delta"] = object{"content": token(c.prompt, i)}
		} else {
			choice["text"], choice["logprobs"] = token(c.prompt, i), nil
		}
		if !send(c.frame(kind, choice)) {
			return false
		}
	}
	choice := object{"index": 0, "finish_reason": c.finish}
	if c.isChat {
		choice["delta"] = object{}
	} else {
		choice["text"], choice["logprobs"] = "", nil
	}
	last := c.frame(kind, choice)
	switch {
	case !c.isChat:
		// The real server tells the usage of a completion whether asked or not.
		last["usage"], last["timings"] = c.usage(), c.timings()
	case withUsage:
		if !send(last) {
			return false
		}
		last = c.frame(kind)
		last["usage"], last["timings"] = c.usage(), c.timings()
	default:
		last["timings"] = c.timings()
	}
	if !send(last) {
		return false
	}
	_, err := io.WriteString(w, "data: [DONE]\n\n")
	flusher.Flush()
	return err == nil
}

func (c *completion) frame(kind string, choices ...object) object {
	if !c.isChat {
		kind = "text_completion"
	}
	if choices == nil {
		choices = []object{}
	}
	return object{
		"id": c.id, "object": kind, "created": c.created, "model": c.engine.answeringModel(),
		"system_fingerprint": fingerprint, "choices": choices,
	}
}

func (c *completion) usage() object {
	prompt := c.promptTokens
	return object{
		"prompt_tokens": prompt, "completion_tokens": c.count, "total_tokens": prompt + c.count,
		"prompt_tokens_details": object{"cached_tokens": c.cachedTokens},
	}
}

func (c *completion) timings() object {
	took := float64(time.Since(c.began).Microseconds()+1) / 1000
	prompt, predicted := float64(max(c.promptTokens, 1)), float64(max(c.count, 1))
	return object{
		"cache_n": 0, "prompt_n": c.promptTokens, "prompt_ms": 0.0, "prompt_per_token_ms": 0.0,
		"prompt_per_second": prompt * 1000 / took, "predicted_n": c.count, "predicted_ms": took,
		"predicted_per_token_ms": took / predicted, "predicted_per_second": predicted * 1000 / took,
	}
}

func (e *engine) embed(w http.ResponseWriter, r *http.Request, request *body) bool {
	if !e.flags.embeddings {
		refuse(w, http.StatusNotImplemented, "not_supported_error",
			"This server does not support embeddings. Start it with `--embeddings`")
		return true
	}
	var inputs []string
	if json.Unmarshal(request.Input, &inputs) != nil {
		if request.Input == nil {
			refuse(w, http.StatusBadRequest, "invalid_request_error", `"input" or "content" must be provided`)
			return true
		}
		inputs = []string{text(request.Input)}
	}
	if !wait(r.Context(), e.behaviour.firstToken) {
		return false
	}
	data, tokens := make([]object, len(inputs)), 0
	for i, input := range inputs {
		vector := make([]float64, 8)
		for j := range vector {
			vector[j] = float64(crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", input, j)))/(1<<31) - 1
		}
		data[i] = object{"embedding": vector, "index": i, "object": "embedding"}
		tokens += len(strings.Fields(input))
	}
	e.promptTokens.Add(int64(tokens))
	answer(w, http.StatusOK, object{
		"model": e.flags.alias, "object": "list", "data": data,
		"usage": object{"prompt_tokens": tokens, "total_tokens": tokens},
	})
	return true
}

func (e *engine) rank(w http.ResponseWriter, r *http.Request, request *body) bool {
	switch {
	case !e.flags.rerank:
		refuse(w, http.StatusNotImplemented, "not_supported_error",
			"This server does not support reranking. Start it with `--reranking`")
		return true
	case request.Query == nil:
		refuse(w, http.StatusBadRequest, "invalid_request_error", `"query" must be provided`)
		return true
	case len(request.Documents) == 0:
		refuse(w, http.StatusBadRequest, "invalid_request_error", `"documents" must be a non-empty string array`)
		return true
	}
	if !wait(r.Context(), e.behaviour.firstToken) {
		return false
	}
	query, tokens := text(request.Query), 0
	results := make([]object, len(request.Documents))
	for i, document := range request.Documents {
		score := float64(crc32.ChecksumIEEE([]byte(query+" "+document)))/(1<<31) - 1
		results[i] = object{"index": i, "relevance_score": score}
		tokens += len(strings.Fields(query)) + len(strings.Fields(document))
	}
	sort.Slice(results, func(a, b int) bool {
		return results[a]["relevance_score"].(float64) > results[b]["relevance_score"].(float64)
	})
	e.promptTokens.Add(int64(tokens))
	answer(w, http.StatusOK, object{
		"model": e.flags.alias, "object": "list", "results": results,
		"usage": object{"prompt_tokens": tokens, "total_tokens": tokens},
	})
	return true
}

func (e *engine) models(w http.ResponseWriter, _ *http.Request) {
	name := e.flags.alias
	var meta any // null while it loads
	if e.loaded.Load() {
		meta = object{
			"vocab_type": 1, "n_vocab": 388, "n_ctx": e.flags.contextSize / e.flags.parallel, "n_ctx_train": 8192,
			"n_embd": 128, "n_params": 427648, "size": 1710592, "ftype": "all F32",
		}
	}
	answer(w, http.StatusOK, object{
		"models": []object{{
			"name": name, "model": name, "modified_at": "", "size": "", "digest": "", "type": "model",
			"description": "", "tags": []string{""}, "capabilities": []string{"completion"}, "parameters": "",
			"details": object{
				"parent_model": "", "format": "gguf", "family": "", "families": []string{""}, "parameter_size": "",
				"quantization_level": "",
			},
		}},
		"object": "list",
		"data": []object{{
			"id": name, "aliases": []string{name}, "tags": []string{}, "object": "model",
			"architecture": object{"input_modalities": []string{"text"}, "output_modalities": []string{"text"}},
			"created":      time.Now().Unix(), "owned_by": "llamacpp", "meta": meta,
		}},
	})
}

func (e *engine) metrics(w http.ResponseWriter, _ *http.Request) {
	if !e.flags.metrics {
		refuse(w, http.StatusNotImplemented, "not_supported_error",
			"This server does not support metrics endpoint. Start it with `--metrics`")
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	if e.isVllm {
		e.tellVllm(w)
		return
	}
	w.Header().Set("Process-Start-Time-Unix", fmt.Sprint(e.started.Unix()))
	tell := func(name, kind, help string, value int64) {
		fmt.Fprintf(w, "# HELP llamacpp:%s %s\n# TYPE llamacpp:%s %s\nllamacpp:%s %d\n", name, help, name, kind, name, value)
	}
	seen := e.totals()
	tell("prompt_tokens_total", "counter", "Number of prompt tokens processed, excluding cached tokens",
		seen.prompt-seen.cached)
	tell("tokens_predicted_total", "counter", "Number of generation tokens processed", seen.predicted)
	tell("requests_processing", "gauge", "Number of requests processing", seen.running)
	tell("requests_deferred", "gauge", "Number of requests deferred", e.deferred.Load())
}

type object = map[string]any

func answer(w http.ResponseWriter, status int, value any) {
	encoded, _ := json.Marshal(value)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(encoded)))
	w.WriteHeader(status)
	w.Write(encoded)
}

// refuse answers with an error, after which the real server closes the connection.
func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Del("Keep-Alive")
	w.Header().Set("Connection", "close")
	answer(w, status, object{"error": object{"code": status, "message": message, "type": kind}})
}
