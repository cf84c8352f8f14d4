package node

import (
	"iter"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

// called is the bare name of a person: the petname, else the name they gave
// themselves, else the start of their identity. Nothing but a comparison uses it:
// what is shown comes from shownNames.
func called(c *store.Contact) string {
	switch {
	case c.Petname != "":
		return c.Petname
	case c.Name != "":
		return c.Name
	}
	return shortPerson(c.Person)
}

// shortPerson is the identity without its constant start, cut.
func shortPerson(p identity.PersonID) string {
	s := strings.TrimPrefix(p.String(), "did:key:")
	return s[:8] + "…" + s[len(s)-4:]
}

func checkName(name string) error {
	clean := event.Clean(name, maxName)
	if clean == "" || clean != name {
		return usage("Use up to 64 ordinary characters.", "%q cannot be used as a name", clean)
	}
	if strings.HasPrefix(name, "did:") || strings.Contains(name, ":") || name == Me {
		return usage("Choose another.", "%q would be taken for an address", clean)
	}
	return nil
}

// Whose claim to a name is better. The weaker one is shown with its identity, so
// that a stranger who calls himself like a contact does not change what the
// contact is called.
const (
	nameOfRemoved = iota
	nameOfRequest
	nameOfContact
	nameByOwner // a petname
	nameRanks
)

func nameRank(c *store.Contact) int {
	switch {
	case c.State == store.Removed:
		return nameOfRemoved
	case c.Petname != "":
		return nameByOwner
	case c.State == store.Request:
		return nameOfRequest
	}
	return nameOfContact
}

// shownNames gives what every person is called wherever a name is shown. It is
// the one place where names become shown names: who looks like another of the
// same or a better claim, like a word of the program, or like a shortened
// identity, has the start of theirs behind the name; a word of letters of several
// alphabets is marked.
func shownNames(all iter.Seq[*store.Contact]) map[identity.PersonID]string {
	known := claimed(all)
	out := map[identity.PersonID]string{}
	for c := range all {
		out[c.Person] = known.shown(c)
	}
	return out
}

// claims is who claims which name.
type claims struct {
	of    map[string][nameRanks]int // by skeleton
	looks map[identity.PersonID]string
}

func claimed(all iter.Seq[*store.Contact]) claims {
	known := claims{map[string][nameRanks]int{}, map[identity.PersonID]string{}}
	for _, word := range []string{Me, "you", "this device"} {
		known.of[skeleton(word)] = [nameRanks]int{nameByOwner: 1}
	}
	for c := range all {
		if c.State != store.Self {
			like := skeleton(called(c))
			n := known.of[like]
			n[nameRank(c)]++
			known.of[like], known.looks[c.Person] = n, like
		}
	}
	return known
}

func (k claims) shown(c *store.Contact) string {
	name := called(c)
	if c.State == store.Self || c.Petname == "" && c.Name == "" {
		return name
	}
	alike := 0
	for rank, n := range k.of[k.looks[c.Person]] {
		if rank >= nameRank(c) {
			alike += n
		}
	}
	var marks []string
	if mixesAlphabets(name) {
		marks = append(marks, "mixed alphabets")
	}
	if alike > 1 || strings.Contains(k.looks[c.Person], "z6mk") {
		marks = append(marks, shortPerson(c.Person))
	}
	if len(marks) > 0 {
		name += " (" + strings.Join(marks, ", ") + ")"
	}
	return name
}

// each yields the contacts of a list.
func each(list []store.Contact) iter.Seq[*store.Contact] {
	return func(yield func(*store.Contact) bool) {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}

// shown is what a person is called, as the loop knows it.
func (a *account) shown(p identity.PersonID) string {
	c, ok := a.contacts[p]
	if !ok {
		return shortPerson(p)
	}
	return claimed(maps.Values(a.contacts)).shown(c)
}

// book is all contacts and what they are called, when the newest change of one had
// that number.
type book struct {
	changed  uint64
	contacts []store.Contact
	self     store.Contact
	names    map[identity.PersonID]string // as shown
	looks    map[identity.PersonID]string // what others would look like
}

func newBook(tx *store.Tx) (*book, error) {
	changed, err := tx.ContactsChanged()
	if err != nil {
		return nil, err
	}
	b := &book{changed: changed, looks: map[identity.PersonID]string{}}
	if b.contacts, err = tx.Contacts(); err != nil {
		return nil, err
	}
	for i := range b.contacts {
		c := &b.contacts[i]
		b.looks[c.Person] = skeleton(called(c))
		if c.State == store.Self {
			b.self = *c
		}
	}
	b.names = shownNames(each(b.contacts))
	return b, nil
}

// contactBook gives the contacts as of this snapshot.
func (v *view) contactBook() (*book, error) {
	if v.book != nil {
		return v.book, nil
	}
	changed, err := v.tx.ContactsChanged()
	if err != nil {
		return nil, err
	}
	if v.book = v.n.book.Load(); v.book == nil || v.book.changed != changed {
		if v.book, err = newBook(v.tx); err != nil {
			return nil, err
		}
		v.n.book.Store(v.book)
	}
	return v.book, nil
}

// name is what a person is called, in this snapshot.
func (v *view) name(p identity.PersonID) (string, error) {
	b, err := v.contactBook()
	if err != nil {
		return "", err
	}
	name, ok := b.names[p]
	if !ok {
		return "", store.ErrNotFound
	}
	return name, nil
}

// skeleton is what a name looks like at a glance: two names that people would
// take for each other have the same. Case, accents and the style of letters are
// left out, and letters that look like a Latin one count as that. The idea is
// that of UTS 39; the table has the letters that names are faked with, not all.
func skeleton(name string) string {
	out := make([]byte, 0, len(name))
	if ascii(name) {
		for _, c := range []byte(name) {
			out = joined(append(out, lookAlikeASCII[c]))
		}
		return string(out)
	}
	for _, r := range norm.NFKD.String(name) {
		r = oneCase(r)
		if unicode.Is(unicode.Mn, r) {
			continue
		}
		if like, ok := lookAlikes[r]; ok {
			r = like
		}
		out = joined(utf8.AppendRune(out, r))
	}
	return string(out)
}

// oneCase is the same for all letters that sameName takes for one. Some small
// letters have a capital that is that of another one (U+1C80 that of U+0432).
func oneCase(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// joined makes one letter of two at the end that look like one.
func joined(b []byte) []byte {
	n := len(b) - 2
	switch {
	case n < 0:
	case b[n] == 'r' && b[n+1] == 'n':
		b[n], b = 'm', b[:n+1]
	case b[n] == 'v' && b[n+1] == 'v':
		b[n], b = 'w', b[:n+1]
	}
	return b
}

// lookAlikes gives lower-case letters what they, or their capitals, look like.
var lookAlikes = alike(
	"i1|!ıɩǀ", "lllllll", "0øɑɡđłħŧɓƅ", "ooagdlhtbb",
	"авезіјкмнопрстухьѕһԁԛԝѵӏүғг", "abe3ljkmhonpctyxbshdqwvlyfr", // Cyrillic
	"αβγεζηικμνορσςτυχωϲϳ", "abyeznlkmvopootuxwcj", // Greek
	"օոսցհյզ", "onughjq", // Armenian
	"ꭺꮃꮯꭼꮋꭻꮶꮮꮇꮲꮪꭲꮩꮓ", "awcehjklmpstvz", // Cherokee
	"ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ", "abcdefghljklmnoprstuvwxyz", // Lisu
	"‐‑‒–—−", "------", "’‘ʼʻ`´′", "'''''''",
)

// lookAlikeASCII is the part of it that most names need, in any case of letters.
var lookAlikeASCII = func() (out [utf8.RuneSelf]byte) {
	for c := range out {
		r := unicode.ToLower(rune(c))
		if like, ok := lookAlikes[r]; ok {
			r = like
		}
		out[c] = byte(r)
	}
	return out
}()

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// alike makes a table of pairs of strings: each letter of the first looks like
// the one at the same place of the second.
func alike(pairs ...string) map[rune]rune {
	out := map[rune]rune{}
	for i := 0; i < len(pairs); i += 2 {
		to := []rune(pairs[i+1])
		for n, r := range []rune(pairs[i]) {
			out[oneCase(r)] = to[n]
		}
	}
	return out
}

// mixesAlphabets reports whether a word of a name has letters of several scripts.
// Those of East Asia are written together, and with Latin ones, and look like none.
func mixesAlphabets(name string) bool {
	if ascii(name) {
		return false
	}
	script, word := unicode.Latin, false // of the last letter; the word has one
	for _, r := range name {
		switch {
		case unicode.Is(unicode.Mn, r):
		case !unicode.IsLetter(r):
			word = false
		case unicode.Is(script, r):
			word = true
		case unicode.In(r, unicode.Common, unicode.Inherited, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo):
		case word:
			return true
		default:
			script, word = scriptOf(r), true
		}
	}
	return false
}

// scriptOf looks in all scripts, which takes a while: once a word.
func scriptOf(r rune) *unicode.RangeTable {
	for _, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return table
		}
	}
	return &unicode.RangeTable{}
}
