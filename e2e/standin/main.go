// Command llama-server stands in for llama.cpp's server where a test or a
// benchmark is about what happens around an engine.
//
// It takes the arguments that the operator renders, and answers over HTTP in
// the shapes of the real server (v0.7.0, build 11669), without a model: each
// token follows from the prompt and its index, so a stream can be compared
// with what it must be. Like the real server it listens while it loads, closes
// a connection after 100 requests or 5 idle seconds, and SIGTERM cuts the
// requests that run. Unlike the real one it does not end an answer where the
// context is full.
//
// How long things take and what goes wrong is said by the environment:
//
//	STANDIN_LOAD_SECONDS        seconds of loading
//	STANDIN_FIRST_TOKEN_MS      milliseconds until the first token
//	STANDIN_TOKEN_MS            milliseconds until each further token
//	STANDIN_CRASH               1: exit with 1 when loading is done
//	STANDIN_EXIT_AFTER_SECONDS  exit with 1 that long after loading
//	STANDIN_NEVER_READY         1: loading never ends
//	STANDIN_HANG                all: accept connections and answer nothing;
//	                            answers: the same for what uses the model
//	STANDIN_STATUS              answer what uses the model with this HTTP status
//	STANDIN_TOKENIZER           file tokenizer.json by which tokens are counted
//	                            (tokenizer.go says of which kind); else words are
//
// Tokens come at their times from the beginning of the answer on, however late
// the one before was: what a load generator must measure is known. It is lied
// to by (lies.go):
//
//	STANDIN_ERROR_SHARE         share of completions that are answered with 500
//	STANDIN_CUT_SHARE           share of streams that end in the middle
//	STANDIN_STREAM_ERROR_SHARE  share of streams with an error inside
//	STANDIN_HANG_SHARE          share of completions that are never answered
//	STANDIN_ANSWERING_MODEL     name that answers bear
//	STANDIN_OUTPUT_SHARE        share of the tokens asked for that are answered
//	STANDIN_CACHED_SHARE        share of each prompt that comes from a cache
//	STANDIN_RESTART_AFTER       looks as if started anew with this completion
//	STANDIN_OTHER_TOKENS        tokens per second of a client that is not there
//	STANDIN_COLD_REQUESTS       completions at the beginning that take 4 times as long
//	STANDIN_SLOW_FACTOR         factor of all times in every second turn of
//	STANDIN_SLOW_TURN           so many completions
//
// Called vllm it stands in for `vllm serve` in what starts a pod: it prints
// what it was started with (tellStart), loads no model, and has vLLM's metrics.
//
// A request with "user": "<id>" is counted: GET /standin/requests tells how
// often each id came, was answered to its end, and was cut because the client
// went away. The same is printed, one line for each event, so that the counts
// outlive the pod in its log.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Lmicroseconds)
	parse := parseFlags
	isVllm := filepath.Base(os.Args[0]) == "vllm"
	if isVllm {
		parse = parseVllmFlags
		tellStart()
	}
	flags, err := parse(os.Args[1:])
	if err != nil {
		fail("error: %v", err)
	}
	behaviour, err := readBehaviour(os.Getenv)
	if err != nil {
		fail("error: %v", err)
	}
	engine := newEngine(flags, behaviour)
	engine.isVllm = isVllm
	listener, err := net.Listen("tcp", net.JoinHostPort(flags.host, flags.port))
	if err != nil {
		fail("srv start: couldn't bind HTTP server socket: %v", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		engine.requests.stop()
		os.Exit(0)
	}()
	log.Printf("listening on %s, pod %s", listener.Addr(), engine.requests.Pod)
	go load(engine)
	server := http.Server{Handler: engine.handler(), IdleTimeout: keepAliveIdle, ConnContext: countRequests}
	fail("%v", server.Serve(listener))
}

