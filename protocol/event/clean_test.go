package event

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// cleanCases: what strangers send (H10), and what must survive.
var cleanCases = []struct{ name, in, line, text string }{
	{"plain", "Ann", "Ann", "Ann"},
	{"empty", "", "", ""},
	{"blanks around", "  Ann \t Lee\n", "Ann Lee", "  Ann \t Lee\n"},
	{"several lines", "one\r\ntwo\rthree\u2028four\u0085five", "one two three four five", "one\ntwo\nthree\nfour\nfive"},
	{"other blanks", "a\u00a0\u3000b", "a b", "a\u00a0\u3000b"},
	{"invalid UTF-8", "a\xff\xfeb\xc3", "a\ufffdb\ufffd", "a\ufffdb\ufffd"},
	{"surrogate", "a\xed\xa0\x80b", "a\ufffdb", "a\ufffdb"},
	{"override", "annexe\u202etxt.exe", "annexetxt.exe", "annexetxt.exe"},
	{"isolates and marks", "\u2066\u2067\u2068\u2069\u200e\u200f\u061cx", "x", "x"},
	{"zero width", "pay\u200bpal\ufeff\u2060\u00ad\u034f", "paypal", "paypal"},
	{"joiner in Latin", "pay\u200cp\u200dal", "paypal", "paypal"},
	{"joiner in Persian", "می\u200cخواهم", "می\u200cخواهم", "می\u200cخواهم"},
	{"joiner in Devanagari", "क\u094d\u200dष", "क\u094d\u200dष", "क\u094d\u200dष"},
	{"joiner at the ends", "\u200dمی\u200c", "می", "می"},
	{"emoji of parts", "👩\u200d🚀 👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👩\u200d🚀 👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👩\u200d🚀 👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"},
	{"skin colour", "👍🏽", "👍🏽", "👍🏽"},
	{"many joiners", "👩\u200d\u200d\u200c🚀", "👩\u200d🚀", "👩\u200d🚀"},
	{"selectors that hide bytes", "x\ufe00\ufe01\ufe02\U000e0101", "x\ufe00", "x\ufe00"},
	{"tags", "hi\U000e0041\U000e0042\U000e007f", "hi", "hi"},
	{"terminal sequence", "\x1b[2J\x1b]0;title\x07name\x9b", "[2J]0;titlename\ufffd", "[2J]0;titlename\ufffd"},
	{"C1 controls", "a\u009b31mb\u0000", "a31mb", "a31mb"},
	{"fillers", "\u3164\u115f\uffa0\u2800", "", "\u2800"},
	{"private use and noncharacters", "\ue000a\ufdd0\U000fffff", "a", "a"},
	{"marks without end", "e" + strings.Repeat("\u0301", 50), "e" + strings.Repeat("\u0301", 6), "e" + strings.Repeat("\u0301", 6)},
	{"mark on nothing", "\u0301a \u0301b", "a b", "a b"},
	{"two marks are spelling", "ḗ o\u0308\u0304", "ḗ o\u0308\u0304", "ḗ o\u0308\u0304"},
	{"right to left", "שלום world", "שלום world", "שלום world"},
	{"HTML stays", "<b>&amp;", "<b>&amp;", "<b>&amp;"},
	{"new emoji stay", "\U0001fae9", "\U0001fae9", "\U0001fae9"},
}

func TestClean(t *testing.T) {
	for _, tt := range cleanCases {
		if got := Clean(tt.in, 100); got != tt.line {
			t.Errorf("%s: Clean(%+q) = %+q, want %+q", tt.name, tt.in, got, tt.line)
		}
		if got := Blank(tt.in); got != (tt.line == "") {
			t.Errorf("%s: Blank(%+q) = %t, but Clean leaves %+q", tt.name, tt.in, got, tt.line)
		}
		if got := CleanText(tt.in, 100); got != tt.text {
			t.Errorf("%s: CleanText(%+q) = %+q, want %+q", tt.name, tt.in, got, tt.text)
		}
	}
}

func TestCleanCuts(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abcde…"},
		{"ab cdefg", 4, "ab…"},
		{"abcdef", 1, "…"},
		{"a", 1, "a"},
		{"abc", 0, ""},
		{"abc", -1, ""},
		{"äöüß", 3, "äö…"},
		{"👩\u200d🚀👩\u200d🚀", 5, "👩\u200d🚀👩…"},
		{strings.Repeat("x", 1<<20), 40, strings.Repeat("x", 39) + "…"},
		{strings.Repeat("\u202e", 1<<20) + "end", 40, "…"},
		{"ok" + strings.Repeat("\u200b", 1<<20), 40, "ok…"},
	} {
		if got := Clean(tt.in, tt.limit); got != tt.want {
			t.Errorf("Clean(%.20q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

// TestCleanIsCheap (H10): of a megabyte of name only the beginning is read.
func TestCleanIsCheap(t *testing.T) {
	for _, s := range []string{strings.Repeat("\u0301", 1<<19), strings.Repeat("\xff", 1<<20), strings.Repeat("ab\u200b", 1<<18)} {
		got := Clean(s, 64)
		if n := utf8.RuneCountInString(got); n > 64 {
			t.Errorf("%.10q: %d characters", s, n)
		}
		if n := testing.AllocsPerRun(5, func() { _ = Clean(s, 64) }); n > 12 {
			t.Errorf("%.10q: %v allocations", s, n)
		}
		if again := Clean(s[:maxLook*64+utf8.UTFMax], 64); again != got {
			t.Errorf("%.10q: looks beyond %d bytes", s, maxLook*64)
		}
	}
}
