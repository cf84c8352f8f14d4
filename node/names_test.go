package node

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// TestShownNames holds what people are called to its promise: no two are called
// alike, whoever has the weaker claim is told apart, and a faked name is marked.
func TestShownNames(t *testing.T) {
	person := func(n byte) identity.PersonID { return identity.NewRootKey([32]byte{n}).Person() }
	id := func(n byte) string { return shortPerson(person(n)) }
	for name, c := range map[string]struct {
		contacts []store.Contact
		want     []string
	}{
		"different": {
			[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "Bob", State: store.Accepted}},
			[]string{"Ada", "Bob"},
		},
		"equal": {
			[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "Ada", State: store.Accepted}},
			[]string{"Ada (" + id(0) + ")", "Ada (" + id(1) + ")"},
		},
		"in another case": {
			[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "ADA", State: store.Accepted}},
			[]string{"Ada (" + id(0) + ")", "ADA (" + id(1) + ")"},
		},
		"the end of a word in capitals": {
			[]store.Contact{{Name: "Νίκος", State: store.Accepted}, {Name: "ΝΊΚΟΣ", State: store.Accepted}},
			[]string{"Νίκος (" + id(0) + ")", "ΝΊΚΟΣ (" + id(1) + ")"},
		},
		"Cyrillic": {
			[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "Adа", State: store.Accepted}},
			[]string{"Ada (" + id(0) + ")", "Adа (mixed alphabets, " + id(1) + ")"},
		},
		"marked though alone":         {[]store.Contact{{Name: "Adа", State: store.Accepted}}, []string{"Adа (mixed alphabets)"}},
		"a petname is marked, too":    {[]store.Contact{{Petname: "Adа", State: store.Accepted}}, []string{"Adа (mixed alphabets)"}},
		"words of one alphabet each":  {[]store.Contact{{Name: "Анна Schmidt-Иванова", State: store.Accepted}}, []string{"Анна Schmidt-Иванова"}},
		"Latin and Japanese":          {[]store.Contact{{Name: "Tシャツ子", State: store.Accepted}}, []string{"Tシャツ子"}},
		"accents in two forms":        {[]store.Contact{{Name: "Zoe\u0308", State: store.Accepted}, {Name: "Zoë", State: store.Accepted}}, []string{"Zoe\u0308 (" + id(0) + ")", "Zoë (" + id(1) + ")"}},
		"whole word of look-alikes":   {[]store.Contact{{Name: "Sasha", State: store.Accepted}, {Name: "Ѕаѕһа", State: store.Accepted}}, []string{"Sasha (" + id(0) + ")", "Ѕаѕһа (" + id(1) + ")"}},
		"letters of a style":          {[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "𝐀𝐝𝐚", State: store.Accepted}}, []string{"Ada (" + id(0) + ")", "𝐀𝐝𝐚 (" + id(1) + ")"}},
		"capital i for l, rn for m":   {[]store.Contact{{Name: "Alma", State: store.Accepted}, {Name: "AIrna", State: store.Accepted}}, []string{"Alma (" + id(0) + ")", "AIrna (" + id(1) + ")"}},
		"the owner's own name stands": {[]store.Contact{{Petname: "Ada", State: store.Accepted}, {Name: "Ada", State: store.Accepted}}, []string{"Ada", "Ada (" + id(1) + ")"}},
		"a stranger changes nothing":  {[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "Ada", State: store.Request}}, []string{"Ada", "Ada (" + id(1) + ")"}},
		"nor who was removed":         {[]store.Contact{{Name: "Ada", State: store.Removed}, {Name: "Ada", State: store.Accepted}}, []string{"Ada (" + id(0) + ")", "Ada"}},
		"the owner is no rival":       {[]store.Contact{{Name: "Ada", State: store.Self}, {Name: "Ada", State: store.Accepted}}, []string{"Ada", "Ada"}},
		"a word of the program":       {[]store.Contact{{Name: "you", State: store.Accepted}, {Name: "Мe", State: store.Accepted}}, []string{"you (" + id(0) + ")", "Мe (mixed alphabets, " + id(1) + ")"}},
		"an identity in a name":       {[]store.Contact{{Name: "Ada", State: store.Accepted}, {Name: "Ada (" + id(0) + ")", State: store.Accepted}}, []string{"Ada", "Ada (" + id(0) + ") (" + id(1) + ")"}},
		"no name":                     {[]store.Contact{{State: store.Accepted}}, []string{id(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			known := map[identity.PersonID]*store.Contact{}
			for i := range c.contacts {
				c.contacts[i].Person = person(byte(i))
				known[c.contacts[i].Person] = &c.contacts[i]
			}
			shown := shownNames(maps.Values(known))
			var got []string
			for _, one := range c.contacts {
				got = append(got, shown[one.Person])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%+q are shown as\n%q, want\n%q", names(c.contacts), got, c.want)
			}
		})
	}
}

func names(contacts []store.Contact) []string {
	var out []string
	for _, c := range contacts {
		out = append(out, called(&c))
	}
	return out
}

// TestNoTwoNamesForOneWord: what people may type for each other's names looks alike, so that both are marked.
func TestNoTwoNamesForOneWord(t *testing.T) {
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if other := unicode.SimpleFold(r); !sameName(string(r), string(other)) || skeleton(string(r)) != skeleton(string(other)) {
			t.Errorf("%U and %U are one letter to who types, and look like %q and %q", r, other, skeleton(string(r)), skeleton(string(other)))
		}
	}
	all := []store.Contact{{Person: identity.PersonID{1}, Name: "ᲀова", State: store.Accepted}, {Person: identity.PersonID{2}, Name: "Вова", State: store.Accepted}}
	for p, name := range shownNames(each(all)) {
		if !strings.Contains(name, shortPerson(p)) {
			t.Errorf("%q is not told apart", name)
		}
	}
}

// TestScripts: a word of one script has none mixed in, whatever stood before it.
func TestScripts(t *testing.T) {
	for name, want := range map[string]bool{
		"Анна": false, "Аnna": true, "Annа": true, "Anna Анна": false, "Анна Anna": false, "Анна Annа": true, "Анна 1Анна": false, "Анна1α": false,
		"日本Анна": false, "Анна日本Anna": true, "Αα Anna Аа": false, "Αа": true,
	} {
		if got := mixesAlphabets(name); got != want {
			t.Errorf("%q mixes alphabets: %t, want %t", name, got, want)
		}
	}
}