// load takes its time, and then does what the behaviour asks for.
func load(engine *engine) {
	if engine.flags.model != "" {
		checkModel(engine.flags.model)
	}
	if engine.behaviour.neverReady {
		return
	}
	time.Sleep(engine.behaviour.load)
	if engine.behaviour.crash {
		fail("STANDIN_CRASH: exiting after loading")
	}
	engine.loaded.Store(true)
	log.Print("model loaded")
	if after := engine.behaviour.exitAfter; after >= 0 {
		time.Sleep(after)
		fail("STANDIN_EXIT_AFTER_SECONDS: exiting")
	}
}

// checkModel ends the process, as the real server does, unless the file is there and begins like a GGUF file.
func checkModel(path string) {
	magic := make([]byte, 4)
	file, err := os.Open(path)
	if err == nil {
		_, err = file.Read(magic)
		file.Close()
	}
	if err == nil && string(magic) != "GGUF" {
		err = fmt.Errorf("invalid magic characters: %q, expected 'GGUF'", magic)
	}
	if err != nil {
		log.Printf("load_model: failed to load model, '%s': %v", path, err)
		fail("llama_server: exiting due to model loading error")
	}
}

func fail(format string, values ...any) {
	log.Printf(format, values...)
	os.Exit(1)
}

// behaviour is what the environment asks for.
type behaviour struct {
	load, firstToken, token time.Duration
	// exitAfter is negative where it is not asked for.
	exitAfter         time.Duration
	crash, neverReady bool
	hang              string
	status            int
	tokenizer         tokenizer
	lies
}

func readBehaviour(variable func(string) string) (behaviour, error) {
	var problem error
	number := func(name string, without float64) float64 {
		text := variable(name)
		if text == "" {
			return without
		}
		value, err := strconv.ParseFloat(text, 64)
		if (err != nil || value < 0) && problem == nil {
			problem = fmt.Errorf("%s is %q and must be a number of 0 or more", name, text)
		}
		return value
	}
	scaled := func(name string, unit time.Duration, without float64) time.Duration {
		return time.Duration(number(name, without) * float64(unit))
	}
	read := behaviour{
		load:       scaled("STANDIN_LOAD_SECONDS", time.Second, 0),
		firstToken: scaled("STANDIN_FIRST_TOKEN_MS", time.Millisecond, 0),
		token:      scaled("STANDIN_TOKEN_MS", time.Millisecond, 0),
		exitAfter:  scaled("STANDIN_EXIT_AFTER_SECONDS", time.Second, -1),
		crash:      number("STANDIN_CRASH", 0) != 0,
		neverReady: number("STANDIN_NEVER_READY", 0) != 0,
		status:     int(number("STANDIN_STATUS", 0)),
		hang:       variable("STANDIN_HANG"),
		lies: lies{
			errorShare:    number("STANDIN_ERROR_SHARE", 0),
			cutShare:      number("STANDIN_CUT_SHARE", 0),
			hangShare:     number("STANDIN_HANG_SHARE", 0),
			inStreamShare: number("STANDIN_STREAM_ERROR_SHARE", 0),
			model:         variable("STANDIN_ANSWERING_MODEL"),
			outputShare:   number("STANDIN_OUTPUT_SHARE", 1),
			cachedShare:   number("STANDIN_CACHED_SHARE", 0),
			restartAfter:  int64(number("STANDIN_RESTART_AFTER", 0)),
			otherTokens:   number("STANDIN_OTHER_TOKENS", 0),
			coldRequests:  int64(number("STANDIN_COLD_REQUESTS", 0)),
			slowFactor:    number("STANDIN_SLOW_FACTOR", 1),
			slowTurn:      int64(number("STANDIN_SLOW_TURN", 0)),
		},
	}
	if read.hang != "" && read.hang != hangAll && read.hang != hangAnswers {
		problem = fmt.Errorf("STANDIN_HANG is %q and must be %s or %s", read.hang, hangAll, hangAnswers)
	}
	if path := variable("STANDIN_TOKENIZER"); path != "" && problem == nil {
		read.tokenizer, problem = readTokenizer(path)
	}
	return read, problem
}
