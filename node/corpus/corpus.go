// Package corpus makes texts that look like people's messages to a search
// index: words of a Zipf distribution, sentences, names and numbers that occur
// once. The same seed gives the same texts on every machine, so that a figure
// can name the corpus it was measured with.
//
//	c := corpus.New(1)
//	text := c.Text(1024) // exactly 1,024 bytes of ASCII
//
// It imitates sizes and frequencies only; the words mean nothing.
package corpus

import (
	"math/rand/v2"
	"slices"
	"strconv"
)

// Vocabulary is the number of different words that a corpus repeats.
const Vocabulary = 40_000

// oddOneIn is how many words come before one that is new: a number or a name
// that occurs nowhere else. Real mail has at least as many, and an index pays
// for every one of them.
const oddOneIn = 100

// Corpus yields texts in a fixed order. It is not safe for concurrent use.
type Corpus struct {
	rand  *rand.Rand
	words []string
	upto  []float64 // cumulative weight of words[:i+1]
	buf   []byte
}

// New returns the corpus of a seed. It builds its vocabulary, which takes about
// 10 ms and 2 MB.
func New(seed uint64) *Corpus {
	c := &Corpus{
		rand:  rand.New(rand.NewPCG(seed, 0x6b696e6c6f6f6d)),
		words: make([]string, 0, Vocabulary),
		upto:  make([]float64, 0, Vocabulary),
	}
	// The vocabulary is the same for every seed, so that two corpora share their
	// frequent words as two people do.
	r := rand.New(rand.NewPCG(1, 2))
	seen := make(map[string]bool, Vocabulary)
	total := 0.0
	for len(c.words) < Vocabulary {
		w := word(r, len(c.words))
		if seen[w] {
			continue
		}
		seen[w] = true
		c.words = append(c.words, w)
		total += 1 / (float64(len(c.words)) + 2.7) // Mandelbrot's form of Zipf's law
		c.upto = append(c.upto, total)
	}
	return c
}

const (
	consonants = "bcdfghjklmnprstvwz"
	vowels     = "aeiou"
)

// word makes a word for a rank: frequent words are short.
func word(r *rand.Rand, rank int) string {
	syllables := 1
	for n := rank; n > 30; n /= 18 {
		syllables++
	}
	var b []byte
	for range syllables {
		b = append(b, consonants[r.IntN(len(consonants))], vowels[r.IntN(len(vowels))])
		if r.IntN(3) == 0 {
			b = append(b, consonants[r.IntN(len(consonants))])
		}
	}
	return string(b)
}

// Word returns the word of a rank, 0 being the most frequent one. A rank
// outside [0, Vocabulary) gives the nearest.
func (c *Corpus) Word(rank int) string {
	return c.words[min(max(rank, 0), len(c.words)-1)]
}

// Text returns the next text of exactly n bytes, empty for n < 1.
func (c *Corpus) Text(n int) string {
	b := c.buf[:0]
	start := true
	for len(b) < n {
		if len(b) > 0 {
			b = append(b, ' ')
		}
		at := len(b)
		switch odd := c.rand.IntN(2 * oddOneIn); odd {
		case 0:
			b = strconv.AppendInt(b, int64(c.rand.IntN(1_000_000_000)), 10)
		case 1:
			b = append(b, c.draw()...)
			b = strconv.AppendInt(b, int64(c.rand.IntN(1_000_000)), 36)
			start = true
		default:
			b = append(b, c.draw()...)
		}
		if start && b[at] >= 'a' {
			b[at] -= 'a' - 'A'
		}
		start = false
		switch c.rand.IntN(12) {
		case 0:
			b = append(b, '.')
			start = true
		case 1:
			b = append(b, ',')
		}
	}
	c.buf = b
	return string(b[:max(n, 0)])
}

// draw picks a word by its weight.
func (c *Corpus) draw() string {
	x := c.rand.Float64() * c.upto[len(c.upto)-1]
	i, _ := slices.BinarySearch(c.upto, x)
	return c.words[min(i, len(c.words)-1)]
}
