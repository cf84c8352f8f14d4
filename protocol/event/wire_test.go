package event

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/wire"
)

// vector is one object of testdata/vectors, as protocol/README.md says.
type vector struct {
	Name    string
	Message string
	Hex     string
	With    map[string]any
	Expect  any
}

func (v vector) bytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		tb.Fatalf("vector %q: %v", v.Name, err)
	}
	return b
}

// vectors reads all vectors of this folder.
func vectors(tb testing.TB) []vector {
	tb.Helper()
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no vectors: %v", err)
	}
	var all []vector
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var some []vector
		if err := json.Unmarshal(b, &some); err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
		all = append(all, some...)
	}
	return all
}

// value writes a Go value as vectors do: fields by name, bytes in hex, large
// integers as text, nothing that is zero.
func value(x any) any {
	v := reflect.ValueOf(x)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() && (f.Kind() != reflect.Slice || f.Len() > 0) {
				fields[v.Type().Field(i).Name] = value(f.Interface())
			}
		}
		return fields
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return hex.EncodeToString(b)
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = value(v.Index(i).Interface())
		}
		return list
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		if n := v.Uint(); n > MaxSeq {
			return strconv.FormatUint(n, 10)
		}
		return float64(v.Uint())
	}
	return v.Interface()
}

var namedErrors = map[string]error{
	"ErrMalformed": ErrMalformed, "ErrSize": ErrSize, "ErrUTF8": ErrUTF8, "ErrSeq": ErrSeq,
	"ErrParents": ErrParents, "ErrClock": ErrClock, "ErrType": ErrType, "ErrKey": ErrKey,
	"ErrEmpty": ErrEmpty, "ErrTooLong": ErrTooLong, "ErrCount": ErrCount, "ErrMarks": ErrMarks,
	"ErrSeconds": ErrSeconds, "ErrProof": ErrProof,
}

// message is what every message of this package can do.
type message interface{ Append() ([]byte, error) }

func reader[M message](parse func([]byte) (M, error)) func([]byte) (message, error) {
	return func(b []byte) (message, error) { return parse(b) }
}

var parsers = map[string]func([]byte) (message, error){
	"Event":       reader(Parse),
	"Text":        reader(ParseText),
	"Revision":    reader(ParseRevision),
	"Emotion":     reader(ParseEmotion),
	"Retraction":  reader(ParseRetraction),
	"Name":        reader(ParseName),
	"Entries":     reader(ParseEntries),
	"Marks":       reader(ParseMarks),
	"Refused":     reader(ParseRefused),
	"Wanted":      reader(ParseWanted),
	"Composing":   reader(ParseComposing),
	"Whereabouts": reader(ParseWhereabouts),
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		parse := parsers[v.Message]
		if parse == nil {
			got, err := v.derive(t)
			if name, ok := v.Expect.(string); ok {
				if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
					t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
				}
			} else if d := cmp.Diff(v.Expect, any(got)); d != "" || err != nil {
				t.Errorf("%s %q: %v (-want +got):\n%s", v.Message, v.Name, err, d)
			}
			continue
		}
		b := v.bytes(t)
		m, err := parse(b)
		if name, ok := v.Expect.(string); ok {
			if want := namedErrors[name]; want == nil || !errors.Is(err, want) {
				t.Errorf("%s %q: error %v, want %s", v.Message, v.Name, err, name)
			}
			if d := cmp.Diff(map[string]any{}, value(m)); d != "" {
				t.Errorf("%s %q: refused, yet there is a value:\n%.500s", v.Message, v.Name, d)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", v.Message, v.Name, err)
			continue
		}
		if d := cmp.Diff(v.Expect, value(m)); d != "" {
			t.Errorf("%s %q (-want +got):\n%.1000s", v.Message, v.Name, d)
		}
		again, err := m.Append()
		if err != nil {
			t.Errorf("%s %q: Append: %v", v.Message, v.Name, err)
		}
		if unknown := strings.Contains(v.Name, "unknown key"); unknown == bytes.Equal(again, b) {
			t.Errorf("%s %q: unknown key: %v; Append gives %.80x, want %.80x", v.Message, v.Name, unknown, again, b)
		}
		for n := range b {
			if _, err := parse(b[:n]); err == nil {
				t.Errorf("%s %q: its first %d bytes pass too", v.Message, v.Name, n)
			}
		}
	}
}

