package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrQuery is returned for a query that cannot be searched for; the text says
// why and what to do.
var ErrQuery = errors.New("cannot search for that")

// Limits of a query.
const (
	maxQueryText  = 1024 // bytes
	maxQueryWords = 32
	minPrefix     = 3 // letters; one letter takes 200 ms of every 1,000,000 messages
	defaultHits   = 20
	maxHits       = 10_000
)

// Query says what to search for. All that is given must hold; Text may be empty
// if something else is given.
type Query struct {
	// Text has words, each of which must be there in any order; "words in quotes",
	// which must follow each other; and beginnings of words, of 3 letters or more:
	// begin*. Case and accents do not matter.
	Text string
	// Persons are the authors to choose from, as did:key; none is anybody.
	Persons []string
	// Network is "kinloom", the only one so far, or empty for any.
	Network string
	// Protection is "direct", "network", "provider", or empty for any.
	Protection string
	// Conversation is the row of one; 0 is any.
	Conversation Row
	// Since is the earliest time of what is found.
	Since time.Time
	// Before is the Place of the last hit of the page before; zero is the newest.
	Before Cursor
	// Limit is how many to find, 20 if 0 and at most 10,000.
	Limit int
}

// protections are the grades by their number in Event.Protection.
var protections = [...]string{1: "direct", 2: "network", 3: "provider"}

// term is one word or several that follow each other; prefix says that the last
// one may go on.
type term struct {
	words  [][]byte
	prefix bool
}

// search is a query that is ready to run.
type search struct {
	Query
	terms      []term
	phrases    bool // some term has several words: the index cannot tell
	authors    []Row
	impossible bool // nothing can match

	text  []byte   // of the body that is looked at
	words [][]byte // of text
}

func (q Query) parse() (*search, error) {
	s := &search{Query: q}
	s.Limit = min(s.Limit, maxHits)
	if s.Limit <= 0 {
		s.Limit = defaultHits
	}
	if len(q.Text) > maxQueryText {
		return nil, fmt.Errorf("%w: the text has more than %d bytes: give less of it", ErrQuery, maxQueryText)
	}
	words := 0
	for text := q.Text; text != ""; {
		var part string
		part, text = cutTerm(text)
		t := makeTerm(part)
		if len(t.words) == 0 {
			continue
		}
		if n := utf8.RuneCount(t.words[len(t.words)-1]); t.prefix && n < minPrefix {
			return nil, fmt.Errorf("%w: %q is too short: give at least %d letters of the beginning", ErrQuery, part, minPrefix)
		}
		words += len(t.words)
		s.phrases = s.phrases || len(t.words) > 1
		s.terms = append(s.terms, t)
	}
	switch {
	case words > maxQueryWords:
		return nil, fmt.Errorf("%w: more than %d words: give fewer", ErrQuery, maxQueryWords)
	case words == 0 && strings.TrimSpace(q.Text) != "":
		return nil, fmt.Errorf("%w: there is no letter or digit in it: give a word", ErrQuery)
	case words == 0 && len(q.Persons) == 0 && q.Network == "" && q.Protection == "" && q.Conversation == 0 && q.Since.IsZero():
		return nil, fmt.Errorf("%w: nothing was given: give a word", ErrQuery)
	}
	s.impossible = q.Network != "" && q.Network != "kinloom" || q.Protection != "" && s.protection() == 0
	return s, nil
}

// protection is the number of the wanted grade, 0 if there is none like it.
func (s *search) protection() uint8 {
	for i, name := range protections {
		if name == s.Protection && name != "" {
			return uint8(i)
		}
	}
	return 0
}

const quotes = `"“”„«»`

// cutTerm cuts the next word or quoted text off; a quoted one keeps its quote in
// front.
func cutTerm(s string) (part, rest string) {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	r, n := utf8.DecodeRuneInString(s)
	if n > 0 && strings.ContainsRune(quotes, r) {
		s = s[n:]
		end := strings.IndexAny(s, quotes)
		if end < 0 {
			return s, ""
		}
		_, n := utf8.DecodeRuneInString(s[end:])
		return s[:end], s[end+n:]
	}
	end := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(quotes, r) })
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

// makeTerm makes words of a part as the index does. One that has several, such as
// half-baked or a run of Chinese, is looked for as they stand.
func makeTerm(part string) term {
	text, prefix := strings.CutSuffix(part, "*")
	t := term{prefix: prefix, words: splitWords(text)}
	if n := len(t.words); n > 0 {
		last, _ := utf8.DecodeRune(t.words[n-1])
		t.prefix = t.prefix && !unicode.In(last, unspaced...) // these are whole
	}
	return t
}

func splitWords(text string) [][]byte { return appendSplit(nil, appendWords(nil, text)) }

// appendSplit appends the words of what appendWords made; they share its memory.
func appendSplit(words [][]byte, rest []byte) [][]byte {
	for {
		var w []byte
		if w, rest = nextWord(rest); len(w) == 0 {
			return words
		}
		words = append(words, w)
	}
}

// match is the expression for FTS5. Every token of it is ours: the words have
// letters and digits alone.
func (s *search) match(late bool) string {
	var all []string
	for _, t := range s.terms {
		for i, w := range t.words {
			m := `"` + string(w) + `"`
			if t.prefix && i == len(t.words)-1 {
				m += "*"
			}
			all = append(all, m)
		}
	}
	var persons []string
	for _, a := range s.authors {
		persons = append(persons, tagTerm(tagAuthor, int64(a)))
	}
	if len(persons) > 0 {
		all = append(all, "("+strings.Join(persons, " OR ")+")")
	}
	if s.Conversation != 0 {
		all = append(all, tagTerm(tagConversation, int64(s.Conversation)))
	}
	if s.Protection != "" {
		all = append(all, tagTerm(tagProtection, int64(s.protection())))
	}
	if s.Network != "" || len(all) == 0 {
		all = append(all, tagTerm(tagNetwork, networkKinloom))
	}
	if late {
		all = append(all, tagTerm(tagLate, 0))
	}
	return strings.Join(all, " AND ")
}

func tagTerm(kind byte, n int64) string {
	return `"` + string(bytes.TrimSpace(appendTag(nil, kind, n))) + `"`
}

// holds reports whether a text has the terms; the index was not asked.
func (s *search) holds(text string) bool {
	s.text = appendWords(s.text[:0], text)
	s.words = appendSplit(s.words[:0], s.text)
	for _, t := range s.terms {
		if !t.in(s.words) {
			return false
		}
	}
	return true
}

func (t *term) in(words [][]byte) bool {
	for i := 0; i+len(t.words) <= len(words); i++ {
		if t.at(words[i:]) {
			return true
		}
	}
	return false
}

// at reports whether words begin with the term.
func (t *term) at(words [][]byte) bool {
	for i, w := range t.words {
		last := i == len(t.words)-1
		if !bytes.Equal(w, words[i]) && !(last && t.prefix && bytes.HasPrefix(words[i], w)) {
			return false
		}
	}
	return true
}
