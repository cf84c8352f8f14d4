package event

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kinloom/kinloom/identity/enc"
)

// fuzzParser feeds a parser, beginning from all vectors. What it accepts it
// writes again, in no more bytes and with the same value; without unknown keys
// in the very same bytes. No cut of it is accepted too.
func fuzzParser[M message](f *testing.F, parse func([]byte) (M, error)) {
	f.Helper()
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if !reflect.ValueOf(m).IsZero() {
				t.Fatalf("refused (%v), yet there is a value: %+v", err, m)
			}
			return
		}
		again, err := m.Append()
		if err != nil {
			t.Fatalf("parsed, but Append says %v", err)
		}
		if len(again) > len(b) || len(again) == len(b) && !bytes.Equal(again, b) {
			t.Fatalf("another spelling:\n%x\n%x", b, again)
		}
		second, err := parse(again)
		if err != nil || !reflect.DeepEqual(second, m) {
			t.Fatalf("not the same value: %+v, %v; was %+v", second, err, m)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, err := parse(b[:n]); err == nil && n < len(b) {
				t.Fatalf("its first %d bytes pass too", n)
			}
		}
		if err := enc.Valid(b); err != nil {
			t.Fatalf("not canonical: %v", err)
		}
	})
}

func FuzzParse(f *testing.F)            { fuzzParser(f, Parse) }
func FuzzParseText(f *testing.F)        { fuzzParser(f, ParseText) }
func FuzzParseRevision(f *testing.F)    { fuzzParser(f, ParseRevision) }
func FuzzParseEmotion(f *testing.F)     { fuzzParser(f, ParseEmotion) }
func FuzzParseRetraction(f *testing.F)  { fuzzParser(f, ParseRetraction) }
func FuzzParseName(f *testing.F)        { fuzzParser(f, ParseName) }
func FuzzParseEntries(f *testing.F)     { fuzzParser(f, ParseEntries) }
func FuzzParseMarks(f *testing.F)       { fuzzParser(f, ParseMarks) }
func FuzzParseRefused(f *testing.F)     { fuzzParser(f, ParseRefused) }
func FuzzParseWanted(f *testing.F)      { fuzzParser(f, ParseWanted) }
func FuzzParseWhereabouts(f *testing.F) { fuzzParser(f, ParseWhereabouts) }
func FuzzParseComposing(f *testing.F)   { fuzzParser(f, ParseComposing) }

// FuzzClean (H10): nothing that hides or moves gets through, the length holds,
// and clean text is left alone.
func FuzzClean(f *testing.F) {
	for _, tt := range cleanCases {
		f.Add(tt.in, 16)
	}
	f.Add(strings.Repeat("\u200b", 1<<16), 40)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = min(limit, 1<<12)
		for _, clean := range []func(string, int) string{Clean, CleanText} {
			got := clean(s, limit)
			if !utf8.ValidString(got) || utf8.RuneCountInString(got) > max(limit, 0) {
				t.Fatalf("%q has %d characters, limit %d", got, utf8.RuneCountInString(got), limit)
			}
			for _, r := range got {
				if r != '\n' && r != '\t' && hidden(r) && !isJoiner(r) {
					t.Fatalf("%q: %U got through", got, r)
				}
			}
			if again := clean(got, limit); again != got {
				t.Fatalf("%q cleaned again is %q", got, again)
			}
		}
		if got := Clean(s, limit); strings.ContainsAny(got, "\n\t\r") || strings.TrimSpace(got) != got {
			t.Fatalf("%q is not one trimmed line", got)
		}
	})
}

// FuzzOrder (H81): any graph, cycles included, has one order that does not
// depend on how it comes in, and in which seqs rise.
func FuzzOrder(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Add(bytes.Repeat([]byte{7, 1, 0, 3, 9}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes := graphOf(b)
		want := orderIDs(nodes)
		slices.Reverse(nodes)
		if got := orderIDs(nodes); !slices.Equal(got, want) {
			t.Fatalf("reversed input: %v, want %v", got, want)
		}
		if half := len(nodes) / 2; half > 0 {
			nodes = slices.Concat(nodes[half:], nodes[:half])
			if got := orderIDs(nodes); !slices.Equal(got, want) {
				t.Fatalf("turned input: %v, want %v", got, want)
			}
		}
		checkSenderOrder(t, nodes)
	})
}

// graphOf makes up to 60 nodes of 5 devices out of bytes: anything can be the
// parent of anything.
func graphOf(b []byte) []Node {
	var nodes []Node
	for i := 0; i+4 < len(b) && len(nodes) < 60; i += 5 {
		n := Node{ID: ID{byte(len(nodes)), 1}, Seq: uint64(b[i]%8) + 1, Clock: Clock(b[i+1] % 16)}
		n.Device[0] = b[i+2] % 5
		for _, p := range b[i+3 : i+5] {
			if id := (ID{p % 64, 1}); p < 200 && !slices.Contains(n.Parents, id) {
				n.Parents = append(n.Parents, id)
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}