// derive runs a vector of a function.
func (v vector) derive(t *testing.T) (map[string]any, error) {
	t.Helper()
	b := v.bytes(t)
	switch v.Message {
	case "Proved":
		w, err := ParseWhereabouts(b)
		if err != nil {
			t.Errorf("%q: %v", v.Name, err)
		}
		return map[string]any{"Transport": value(w.Transport)}, Proved(w, v.hash(t, "Device"))
	case "PairID":
		return map[string]any{"Conversation": PairID(identity.PersonID(b[:32]), identity.PersonID(b[32:])).String()}, nil
	case "SelfID":
		return map[string]any{"Conversation": SelfID(identity.PersonID(b)).String()}, nil
	case "ForeignID":
		return map[string]any{"Conversation": ForeignID(v.text("Network"), v.text("Account"), v.text("Chat")).String()}, nil
	case "IDOf":
		c := Context{Conversation: v.hash(t, "Conversation"), Author: v.hash(t, "Author"), Device: v.hash(t, "Device")}
		return map[string]any{"ID": IDOf(c, b).String()}, nil
	case "Clock":
		c, now := Clock(v.number(t, "Clock")), time.UnixMilli(int64(v.number(t, "Now")))
		if _, ok := v.With["Remote"]; !ok {
			return map[string]any{"Next": value(c.Next(now))}, nil
		}
		got := map[string]any{}
		next, wrong := c.Observe(Clock(v.number(t, "Remote")), now)
		if next > 0 {
			got["Clock"] = value(next)
		}
		if wrong {
			got["Wrong"] = true
		}
		return got, nil
	case "Order":
		nodes := v.nodes(t)
		var ids []any
		for _, i := range Order(nodes) {
			ids = append(ids, nodes[i].ID.String())
		}
		return map[string]any{"Order": ids}, nil
	}
	t.Fatalf("%q: unknown message %s", v.Name, v.Message)
	return nil, nil
}

func (v vector) text(field string) string {
	s, _ := v.With[field].(string)
	return s
}

func (v vector) hash(t *testing.T, field string) [32]byte {
	t.Helper()
	b, err := hex.DecodeString(v.text(field))
	if err != nil || len(b) != 32 {
		t.Fatalf("%q: %s: %v", v.Name, field, err)
	}
	return [32]byte(b)
}

func (v vector) number(t *testing.T, field string) uint64 {
	t.Helper()
	switch n := v.With[field].(type) {
	case float64:
		return uint64(int64(n))
	case string:
		u, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			t.Fatalf("%q: %s: %v", v.Name, field, err)
		}
		return u
	}
	return 0
}

