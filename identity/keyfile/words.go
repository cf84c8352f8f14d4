package keyfile

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Recovery words are BIP-0039: 11 bits a word, 256 bits of root seed and 8
// bits of checksum make 24 words.
const (
	WordCount  = 24   // recovery words of a root seed
	WordsTotal = 2048 // words of the list, so 11 bits each
	wordBits   = 11

	maxWordsText = 1024 // bytes given to ParseWords
)

// english is the word list of BIP-0039, one word a line, in ascending order.
//
//go:embed english.txt
var english string

var wordList = sync.OnceValue(func() []string { return strings.Fields(english) })

var (
	// ErrWordCount: not 24 words.
	ErrWordCount = errors.New("recovery words are 24 words")
	// ErrWordChecksum: 24 words of the list that do not belong together: one
	// is another word of the list, or two stand in the wrong place.
	ErrWordChecksum = errors.New("the recovery words do not fit together (checksum): compare each word and their order with your note")
)

// ErrWord names a word that is not in the list.
type ErrWord struct {
	Position int    // 1 to 24
	Word     string // as typed, cut to 16 bytes
}

func (e ErrWord) Error() string {
	return fmt.Sprintf("word %d, %q, is not a recovery word: the words are English, from the BIP-0039 list", e.Position, e.Word)
}

// WordAt returns word i of the list, 0 to 2047: for check words of 11 bits.
func WordAt(i int) string { return wordList()[i] }

// Words encodes a root seed as 24 words. They are the person: whoever has them
// can write a new log key.
func Words(root [32]byte) []string {
	sum := sha256.Sum256(root[:])
	bits := append(root[:], sum[0])
	out := make([]string, WordCount)
	for i := range out {
		n := 0
		for j := i * wordBits; j < (i+1)*wordBits; j++ {
			n = n<<1 | int(bits[j/8]>>(7-j%8)&1)
		}
		out[i] = WordAt(n)
	}
	return out
}

// ParseWords reads 24 words, in any case and with any blanks between them.
// Errors: ErrWordCount, ErrWord with the place of the first wrong word,
// ErrWordChecksum. The checksum has 8 bits: of the mistakes that keep to words
// of the list, one in 256 passes it and gives the root of nobody.
func ParseWords(text string) ([32]byte, error) {
	if len(text) > maxWordsText {
		return [32]byte{}, ErrWordCount
	}
	words := strings.Fields(strings.ToLower(text))
	bits := make([]byte, 33)
	defer clear(bits)
	for i, w := range words {
		n, ok := slices.BinarySearch(wordList(), w)
		if !ok {
			return [32]byte{}, ErrWord{Position: i + 1, Word: cut(w)}
		}
		if i >= WordCount {
			break
		}
		for j := range wordBits {
			bit := i*wordBits + j
			bits[bit/8] |= byte(n>>(wordBits-1-j)&1) << (7 - bit%8)
		}
	}
	if len(words) != WordCount {
		return [32]byte{}, fmt.Errorf("%w: these are %d", ErrWordCount, len(words))
	}
	root := [32]byte(bits)
	if sha256.Sum256(root[:])[0] != bits[32] {
		return [32]byte{}, ErrWordChecksum
	}
	return root, nil
}

func cut(w string) string { return w[:min(len(w), 16)] }
