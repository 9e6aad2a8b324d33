package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// start is what a container was started with.
type start struct {
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	Devices []string `json:"devices"`
}

// tellStart prints one line of JSON: arguments, environment, and the GPU
// devices that are there.
func tellStart() {
	devices := []string{}
	for _, pattern := range []string{"/dev/nvidia*", "/dev/kfd", "/dev/dri/*"} {
		found, _ := filepath.Glob(pattern)
		devices = append(devices, found...)
	}
	line, err := json.Marshal(map[string]start{"started": {Argv: os.Args, Env: os.Environ(), Devices: devices}})
	if err != nil {
		fail("%v", err)
	}
	fmt.Println(string(line))
}

// parseVllmFlags reads `serve MODEL …` as far as it changes something here.
// Whether vLLM would take the rest is asked of its own parser elsewhere.
func parseVllmFlags(arguments []string) (flags, error) {
	if len(arguments) < 2 || arguments[0] != "serve" || strings.HasPrefix(arguments[1], "-") {
		return flags{}, fmt.Errorf("expected serve MODEL, got %q", arguments)
	}
	read := flags{host: "0.0.0.0", port: "8000", alias: arguments[1], parallel: 256, contextSize: 4096, metrics: true}
	for i := 2; i+1 < len(arguments); i++ {
		value := arguments[i+1]
		var err error
		switch arguments[i] {
		case "--host":
			read.host = value
		case "--port":
			read.port = value
		case "--served-model-name":
			read.alias = value
		case "--max-num-seqs":
			read.parallel, err = strconv.Atoi(value)
		case "--max-model-len":
			read.contextSize, err = strconv.Atoi(value)
		}
		if err != nil {
			return flags{}, fmt.Errorf("%s: %w", arguments[i], err)
		}
	}
	return read, nil
}