// nodes reads the nodes of an Order vector.
func (v vector) nodes(t *testing.T) []Node {
	t.Helper()
	var nodes []Node
	list, _ := v.With["Nodes"].([]any)
	for _, x := range list {
		fields, _ := x.(map[string]any)
		w := vector{Name: v.Name, With: fields}
		n := Node{ID: w.hash(t, "ID"), Device: w.hash(t, "Device"), Seq: w.number(t, "Seq"), Clock: Clock(w.number(t, "Clock"))}
		parents, _ := fields["Parents"].([]any)
		for _, p := range parents {
			n.Parents = append(n.Parents, vector{With: map[string]any{"ID": p}}.hash(t, "ID"))
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// TestAppendRefuses: what Parse would refuse is not written either.
func TestAppendRefuses(t *testing.T) {
	text := must(Text{Text: "hello"}.Append())
	id := ID{1}
	long := strings.Repeat("x", wire.MaxText+1)
	for _, tt := range []struct {
		name string
		m    message
		want error
	}{
		{"no body", Event{Seq: 1, Type: Message}, ErrMalformed},
		{"body not a map", Event{Seq: 1, Type: Message, Body: []byte{1}}, ErrMalformed},
		{"body too large", Event{Seq: 1, Type: Message, Body: make([]byte, MaxBody+1)}, ErrSize},
		{"no seq", Event{Type: Message, Body: text}, ErrSeq},
		{"seq too high", Event{Seq: MaxSeq + 1, Type: Message, Body: text}, ErrSeq},
		{"ephemeral with seq", Event{Seq: 1, Type: Typing, Body: text}, ErrSeq},
		{"no type", Event{Seq: 1, Body: text}, ErrType},
		{"type too high", Event{Seq: 1, Type: math.MaxUint16, Body: text}, ErrType},
		{"clock too high", Event{Seq: 1, Type: Message, Clock: MaxClock + 1, Body: text}, ErrClock},
		{"parents too many", Event{Seq: 1, Type: Message, Parents: make([]ID, MaxParents+1), Body: text}, ErrParents},
		{"parent twice", Event{Seq: 1, Type: Message, Parents: []ID{id, id}, Body: text}, ErrParents},
		{"parent of the ephemeral", Event{Type: Typing, Parents: []ID{id}, Body: text}, ErrParents},
		{"key too long", Event{Seq: 1, Type: Profile, Key: long[:MaxKey+1], Body: text}, ErrKey},
		{"key of content", Event{Seq: 1, Type: Message, Key: "k", Body: text}, ErrKey},
		{"key not UTF-8", Event{Seq: 1, Type: Profile, Key: "\xff", Body: text}, ErrUTF8},
		{"text empty", Text{}, ErrEmpty},
		{"text too long", Text{Text: long}, ErrTooLong},
		{"text not UTF-8", Text{Text: "\xc3("}, ErrUTF8},
		{"revision empty", Revision{Target: id}, ErrEmpty},
		{"revision too long", Revision{Target: id, Text: long}, ErrTooLong},
		{"emoji too long", Emotion{Target: id, Emoji: long[:MaxReaction+1]}, ErrTooLong},
		{"name too long", Name{Name: long[:MaxName+1]}, ErrTooLong},
		{"name not UTF-8", Name{Name: "\xff"}, ErrUTF8},
		{"no entries", Entries{}, ErrCount},
		{"empty entry", Entries{Entries: [][]byte{nil}}, ErrCount},
		{"empty record", Entries{Entries: [][]byte{{1}}, Records: [][]byte{{}}}, ErrCount},
		{"entries too many", Entries{Entries: make([][]byte, MaxEntries+1)}, ErrCount},
		{"records too many", Entries{Entries: [][]byte{{1}}, Records: make([][]byte, MaxEntries+1)}, ErrCount},
		{"entries too large", Entries{Entries: [][]byte{make([]byte, 9000), make([]byte, 9000)}}, ErrSize},
		{"no marks", Marks{}, ErrCount},
		{"marks too many", Marks{Marks: make([]Mark, MaxMarks+1)}, ErrCount},
		{"mark of seq 0", Marks{Marks: []Mark{{}}}, ErrMarks},
		{"mark above MaxSeq", Marks{Marks: []Mark{{Seq: MaxSeq + 1}}}, ErrMarks},
		{"mark twice", Marks{Marks: []Mark{{Seq: 1}, {Seq: 2}}}, ErrMarks},
		{"nothing refused", Refused{Upto: 2, Held: 1}, ErrCount},
		{"refused too many", Refused{Upto: 2, Held: 1, IDs: make([]ID, MaxRefused+1)}, ErrCount},
		{"refused, none held", Refused{Upto: 2, IDs: make([]ID, 1)}, ErrSeq},
		{"refused, more held than closed", Refused{Upto: 2, Held: 3, IDs: make([]ID, 1)}, ErrSeq},
		{"refused above MaxSeq", Refused{Upto: MaxSeq + 1, Held: 3, IDs: make([]ID, 1)}, ErrSeq},
		{"wanted from 0", Wanted{To: 1}, ErrSeq},
		{"wanted backwards", Wanted{From: 2, To: 1}, ErrSeq},
		{"wanted above MaxSeq", Wanted{From: 2, To: MaxSeq + 1}, ErrSeq},
		{"transport without a proof", Whereabouts{Transport: id}, ErrMalformed},
		{"proof without a transport", Whereabouts{Proof: [64]byte{1}}, ErrMalformed},
		{"addresses without a transport", Whereabouts{Addrs: [][]byte{{1}}}, ErrMalformed},
		{"typing too long", Composing{Seconds: MaxTyping + 1}, ErrSeconds},
	} {
		if b, err := tt.m.Append(); !errors.Is(err, tt.want) || b != nil {
			t.Errorf("%s: %d bytes, error %v, want %v", tt.name, len(b), err, tt.want)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestMessageOverhead: a message costs at most 24 bytes beyond its text.
func TestMessageOverhead(t *testing.T) {
	now := time.UnixMilli(1_790_000_000_000)
	for _, tt := range []struct {
		seq  uint64
		text int
		most int
	}{
		{1, 1, 17},
		{23, 23, 17},
		{1000, 1024, 21},
		{math.MaxUint16, wire.MaxText, 21},
		{math.MaxUint32, 1024, 23},
	} {
		body := must(Text{Text: strings.Repeat("x", tt.text)}.Append())
		b := must(Event{Seq: tt.seq, Clock: Clock(0).Next(now), Type: Message, Body: body}.Append())
		if over := len(b) - tt.text; over > tt.most {
			t.Errorf("event %d with %d bytes of text: %d bytes more, at most %d", tt.seq, tt.text, over, tt.most)
		}
	}
}

// TestLargestEventFits: no valid body makes an event that is too large.
func TestLargestEventFits(t *testing.T) {
	e := Event{Seq: MaxSeq, Clock: MaxClock, Type: 127, Key: strings.Repeat("k", MaxKey)}
	for i := range MaxParents {
		e.Parents = append(e.Parents, ID{byte(i)})
	}
	e.Body = append([]byte{0xa1, 1, 0x59, (MaxBody - 5) >> 8, (MaxBody - 5) & 0xff}, make([]byte, MaxBody-5)...)
	b := must(e.Append())
	if len(e.Body) != MaxBody || len(b) > MaxEvent {
		t.Errorf("body of %d bytes in an event of %d, at most %d", len(e.Body), len(b), MaxEvent)
	}
	if _, err := Parse(b); err != nil {
		t.Error(err)
	}
}

// TestParseAliases: what Parse returns lies in the input and cannot grow over it.
func TestParseAliases(t *testing.T) {
	b := must(Event{Seq: 1, Type: Message, Body: must(Text{Text: "hello"}.Append())}.Append())
	b = append(b, "behind"...)
	e, err := Parse(b[:len(b)-6])
	if err != nil || cap(e.Body) != len(e.Body) {
		t.Fatalf("body of length %d has capacity %d, %v", len(e.Body), cap(e.Body), err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = Parse(b[:len(b)-6]) }); n > 0 {
		t.Errorf("Parse of a message allocates %v times", n)
	}
}

func benchText() Text { return Text{Text: strings.Repeat("grüß dich ", 86)[:1024]} }

func BenchmarkAppendMessage(b *testing.B) {
	t := benchText()
	b.ReportAllocs()
	for b.Loop() {
		body, err := t.Append()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := (Event{Seq: 1000, Clock: 1 << 60, Type: Message, Body: body}).Append(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseMessage(b *testing.B) {
	raw := must(Event{Seq: 1000, Clock: 1 << 60, Type: Message, Body: must(benchText().Append())}.Append())
	b.ReportAllocs()
	for b.Loop() {
		e, err := Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseText(e.Body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIDOf(b *testing.B) {
	raw := must(Event{Seq: 1000, Clock: 1 << 60, Type: Message, Body: must(benchText().Append())}.Append())
	b.ReportAllocs()
	for b.Loop() {
		_ = IDOf(Context{}, raw)
	}
}
