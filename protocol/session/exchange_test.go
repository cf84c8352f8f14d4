package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"
)

// wholeExchange is testdata/exchange.json: cells of both sides, a renewal
// included, with what an implementation needs to open each of them by itself.
// All byte strings are hex.
type wholeExchange struct {
	Note               string
	Now                int64
	Sides              []wholeSide
	Bundle, BundleSeed string
	AdvertSeeds        []string // of the keys that were advertised, made as those of a bundle
	Cells              []exchangeCell
}

type exchangeCell struct {
	From    int // 0: Alice
	Session string
	Cell    string
	Texts   []string
	Olm     map[string]string // of the receiver before: session to its Olm state, as libolm pickles it
}

// TestExchange: the file is what this code says today, given the same chance.
// KINLOOM_RECORD=exchange writes it anew, which a Go or goolm that draws its
// chance in another order asks for.
func TestExchange(t *testing.T) {
	w := makeExchange(t)
	got, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "testdata/exchange.json"
	if os.Getenv("KINLOOM_RECORD") == "exchange" {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is said today", file)
	}
}

func makeExchange(t *testing.T) wholeExchange {
	cryptotest.SetGlobalRandom(t, 11)
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	a.rnd, b.rnd = rand.NewChaCha8(seed32("a")), rand.NewChaCha8(seed32("b"))
	a.m, b.m = New(a.self, a.rnd), New(b.self, b.rnd)
	meet(a, b)
	w := wholeExchange{
		Note: "Alice starts to a once bundle of Bob. A day later she renews to the keys that he advertised, and once more, as those had lain about.",
		Now:  epoch0.Unix(), Bundle: hex.EncodeToString(b.bundle(epoch0, true)),
	}
	w.BundleSeed = hex.EncodeToString(b.m.bundles[len(b.m.bundles)-1].Seed[:])
	for _, s := range []*side{a, b} {
		device, person := seed32(s.name+" device"), s.self.Record.Person
		w.Sides = append(w.Sides, wholeSide{
			hex.EncodeToString(device[:]), hex.EncodeToString(s.self.OlmSeed[:]), hex.EncodeToString(person[:]),
			hex.EncodeToString(s.self.RecordHash[:]), hex.EncodeToString(s.self.Head[:]),
		})
	}
	if err := a.m.Start(epoch0, b.remote(), hexBytes(t, w.Bundle)); err != nil {
		t.Fatal(err)
	}
	say := func(now time.Time, from, to *side, text string) {
		x := exchangeCell{Texts: []string{text}, Olm: map[string]string{}}
		if from == b {
			x.From = 1
		}
		cell := from.say(now, to, text)
		for id, s := range to.m.sessions {
			x.Olm[hex.EncodeToString(id[:])] = hex.EncodeToString(s.olm.pickle())
		}
		o := to.open(now, cell)
		wantTexts(t, "cell", texts(o), text)
		x.Session, x.Cell = hex.EncodeToString(o.Session[:]), hex.EncodeToString(cell)
		w.Cells = append(w.Cells, x)
		for _, s := range []*side{a, b} {
			for _, x := range s.m.sessions {
				if seed := hex.EncodeToString(x.OwnSeed[:]); x.OwnSeed != [32]byte{} && !slices.Contains(w.AdvertSeeds, seed) {
					w.AdvertSeeds = append(w.AdvertSeeds, seed)
				}
			}
		}
	}
	say(epoch0, a, b, "one")
	say(epoch0, b, a, "two")
	say(epoch0, a, b, "three")
	later := epoch0.Add(25 * time.Hour)
	say(later, a, b, "four")
	say(later, b, a, "five")
	say(later, a, b, "six")
	say(later, b, a, "seven")
	slices.Sort(w.AdvertSeeds)
	for i, same := range []bool{true, true, false, true, false, true} {
		if (w.Cells[i].Session == w.Cells[i+1].Session) != same {
			t.Fatalf("cells %d and %d: one session is %v, want %v", i+1, i+2, !same, same)
		}
	}
	return w
}
