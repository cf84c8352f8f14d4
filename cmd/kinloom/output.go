package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/term"

	"github.com/kinloom/kinloom/protocol/event"
)

// talks reports whether there is somebody to ask: a terminal on both sides, and no --json.
func (a *app) talks() bool {
	return !a.json && term.IsTerminal(a.term.in.Fd()) && term.IsTerminal(a.term.err.Fd())
}

// say writes a line for people.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.term.err, format+"\n", args...)
}

// confirm asks a question that is answered no by anything but y or yes.
func (a *app) confirm(question string) (bool, error) {
	fmt.Fprint(a.term.err, question+" [y/N] ")
	line, err := answer(a, func() (string, error) { return bufio.NewReader(io.LimitReader(a.term.in, 256)).ReadString('\n') })
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// answer waits for somebody at the terminal, or until the command is interrupted. What then still reads ends with the
// process: nothing else can end it.
func answer[T any](a *app, read func() (T, error)) (T, error) {
	type got struct {
		value T
		err   error
	}
	given := make(chan got, 1)
	go func() {
		value, err := read()
		given <- got{value, err}
	}()
	select {
	case g := <-given:
		return g.value, g.err
	case <-a.done:
		fmt.Fprintln(a.term.err)
		return *new(T), errInterrupted
	}
}

// show gives one result: as JSON, or as text.
func show[T any](a *app, out T, text func(io.Writer, T)) error {
	return showAll(a, []T{out}, func(w io.Writer, all []T) { text(w, all[0]) })
}

// showAll gives a list: as JSON one object a line, or as text.
func showAll[T any](a *app, all []T, text func(io.Writer, []T)) error {
	w := bufio.NewWriter(a.term.out)
	if a.json {
		lines := json.NewEncoder(w)
		lines.SetEscapeHTML(false)
		for _, one := range all {
			if err := lines.Encode(one); err != nil {
				return fmt.Errorf("write the result: %w", err)
			}
		}
	} else {
		text(w, all)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// table lines up columns that are divided by tabs.
func table(w io.Writer, rows func(io.Writer)) {
	columns := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	rows(columns)
	_ = columns.Flush() // the writer below keeps the error
}

// clean makes text of others safe for one line of a terminal.
func clean(s string, limit int) string { return event.Clean(s, limit) }

// cleanText makes text of others safe for a terminal, keeping its lines.
func cleanText(s string) string { return event.CleanText(s, 64<<10) }

// count puts a number before a word.
func count[N int | int64 | uint64](n N, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// name shows a name of others: up to 64 characters, and what the node puts behind to tell it from another.
func name(s string) string { return clean(s, 128) }

// clock shows a time of the day, or the day if it is another one.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	t = t.Local()
	if now := time.Now(); t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// lines indents all lines of a text but the first.
func lines(text, indent string) string {
	return strings.ReplaceAll(cleanText(text), "\n", "\n"+indent)
}
