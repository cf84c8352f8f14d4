package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Codes of problems. Each has an exit code of the command line.
const (
	CodeError      = "error"       // anything without a code of its own, exit 1
	CodeUsage      = "usage"       // the request cannot be meant, exit 2
	CodeNotFound   = "not-found"   // exit 3
	CodeRefused    = "refused"     // refused by the other side or by a rule, or blocked, exit 4
	CodeTimeout    = "timeout"     // not in time; what was said stays queued, exit 5
	CodeNotRunning = "not-running" // a running node is needed, exit 6
)

// Problem is a failure as the API tells it (RFC 9457), with our code and the next step.
type Problem struct {
	Title      string   `json:"title" doc:"The HTTP status in words"`
	Status     int      `json:"status" doc:"HTTP status code"`
	Code       string   `json:"code" enum:"error,usage,not-found,refused,timeout,not-running" doc:"Class of the failure"`
	Detail     string   `json:"detail" doc:"What happened"`
	Next       string   `json:"next,omitempty" doc:"What to do next"`
	Candidates []string `json:"candidates,omitempty" doc:"Known names that are near"`
	Technical  string   `json:"technical,omitempty" doc:"What a library said, for a report of the failure; may hold addresses"`
}

// Error gives what happened, what is known instead, and the next step.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if len(p.Candidates) > 0 {
		fmt.Fprintf(&b, ". Known: %s", strings.Join(p.Candidates, ", "))
	}
	if p.Next != "" {
		fmt.Fprintf(&b, ". %s", p.Next)
	}
	return b.String()
}

// ExitCode is the exit code of the command line for this problem, 1 to 6.
func (p *Problem) ExitCode() int {
	for i, code := range []string{CodeError, CodeUsage, CodeNotFound, CodeRefused, CodeTimeout, CodeNotRunning} {
		if p.Code == code {
			return i + 1
		}
	}
	return 1
}

// GetStatus is the HTTP status, which makes a *Problem a reply of the server.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// parseProblem reads a problem that came in a stream.
func parseProblem(b []byte) error {
	p := &Problem{}
	if err := json.Unmarshal(b, p); err != nil {
		return fmt.Errorf("read a problem: %w", err)
	}
	return p
}

// readProblem reads the body of a reply that is not 2xx. A body that is no problem still gives one.
func readProblem(response *http.Response) error {
	p := &Problem{}
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || json.Unmarshal(body, p) != nil || p.Detail == "" {
		p = &Problem{
			Title: http.StatusText(response.StatusCode), Status: response.StatusCode, Code: CodeError,
			Detail: fmt.Sprintf("the node answered %d %s", response.StatusCode, http.StatusText(response.StatusCode)),
			Next:   "If the node is older than this command, restart it: kinloom stop, kinloom up",
		}
		if response.StatusCode == http.StatusNotFound || response.StatusCode/100 == 3 { // a name such as "..", cleaned away
			p.Code, p.Detail, p.Next = CodeNotFound, "nothing has that name", ""
		}
	}
	return p
}
