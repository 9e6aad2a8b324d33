package main

import (
	"fmt"
	"strconv"
)

// flags are those that change something here.
type flags struct {
	host, port, alias, model string
	parallel, contextSize    int
	metrics, embeddings      bool
	rerank                   bool
}

// arity names every flag that is taken, with its number of values: those that
// the operator renders, and the few that tests add. Others are errors, so that
// a wrong command line does not look right.
var arity = map[string]int{
	"--host": 1, "--port": 1, "--alias": 1, "--model": 1, "--ctx-size": 1, "--parallel": 1, "--threads": 1,
	"--fit": 1, "--n-gpu-layers": 1, "--cache-type-k": 1, "--cache-type-v": 1, "--flash-attn": 1,
	"--temp": 1, "--seed": 1, "--batch-size": 1, "--ubatch-size": 1, "--pooling": 1, "--verbosity": 1,
	"--metrics": 0, "--cache-prompt": 0, "--no-cache-prompt": 0, "--no-warmup": 0, "--embeddings": 0,
	"--reranking": 0, "--rerank": 0,
}

func parseFlags(arguments []string) (flags, error) {
	found := map[string]string{"--host": "127.0.0.1", "--port": "8080", "--parallel": "4", "--ctx-size": "4096"}
	for i := 0; i < len(arguments); i++ {
		name := arguments[i]
		values, known := arity[name]
		if !known {
			return flags{}, fmt.Errorf("invalid argument: %s", name)
		}
		found[name] = ""
		if values == 1 {
			i++
			if i == len(arguments) {
				return flags{}, fmt.Errorf("expected value for argument: %s", name)
			}
			found[name] = arguments[i]
		}
	}
	has := func(name string) bool { _, is := found[name]; return is }
	read := flags{
		host: found["--host"], port: found["--port"], alias: found["--alias"], model: found["--model"],
		metrics: has("--metrics"), embeddings: has("--embeddings"),
		rerank: has("--reranking") || has("--rerank"),
	}
	if read.alias == "" {
		read.alias = read.model
	}
	for name, target := range map[string]*int{"--parallel": &read.parallel, "--ctx-size": &read.contextSize} {
		value, err := strconv.Atoi(found[name])
		if err != nil || value < 1 {
			return flags{}, fmt.Errorf("%s is %q and must be 1 or more here", name, found[name])
		}
		*target = value
	}
	return read, nil
}
