package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"

	"github.com/kinloom/kinloom/node/client"
)

const (
	watchEvery = time.Second
	// watchPast is how many seconds the line of messages shows: a minute fits a terminal of 80 columns.
	watchPast = 60
)

// watch tells the status each second until the command is interrupted, which is its ordinary end.
func (a *app) watch(ctx context.Context, c *client.Client) error {
	screen := !a.json && term.IsTerminal(a.term.out.Fd()) && a.env("TERM") != "dumb"
	v := view{utf8: a.utf8()}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		status, err := c.Status(ctx)
		if err == nil {
			v.add(status)
			switch {
			case a.json:
				err = show(a, status, nil)
			case screen:
				err = a.draw(&v)
			default:
				_, err = fmt.Fprintln(a.term.out, v.line())
			}
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// view is what watch has seen.
type view struct {
	utf8     bool
	now      client.Status
	seen     bool
	sent, in []uint64 // messages of each second, the newest last
}

// add takes the status of another second. A node that was started anew counts from zero again.
func (v *view) add(s client.Status) {
	if v.seen && s.Started.Equal(v.now.Started.Time) {
		v.sent = pushed(v.sent, s.Sent-v.now.Sent)
		v.in = pushed(v.in, s.Received-v.now.Received)
	}
	v.now, v.seen = s, true
}

func pushed(past []uint64, n uint64) []uint64 {
	past = append(past, n)
	return past[max(0, len(past)-watchPast):]
}

// draw puts the view on the whole terminal, over what was there.
func (a *app) draw(v *view) error {
	columns, rows, err := term.GetSize(a.term.out.Fd())
	if err != nil {
		return fmt.Errorf("ask the terminal for its size: %w", err)
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	lines := v.lines()
	for i, line := range lines[:min(len(lines), max(1, rows-1))] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(cut(line, columns) + "\x1b[K")
	}
	b.WriteString("\x1b[J\r\n")
	_, err = io.WriteString(a.term.out, b.String())
	return err
}

// cut makes a line fit.
func cut(line string, columns int) string {
	if r := []rune(line); len(r) > columns {
		return string(r[:max(0, columns)])
	}
	return line
}

// lines is the screen, the most important first, as a small one ends early.
func (v *view) lines() []string {
	s := &v.now
	who := s.Name
	if who == "" {
		who = s.ID
	}
	out := []string{
		fmt.Sprintf("%s   %s, up %s", name(who), clock(time.Now()), time.Since(s.Started.Time).Round(time.Second)),
		"",
		"Reached    " + clean(s.ReachText, 400),
		fmt.Sprintf("Contacts   %d, %s connected, %s", s.Contacts, count(s.Online, "device"), count(s.Requests, "request")),
		fmt.Sprintf("Messages   %d not delivered yet, %d unread", s.Queued, s.Unread),
		fmt.Sprintf("Sent       %s  %d/s, %d in all", spark(v.sent, v.utf8), last(v.sent), s.Sent),
		fmt.Sprintf("Received   %s  %d/s, %d in all", spark(v.in, v.utf8), last(v.in), s.Received),
		"Listening  " + strings.Join(kinds(*s), ", "),
	}
	for _, warning := range s.Warnings {
		out = append(out, "Note: "+clean(warning, 400))
	}
	return append(out, "", "Ctrl-C ends this, not the node.")
}

// line is the same for where there is no screen.
func (v *view) line() string {
	s := &v.now
	return fmt.Sprintf("%s  %s, %s connected, %d not delivered yet, %d unread, sent %d/s, received %d/s",
		time.Now().Format("15:04:05"), reachWords(s.Reach), count(s.Online, "device"), s.Queued, s.Unread, last(v.sent), last(v.in))
}

func last(past []uint64) uint64 {
	if len(past) == 0 {
		return 0
	}
	return past[len(past)-1]
}

// spark draws numbers as columns of one line, the highest as high as there is.
func spark(past []uint64, utf8 bool) string {
	heights := []rune("▁▂▃▄▅▆▇█")
	if !utf8 {
		heights = []rune("_.-=+*%#")
	}
	top := uint64(1)
	for _, n := range past {
		top = max(top, n)
	}
	out := []rune(strings.Repeat(string(heights[0]), watchPast-len(past)))
	for _, n := range past {
		h := 0
		if n > 0 {
			h = 1 + int(n*uint64(len(heights)-2)/top)
		}
		out = append(out, heights[h])
	}
	return string(out)
}
