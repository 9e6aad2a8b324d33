package main

import (
	"fmt"
	"net/http"
	"sync"
)

// What happens to a request. Each is a word in the log and a field of the counts.
const (
	seen = "seen"
	done = "done"
	cut  = "cut"
	// Only in the log: the process ends, and with it the counts.
	stopped = "stopped"
)

type counts struct {
	Seen int `json:"seen"`
	Done int `json:"done"`
	Cut  int `json:"cut"`
}

// requests counts those that carry an id. It is also what GET /standin/requests answers.
type requests struct {
	Pod      string             `json:"pod"`
	Requests map[string]*counts `json:"requests"`

	lock sync.Mutex
}

func newRequests(pod string) *requests {
	return &requests{Pod: pod, Requests: map[string]*counts{}}
}

func (r *requests) note(id, event string) {
	if id == "" {
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	found := r.Requests[id]
	if found == nil {
		found = &counts{}
		r.Requests[id] = found
	}
	switch event {
	case seen:
		found.Seen++
	case done:
		found.Done++
	case cut:
		found.Cut++
	}
	tell(id, event)
}

// stop says which requests run when the process ends. The lock is kept: nothing may be told after it.
func (r *requests) stop() {
	r.lock.Lock()
	for id, each := range r.Requests {
		for range each.Seen - each.Done - each.Cut {
			tell(id, stopped)
		}
	}
}

func (r *requests) serve(w http.ResponseWriter, _ *http.Request) {
	r.lock.Lock()
	defer r.lock.Unlock()
	answer(w, http.StatusOK, r)
}

func tell(id, event string) { fmt.Printf("standin request %s %q\n", event, id) }
