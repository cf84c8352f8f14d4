package corpus

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestTextIsSeeded(t *testing.T) {
	a, b, other := New(7), New(7), New(8)
	for i := range 100 {
		x, y, z := a.Text(1024), b.Text(1024), other.Text(1024)
		if x != y {
			t.Fatalf("text %d differs between two corpora of one seed", i)
		}
		if x == z {
			t.Fatalf("text %d is equal for two seeds", i)
		}
		if len(x) != 1024 {
			t.Fatalf("text %d has %d bytes, want 1024", i, len(x))
		}
	}
	for _, n := range []int{-1, 0, 1, 5} {
		if got := len(a.Text(n)); got != max(n, 0) {
			t.Errorf("Text(%d) has %d bytes", n, got)
		}
	}
}

// A figure names its corpus by the seed, so the texts must never change.
func TestTextIsFixed(t *testing.T) {
	c := New(1)
	h := sha256.New()
	for range 1000 {
		h.Write([]byte(c.Text(1024)))
	}
	const want = "c351b7e54930fbb27614da2632320d813d8a83c44418267bb0d3054dfd3041d9"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("the first 1,000 texts of seed 1 hash to %s, want %s", got, want)
	}
}

func TestWordsFollowZipf(t *testing.T) {
	c := New(3)
	count := map[string]int{}
	words := 0
	for range 2000 {
		for w := range strings.FieldsSeq(strings.ToLower(c.Text(1024))) {
			count[strings.Trim(w, ".,")]++
			words++
		}
	}
	if perText := words / 2000; perText < 120 || perText > 260 {
		t.Errorf("%d words in 1 KiB, want 120-260", perText)
	}
	first, tenth, hundredth := count[c.Word(0)], count[c.Word(9)], count[c.Word(99)]
	if first <= tenth || tenth <= 3*hundredth || hundredth == 0 {
		t.Errorf("words of rank 1, 10, 100 occur %d, %d, %d times: not a Zipf distribution", first, tenth, hundredth)
	}
	if len(count) < 20_000 {
		t.Errorf("only %d different words in 2,000 texts", len(count))
	}
	if c.Word(-1) != c.Word(0) || c.Word(Vocabulary) != c.Word(Vocabulary-1) {
		t.Error("a rank outside the vocabulary is not clamped")
	}
}

func BenchmarkText(b *testing.B) {
	c := New(1)
	for b.Loop() {
		c.Text(1024)
	}
}
