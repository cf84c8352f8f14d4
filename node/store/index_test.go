package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kinloom/kinloom/protocol/event"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"  ", nil},
		{"Hello, World-wide 42!", []string{"hello", "world", "wide", "42"}},
		{"snake_case a.b@c.de", []string{"snake", "case", "a", "b", "c", "de"}},
		{"GENÈVE Genève Geneve\u0300ve", []string{"geneve", "geneve", "geneveve"}},
		{"STRAẞE Straße ſtark", []string{"strasse", "strasse", "stark"}},
		{"İstanbul", []string{"istanbul"}},
		{"ΛΌΓΟΣ λόγος", []string{"λογοσ", "λογοσ"}},
		{"Привет, Й", []string{"привет", "и"}},
		{"東京 abc都d", []string{"東", "京", "abc", "都", "d"}},
		{"がか", []string{"か\u3099", "か"}},
		{"हिन्दी शब्द", []string{"हिन्दी", "शब्द"}},
		{"so\u00adft zero\u200dwidth", []string{"soft", "zerowidth"}},
		{"a\ue000b 🎂 c\x00d", []string{"a", "b", "c", "d"}},
		{"½ x² Ⅻ", []string{"½", "x²", "ⅻ"}},
		{"bad \xff\xfe utf é", []string{"bad", "utf", "e"}},
	} {
		var got []string
		for _, w := range splitWords(c.text) {
			got = append(got, string(w))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestMonths(t *testing.T) {
	for _, at := range []string{"1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		m := monthOf(when.UnixMilli())
		start, next := time.UnixMilli(monthStart(m)).UTC(), time.UnixMilli(monthStart(m+1)).UTC()
		if start.After(when) || !next.After(when) || start.Day() != 1 || monthOf(start.UnixMilli()) != m || monthOf(start.UnixMilli()-1) != m-1 {
			t.Errorf("%s lies in month %d, from %v to %v", at, m, start, next)
		}
	}
}

// remake closes the store, does something to its home, opens it again and looks
// whether everything is found.
func remake(t *testing.T, spoil func(dir string, w *world)) (logged string) {
	t.Helper()
	dir := t.TempDir()
	w := newWorld(t, dir)
	for i := range 20 {
		e := w.message(0, false, uint64(i+1), float64(i), fmt.Sprint("found again ", i))
		w.insert(&e)
	}
	w.drain()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(dir, w)
	var log bytes.Buffer
	o := testOptions(dir)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.Store = s
	w.drain()
	if got := w.found(Query{Text: "found", Limit: 100}); len(got) != 20 || got[0] != "found again 19" {
		t.Errorf("found %d: %q", len(got), got)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return log.String()
}

func TestIndexIsMadeAnew(t *testing.T) {
	index := func(dir string) string { return filepath.Join(dir, IndexFile) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(dir string, w *world){
		"damaged": func(dir string, _ *world) {
			b, err := os.ReadFile(index(dir))
			must(err)
			for i := 100; i < len(b); i += 1000 {
				b[i] ^= 1
			}
			must(os.WriteFile(index(dir), b, 0o600))
		},
		"cut short": func(dir string, _ *world) { must(os.Truncate(index(dir), 20_000)) },
		"no database": func(dir string, _ *world) {
			must(os.WriteFile(index(dir), bytes.Repeat([]byte("not a database. "), 4096), 0o600))
		},
		"of another home": func(dir string, _ *world) {
			other := t.TempDir()
			o := testOptions(other)
			o.IDs = map[string][16]byte{AccountFile: {1}, IndexFile: {99}, NetFile: {3}}
			s, err := Open(t.Context(), o)
			must(err)
			must(s.Close())
			b, err := os.ReadFile(index(other))
			must(err)
			must(os.WriteFile(index(dir), b, 0o600))
		},
		"of another account.db": func(dir string, _ *world) {
			w := newWorld(t, t.TempDir())
			e := w.message(0, false, 1, 0, "elsewhere")
			w.insert(&e)
			w.drain()
			from := w.index.d.path
			must(w.Close())
			b, err := os.ReadFile(from)
			must(err)
			must(os.WriteFile(index(dir), b, 0o600))
		},
		"asked for": func(dir string, _ *world) {
			s, err := Open(t.Context(), testOptions(dir))
			must(err)
			must(s.Write(t.Context(), func(tx *Tx) error { return tx.PutSetting(settingReindex, []byte("1"), false) }))
			must(s.Close())
		},
		"newer": func(dir string, _ *world) {
			s, err := Open(t.Context(), testOptions(dir))
			must(err)
			must(s.index.d.write(t.Context(), func(tx *Tx) error { return tx.Exec("PRAGMA user_version = 99") }))
			must(s.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			if log := remake(t, spoil); !strings.Contains(log, "made anew") {
				t.Errorf("nothing was said: %q", log)
			}
		})
	}
	t.Run("lost", func(t *testing.T) {
		remake(t, func(dir string, _ *world) { must(os.Remove(index(dir))) })
	})
	t.Run("as it was", func(t *testing.T) {
		if log := remake(t, func(string, *world) {}); strings.Contains(log, "made anew") {
			t.Errorf("a sound index was thrown away: %q", log)
		}
	})
}

// In memory, in virtual time: a message is indexed by itself within the delay, and
// nothing is left when the store is closed.
func TestIndexerInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		for i := range 5 {
			e := w.message(0, false, uint64(i+1), float64(i), "by itself")
			w.insert(&e)
		}
		behind := func() int {
			n, err := w.IndexBehind(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		synctest.Wait()
		if got := w.found(Query{Text: "itself"}); len(got) != 5 {
			t.Errorf("found %d before they are indexed", len(got))
		}
		time.Sleep(2 * indexDelay)
		synctest.Wait()
		if n := behind(); n != 0 {
			t.Errorf("behind by %d after %v", n, 2*indexDelay)
		}
		time.Sleep(2 * indexRest) // and merged
		if got := w.found(Query{Text: "itself"}); len(got) != 5 {
			t.Errorf("found %d afterwards", len(got))
		}
	})
}

// Control events are not indexed, and an index that is damaged while it is used
// stops nobody from deleting.
func TestDeletionWithABrokenIndex(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir)
	e := w.message(0, false, 1, 1, "stubborn")
	other := w.message(0, false, 2, 2, "stubborn too")
	control := w.message(0, false, 3, 3, "stubborn control")
	control.Type = event.Profile
	w.insert(&e, &other, &control)
	w.drain()
	w.index.broken.Store(true)
	w.write(func(tx *Tx) error { return tx.DeleteEvent(e.Row) })
	if err := w.IndexDrain(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("draining gives %v", err)
	}
	w = w.reopen(dir)
	w.drain()
	if diff := cmp.Diff([]string{"stubborn too"}, w.found(Query{Text: "stubborn"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	w := newWorld(t, "")
	e := w.message(0, false, 1, 1, "x")
	w.insert(&e)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.IndexDrain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := w.Search(ctx, Query{Text: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a search gives %v", err)
	}
}

// FuzzQuery: whatever is asked, the index takes the question, and answers as a
// walk through the texts does.
func FuzzQuery(f *testing.F) {
	texts := []string{"the quick brown fox", "Straße nach Genève", "東京タワー", "half-baked \"quoted\" text", "a b c 1 2 3"}
	for _, q := range append(texts, `"quick brown"`, "bro*", `"`, "*", "a* \"b", `" OR "`, "NEAR(a b)", "t:quick", "\ue000a1", "\x00", "\xff", "東*", `“the “quick`) {
		f.Add(q)
	}
	w := newWorld(f, "")
	for i, text := range texts {
		e := w.message(0, false, uint64(i+1), float64(i*10), text)
		w.insert(&e)
	}
	w.drain()
	f.Fuzz(func(t *testing.T, text string) {
		q := Query{Text: text}
		s, err := q.parse()
		if err != nil {
			if !errors.Is(err, ErrQuery) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if len(s.terms) == 0 {
			return
		}
		hits, err := w.Search(context.Background(), q)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		want := 0
		for _, text := range texts {
			if s.holds(text) {
				want++
			}
		}
		if len(hits) != want {
			t.Errorf("%q: %d hits, a walk finds %d", text, len(hits), want)
		}
	})
}
