package event

import (
	"slices"
	"unicode"
)

const (
	// maxStack is how many combining marks may stand on one character. Written
	// languages need at most four; hundreds paint over the lines around.
	maxStack = 6
	// maxLook is how many bytes are looked at for each character wanted, so that
	// a megabyte of what is dropped costs nothing.
	maxLook = 64
)

// Clean returns the string of a stranger as it may be shown on one line: a
// name, a title, a file name. It drops what is invisible, moves the cursor or
// turns the direction of the text, shows broken UTF-8 as U+FFFD, makes every
// run of white space one blank and none at the ends, and cuts what is longer
// than limit characters, of which the last is then "…". The result may be
// empty, may look like another name, and is not escaped for HTML.
func Clean(s string, limit int) string {
	c := cleaner{limit: limit}
	return c.run(s)
}

// CleanText is Clean for text of several lines: line feeds, tabs and blanks
// stay as they are, and other line ends become line feeds.
func CleanText(s string, limit int) string {
	c := cleaner{limit: limit, lines: true}
	return c.run(s)
}

// Blank reports whether a text shows nothing: white space, what is invisible, and
// marks that stand on nothing.
func Blank(s string) bool {
	for _, r := range s {
		if !unicode.IsSpace(r) && r != blankBraille && !unicode.In(r, unicode.Mn, unicode.Me) && !hidden(r) {
			return false
		}
	}
	return true
}

// cleaner takes one character after the other.
type cleaner struct {
	limit int
	lines bool // keep white space

	out   []rune
	blank bool // white space waits for something to follow it
	join  rune // a joiner that waits for what it joins
	stack int  // combining marks since the last other character
}

func (c *cleaner) run(s string) string {
	var before rune
	cut := false
	for i, r := range s { // a broken byte comes as U+FFFD
		if cut = len(c.out) > c.limit || i >= maxLook*c.limit; cut {
			break
		}
		c.take(r, before)
		before = r
	}
	if cut || len(c.out) > c.limit {
		c.out = append(c.out[:min(len(c.out), max(c.limit-1, 0))], '…')
		for n := len(c.out); n > 1 && (isJoiner(c.out[n-2]) || unicode.IsSpace(c.out[n-2])); n-- {
			c.out = slices.Delete(c.out, n-2, n-1)
		}
	}
	return string(c.out[:min(len(c.out), max(c.limit, 0))])
}

func (c *cleaner) take(r, before rune) {
	switch {
	case unicode.IsSpace(r) || r == blankBraille:
		c.space(r, before)
	case isJoiner(r):
		if c.join == 0 {
			c.join = r
		}
	case unicode.In(r, unicode.Mn, unicode.Me) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		c.mark(r)
	case hidden(r):
	case r == unicode.ReplacementChar && c.last() == r && !c.blank:
	default:
		c.write(r)
		c.stack = 0
	}
}

// space takes white space.
func (c *cleaner) space(r, before rune) {
	switch {
	case !c.lines:
		c.blank = len(c.out) > 0
		c.join = 0
	case r == '\n' && before == '\r':
	case r == '\r', r == '\v', r == '\f', r == '\u0085', r == '\u2028', r == '\u2029':
		c.write('\n')
	default:
		c.write(r)
	}
	c.stack = maxStack // no mark stands on white space
}

// mark takes a combining mark or a variation selector, of which one is enough.
func (c *cleaner) mark(r rune) {
	if len(c.out) == 0 || c.stack >= maxStack {
		return
	}
	selects := unicode.Is(unicode.Variation_Selector, r)
	if selects && unicode.Is(unicode.Variation_Selector, c.last()) {
		return
	}
	c.write(r)
	c.stack++
}

func (c *cleaner) write(r rune) {
	if c.blank {
		c.out = append(c.out, ' ')
	} else if c.join != 0 && joins(c.join, c.last(), r) {
		c.out = append(c.out, c.join)
	}
	c.blank, c.join = false, 0
	c.out = append(c.out, r)
}

// last returns the last character written, 0 if there is none.
func (c *cleaner) last() rune {
	if len(c.out) == 0 {
		return 0
	}
	return c.out[len(c.out)-1]
}

const (
	zwnj = '\u200c' // zero width non-joiner
	zwj  = '\u200d' // zero width joiner
	// blankBraille is a symbol by its class and nothing to the eye.
	blankBraille = '\u2800'
)

func isJoiner(r rune) bool { return r == zwnj || r == zwj }

// joins reports whether a joiner has work to do between two characters: in the
// scripts whose spelling needs it, and inside an emoji of several parts.
// Elsewhere it only makes equal looking names unequal.
func joins(join, before, after rune) bool {
	if needsJoiner(before) && needsJoiner(after) {
		return true
	}
	symbol := unicode.IsSymbol(before) || unicode.Is(unicode.Variation_Selector, before)
	return join == zwj && symbol && unicode.IsSymbol(after)
}

func needsJoiner(r rune) bool {
	return unicode.In(r, unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mongolian, unicode.Devanagari,
		unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil, unicode.Telugu,
		unicode.Kannada, unicode.Malayalam, unicode.Sinhala, unicode.Khmer, unicode.Myanmar)
}

// hidden reports whether a character shows nothing of its own: controls (the
// escape character, and with it terminal sequences, among them), formatting
// such as bidirectional overrides, zero width and tag characters, fillers, and
// code points that are for private use or for nothing.
func hidden(r rune) bool {
	if unicode.Is(unicode.Prepended_Concatenation_Mark, r) { // formatting by class, seen all the same
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point)
}
