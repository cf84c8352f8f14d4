package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/kinloom/kinloom/node/client"
)

// Limits of the server. Whoever reaches it is the owner, so they hold against mistakes rather than malice.
const (
	maxBody    = 96 << 10               // a text has at most 12 KiB, six times that in JSON if every byte is escaped
	maxHeader  = 16 << 10               // request line and headers
	maxKey     = 128                    // bytes of an Idempotency-Key
	maxReaders = 32                     // open event streams
	maxWait    = 24 * time.Hour         // longest wait for a state
	maxPage    = 1000                   // objects in one reply
	replyTime  = 2 * time.Minute        // for a reply, but those that wait by design
	headerTime = 10 * time.Second       // to send the headers
	idleTime   = 2 * time.Minute        // between two requests on a connection
	addTime    = 90 * time.Second       // to answer an invite: dial every address and exchange
	maxPing    = 90 * time.Second       // to find a contact's devices and have their answer
	beatTime   = 15 * time.Second       // between signs of life on a quiet event stream
	stopTime   = time.Second            // for replies under way when the server ends
	graceTime  = 200 * time.Millisecond // for the reply to stop itself
)

// limit bounds what a request may carry and how long it may take.
func limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Get(keyHeader)) > maxKey {
			write(w, newProblem(http.StatusUnprocessableEntity, client.CodeUsage, "the Idempotency-Key is longer than 128 bytes", "Use a shorter one."))
			return
		}
		if !setDeadline(w, replyTime) {
			write(w, newProblem(http.StatusInternalServerError, client.CodeError, "the connection takes no deadline", ""))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		switch {
		case err != nil:
			write(w, newProblem(http.StatusRequestEntityTooLarge, client.CodeUsage, fmt.Sprintf("the request cannot be read: %v", err), fmt.Sprintf("A request has at most %d KiB.", maxBody>>10)))
			return
		case !utf8.Valid(body): // JSON would quietly put other characters in place
			write(w, newProblem(http.StatusUnprocessableEntity, client.CodeUsage, "the request is not valid UTF-8 text", "Convert it to UTF-8 first."))
			return
		}
		// All of the request is here. From now on net/http reads ahead to notice that the caller went away, and would take
		// the deadline of that read for it.
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			write(w, newProblem(http.StatusInternalServerError, client.CodeError, "the connection takes no deadline", ""))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// setDeadline gives the reply that long. An in-process call has no connection and so no deadline.
func setDeadline(w http.ResponseWriter, d time.Duration) bool {
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	err := http.NewResponseController(w).SetWriteDeadline(at)
	return err == nil || errors.Is(err, http.ErrNotSupported)
}

// write answers a problem outside the library.
func write(w http.ResponseWriter, p *client.Problem) {
	b, err := json.Marshal(p)
	if err != nil {
		panic("bug: a problem that is no JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // the reader went away: nobody is left to tell
}
