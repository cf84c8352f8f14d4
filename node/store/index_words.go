package store

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kinloom/kinloom/protocol/event"
	"golang.org/x/text/unicode/norm"
)

// A tag is a token that says what an event is, among the tokens that it
// consists of. It begins with a character of a private use area, which no word
// ever has: appendWords drops those.
const tagMark = "\ue000"

// The kinds of tags, each followed by a number in base 36.
const (
	tagAuthor       = 'a' // contact row
	tagConversation = 'c' // conversation row
	tagNetwork      = 'n' // networkKinloom
	tagProtection   = 'p' // Event.Protection
	tagMonth        = 'm' // monthOf
	tagLate         = 'l' // its time lies before that of events with lower rows
	tagID           = 'i' // the first 16 hex digits of the id
)

// networkKinloom is the number of the only network so far.
const networkKinloom = 1

// tagIDDigits is how many hex digits of an id are indexed: 64 bits, of which
// two of 1,000,000 events share all with a probability of 1 in 30,000,000. Who
// is found is held against the whole id.
const tagIDDigits = 16

func appendTag(dst []byte, kind byte, n int64) []byte {
	dst = append(append(dst, tagMark...), kind)
	return append(strconv.AppendInt(dst, n, 36), ' ')
}

func appendID(dst []byte, id event.ID) []byte {
	dst = append(append(dst, tagMark...), tagID)
	return hex.AppendEncode(dst, id[:tagIDDigits/2])
}

// monthOf numbers the months of UTC.
func monthOf(ms int64) int64 {
	t := time.UnixMilli(ms).UTC()
	return int64(t.Year())*12 + int64(t.Month()) - 1
}

// monthStart is the first millisecond of a month.
func monthStart(month int64) int64 {
	return time.Date(int(month/12), time.Month(month%12+1), 1, 0, 0, 0, 0, time.UTC).UnixMilli()
}

// textOf gives the words of an event that can be searched for.
func textOf(e *Event) string {
	ev, err := event.Parse(e.Raw)
	if err != nil {
		return ""
	}
	switch ev.Type {
	case event.Message:
		t, _ := event.ParseText(ev.Body) // a body that is not sound has no text
		return t.Text
	case event.Edit:
		r, _ := event.ParseRevision(ev.Body) // likewise
		return r.Text
	}
	return ""
}

// appendWords appends the text in the form in which it is indexed and searched:
// what the ascii tokenizer of FTS5 then splits into words. ASCII stays as it is,
// since that tokenizer folds and splits it. Of the rest, letters lose their case
// and their accents, everything that is neither letter nor digit becomes a
// blank, and scripts without blanks between words become a word a character.
func appendWords(dst []byte, text string) []byte {
	if isASCII(text) {
		return append(dst, text...)
	}
	cluster := false // the last character is a word by itself
	for _, r := range norm.NFD.String(text) {
		switch {
		case r < utf8.RuneSelf:
			if cluster {
				dst = append(dst, ' ')
			}
			dst, cluster = append(dst, byte(r)), false
		case r >= 0x300 && r <= 0x36f: // accents
		case unicode.Is(unicode.Cf, r): // joiners, soft hyphens
		case unicode.Is(unicode.M, r): // vowel signs and the like belong to what is before
			dst = utf8.AppendRune(dst, r)
		case unicode.In(r, unspaced...):
			dst, cluster = utf8.AppendRune(append(dst, ' '), r), true
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			if cluster {
				dst = append(dst, ' ')
			}
			dst, cluster = appendFolded(dst, r), false
		default:
			dst, cluster = append(dst, ' '), false
		}
	}
	return dst
}

// unspaced are the scripts that put no blanks between words.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// appendFolded appends a letter without its case.
func appendFolded(dst []byte, r rune) []byte {
	switch r {
	case 'ß', 'ẞ':
		return append(dst, "ss"...)
	case 'ς':
		r = 'σ'
	case 'ſ':
		r = 's'
	}
	return utf8.AppendRune(dst, unicode.ToLower(r))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isWordByte says which bytes the ascii tokenizer of FTS5 makes words of.
func isWordByte(b byte) bool {
	return b >= utf8.RuneSelf || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// nextWord cuts the first word off what appendWords made, in lower case and in
// place. It is empty at the end.
func nextWord(b []byte) (word, rest []byte) {
	start := 0
	for start < len(b) && !isWordByte(b[start]) {
		start++
	}
	end := start
	for ; end < len(b) && isWordByte(b[end]); end++ {
		if b[end] >= 'A' && b[end] <= 'Z' {
			b[end] += 'a' - 'A'
		}
	}
	return b[start:end], b[end:]
}
