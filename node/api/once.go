package api

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"

	"github.com/kinloom/kinloom/node/client"
)

const (
	keyHeader = "Idempotency-Key"
	// maxAnswers bounds the answers that are remembered, oldest forgotten first. A message's key also lies in the store,
	// for 24 hours and over a restart; the others protect against a repeat within one run.
	maxAnswers = 512
	// maxAnswer bounds one remembered answer, in bytes; a POST of ours answers far less.
	maxAnswer = 64 << 10
)

// answer is what a POST with a key was answered; done closes when it is known.
type answer struct {
	request [32]byte
	done    chan struct{}
	kept    bool
	status  int
	header  http.Header
	body    []byte
}

// answers remembers by key. Its lock guards both fields.
type answers struct {
	mu    sync.Mutex
	byKey map[string]*answer
	order []string
}

// once answers a POST that repeats an Idempotency-Key with the first one's answer. Failures are not remembered: they
// may be tried again.
func once(next http.Handler) http.Handler {
	known := &answers{byKey: map[string]*answer{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(keyHeader)
		if r.Method != http.MethodPost || key == "" {
			next.ServeHTTP(w, r)
			return
		}
		request, err := io.ReadAll(r.Body)
		if err != nil {
			write(w, problem(fmt.Errorf("read the request: %w", err)))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(request))
		hash := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", r.URL.EscapedPath(), request))
		for {
			a, first := known.claim(key, hash)
			if first {
				known.run(next, w, r, key, a)
				return
			}
			select {
			case <-a.done:
			case <-r.Context().Done():
				return
			}
			switch {
			case !a.kept: // it failed: this one is the first then
				continue
			case a.request != hash:
				write(w, newProblem(http.StatusUnprocessableEntity, client.CodeUsage, "this Idempotency-Key was used for another request", "Use a new key for each request."))
			default:
				maps.Copy(w.Header(), a.header)
				w.WriteHeader(a.status)
				_, _ = w.Write(a.body) // the reader went away: nobody is left to tell
			}
			return
		}
	})
}

// claim gives the answer to a key, and whether the caller is the one to find it.
func (k *answers) claim(key string, request [32]byte) (*answer, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.byKey[key]; ok {
		return a, false
	}
	a := &answer{request: request, done: make(chan struct{})}
	k.byKey[key] = a
	k.order = append(k.order, key)
	if len(k.order) > maxAnswers {
		delete(k.byKey, k.order[0])
		k.order = k.order[1:]
	}
	return a, true
}

// run answers a request and remembers the answer if it is a success.
func (k *answers) run(next http.Handler, w http.ResponseWriter, r *http.Request, key string, a *answer) {
	defer close(a.done)
	defer func() {
		if a.kept {
			return
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.byKey[key] == a {
			delete(k.byKey, key)
		}
	}()
	copied := &recorder{ResponseWriter: w, status: http.StatusOK}
	next.ServeHTTP(copied, r)
	if copied.status/100 == 2 && copied.body.Len() <= maxAnswer {
		a.kept, a.status, a.body, a.header = true, copied.status, copied.body.Bytes(), w.Header().Clone()
	}
}

// recorder passes a reply on and keeps a copy.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.body.Len() <= maxAnswer {
		w.body.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
