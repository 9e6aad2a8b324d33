package main

import (
	"fmt"
	"net/http"
	"time"
)

// coldFactor is that of the first completions.
const coldFactor = 4

type fraud int

const (
	honest fraud = iota
	fraudError
	fraudCut
	fraudInStream
	fraudHang
)

// lies are what a load generator must not fall for.
type lies struct {
	errorShare, cutShare, inStreamShare, hangShare float64
	// model is the name that answers bear; empty: the one asked for.
	model                    string
	outputShare, cachedShare float64
	restartAfter             int64
	otherTokens              float64
	coldRequests             int64
	slowFactor               float64
	slowTurn                 int64
}

// fraud of the n-th completion: shares are kept evenly, not by chance.
func (l *lies) fraud(number int64) fraud {
	falls := func(share float64) bool { return int64(float64(number)*share) > int64(float64(number-1)*share) }
	switch {
	case falls(l.errorShare):
		return fraudError
	case falls(l.cutShare):
		return fraudCut
	case falls(l.inStreamShare):
		return fraudInStream
	case falls(l.hangShare):
		return fraudHang
	}
	return honest
}

// pace is the factor of all times of the n-th completion.
func (l *lies) pace(number int64) float64 {
	pace := 1.0
	if number <= l.coldRequests {
		pace *= coldFactor
	}
	if l.slowTurn > 0 && (number-1)/l.slowTurn%2 == 1 {
		pace *= l.slowFactor
	}
	return pace
}

func (e *engine) answeringModel() string {
	if e.behaviour.model != "" {
		return e.behaviour.model
	}
	return e.flags.alias
}

// totals are what metrics tell at one moment.
type totals struct {
	prompt, cached, predicted, running, waiting int64
	started                                     time.Time
}

func (e *engine) totals() totals {
	seen := totals{
		prompt: e.promptTokens.Load(), cached: e.cachedTokens.Load(), predicted: e.predictedTokens.Load(),
		running: int64(len(e.slots)), waiting: e.deferred.Load(), started: e.started,
	}
	since := time.Since(e.started)
	if other := e.behaviour.otherTokens; other > 0 {
		more := int64(other * since.Seconds())
		seen.prompt, seen.predicted, seen.running = seen.prompt+more, seen.predicted+more, seen.running+1
	}
	if restarted := e.restarted.Load(); restarted != nil {
		seen.started = *restarted
	}
	return seen
}

// tellVllm writes metrics under vLLM's names (0.33.0).
func (e *engine) tellVllm(w http.ResponseWriter) {
	seen := e.totals()
	label := fmt.Sprintf(`{engine="0",model_name=%q}`, e.flags.alias)
	tell := func(name, kind, labels string, value float64) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s%s %g\n", name, name, name, kind, name, labels, value)
	}
	tell("process_start_time_seconds", "gauge", "", float64(seen.started.UnixMilli())/1000)
	tell("vllm:num_requests_running", "gauge", label, float64(seen.running))
	tell("vllm:num_requests_waiting", "gauge", label, float64(seen.waiting))
	tell("vllm:kv_cache_usage_perc", "gauge", label, float64(seen.running)/float64(cap(e.slots)))
	tell("vllm:prompt_tokens_total", "counter", label, float64(seen.prompt))
	tell("vllm:prompt_tokens_cached_total", "counter", label, float64(seen.cached))
	tell("vllm:generation_tokens_total", "counter", label, float64(seen.predicted))
}
