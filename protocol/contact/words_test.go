package contact

import (
	"math"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/identity"
)

// side is one honest side as an attacker sees it: a commitment or offer it
// has to answer, and the nonce behind it.
type side struct {
	nonce    [32]byte
	material []byte
}

// TestManInTheMiddle has 10,000 attackers between two honest sides. An
// attacker talks to each as if he were the other: to the inviter A with an Ask
// of his own, to the invited B with an Offer of his own. He sees each message
// before he has to send his next one, and chooses everything freely, but what
// the order of the messages keeps from him: B's nonce when he makes his
// Offer, A's nonce when he commits. None gets equal words.
func TestManInTheMiddle(t *testing.T) {
	r := random(1)
	const attacks = 10_000
	equal := 0
	for n := range attacks {
		a, b := side{draw32(r), []byte("inviter")}, side{draw32(r), []byte("invited")}
		hostA, hostB, mallory := Transport(draw32(r)), Transport(draw32(r)), Transport(draw32(r))
		askB := message(t, Ask{Suites: suites(), Token: Token{1}, Commit: commitment(b.nonce, b.material)})

		// Towards A he commits before he knows A's nonce: to what B said he
		// cannot, as it is hidden, so to a nonce and material of his own.
		m := side{draw32(r), []byte("mallory")}
		if n%4 == 1 {
			m.material = b.material // learnt from an earlier try
		}
		askM := message(t, Ask{Suites: suites(), Token: Token{1}, Commit: commitment(m.nonce, m.material)})
		offerA := message(t, Offer{Suite: 1, Nonce: a.nonce, Material: a.material})

		// Now he knows A's nonce and makes the Offer to B: he passes it on,
		// changes it, or searches a little.
		offer := Offer{Suite: 1, Nonce: a.nonce, Material: a.material}
		switch n % 4 {
		case 1:
			offer.Material = m.material
		case 2:
			offer.Nonce = draw32(r)
		case 3:
			offer.Nonce[n%32] ^= byte(1 + n%255)
		}
		offerM := message(t, offer)

		wordsA := checkWords(transcript(askM, offerA, m.nonce, m.material, mallory, hostA))
		wordsB := checkWords(transcript(askB, offerM, b.nonce, b.material, hostB, mallory))
		if wordsA == wordsB {
			equal++
		}
	}
	if equal != 0 {
		t.Errorf("%d of %d attackers got equal words, want 0", equal, attacks)
	}
}

// TestChangedCommitment: the one way to aim at words, to see the other side's
// nonce first and then to choose, ends the exchange. Each of 1,000 tries opens
// a commitment with another nonce, another material, or both exchanged.
func TestChangedCommitment(t *testing.T) {
	r := random(2)
	nonce, material := draw32(r), []byte("what was committed to")
	commit := commitment(nonce, material)
	for n := range 1000 {
		nonce, material := nonce, []byte("what was committed to")
		switch n % 3 {
		case 0:
			nonce = draw32(r)
		case 1:
			material[n%len(material)] ^= byte(1 + n%255)
		case 2:
			nonce, material = draw32(r), material[:n%len(material)]
		}
		if commitment(nonce, material) == commit {
			t.Fatalf("try %d opens the commitment", n)
		}
	}
}

// TestNothingLeftToChoose: the words depend on no byte that could be chosen
// after both nonces are known. Reveal carries a signature and may carry keys
// of later versions; neither changes the words.
func TestNothingLeftToChoose(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	p := newPair(t, a, b)
	ask, _ := p.i.Start()
	if _, err := p.r.Handle(epoch, ask); err != nil {
		t.Fatal(err)
	}
	step, err := p.r.Admit(0, a.Material)
	if err != nil {
		t.Fatal(err)
	}
	if step, err = p.i.Handle(epoch, step.Send); err != nil {
		t.Fatal(err)
	}
	// One more key, 9: 1, behind the others.
	grown := append([]byte{step.Send[0] + 1}, step.Send[1:]...)
	grown = append(grown, 9, 1)
	got, err := p.r.Handle(epoch, grown)
	if err != nil {
		t.Fatal(err)
	}
	if got.Met.Words != step.Met.Words {
		t.Errorf("an unknown key in Reveal turns the words %v into %v", step.Met.Words, got.Met.Words)
	}
}

func message(tb testing.TB, m Message) []byte {
	tb.Helper()
	b, err := m.Append(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestTranscript: every input changes the transcript, and bytes moved from one
// input to the next do too.
func TestTranscript(t *testing.T) {
	base := transcript([]byte("ask"), []byte("offer"), [32]byte{1}, []byte("material"), Transport{1}, Transport{2})
	for name, other := range map[string][32]byte{
		"ask":         transcript([]byte("asK"), []byte("offer"), [32]byte{1}, []byte("material"), Transport{1}, Transport{2}),
		"offer":       transcript([]byte("ask"), []byte("offeR"), [32]byte{1}, []byte("material"), Transport{1}, Transport{2}),
		"border":      transcript([]byte("asko"), []byte("ffer"), [32]byte{1}, []byte("material"), Transport{1}, Transport{2}),
		"nonce":       transcript([]byte("ask"), []byte("offer"), [32]byte{2}, []byte("material"), Transport{1}, Transport{2}),
		"material":    transcript([]byte("ask"), []byte("offer"), [32]byte{1}, []byte("materiaL"), Transport{1}, Transport{2}),
		"initiator":   transcript([]byte("ask"), []byte("offer"), [32]byte{1}, []byte("material"), Transport{3}, Transport{2}),
		"responder":   transcript([]byte("ask"), []byte("offer"), [32]byte{1}, []byte("material"), Transport{1}, Transport{3}),
		"roles":       transcript([]byte("ask"), []byte("offer"), [32]byte{1}, []byte("material"), Transport{2}, Transport{1}),
		"other label": digest(labelCommit, []byte("ask"), []byte("offer")),
	} {
		if other == base {
			t.Errorf("%s does not change the transcript", name)
		}
	}
}

// TestWordsAreSpread: over 6,000 transcripts each of the three places shows
// nearly all that 6,000 draws from 2,048 words show, which is 94.7 %.
func TestWordsAreSpread(t *testing.T) {
	var seen [WordCount]map[string]bool
	for i := range seen {
		seen[i] = map[string]bool{}
	}
	for n := range 6000 {
		for i, w := range checkWords([32]byte{byte(n), byte(n >> 8)}) {
			seen[i][w] = true
		}
	}
	for i := range seen {
		if n := len(seen[i]); n < 1900 || n > 1980 {
			t.Errorf("place %d shows %d different words, want about 1,939", i, n)
		}
	}
}

func TestFingerprint(t *testing.T) {
	a, b, c := identity.PersonID{1}, identity.PersonID{2}, identity.PersonID{3}
	got := Fingerprint(a, b)
	digits := strings.NewReplacer(" ", "", "\n", "").Replace(got)
	if strings.Trim(digits, "0123456789") != "" {
		t.Errorf("fingerprint %q has more than digits", got)
	}
	if bits := float64(len(digits)) * math.Log2(10); bits < 200 {
		t.Errorf("fingerprint shows %.1f bits, want 200 at least", bits)
	}
	if lines := strings.Split(got, "\n"); len(lines) != 4 || len(lines[0]) != 19 || len(lines[3]) != 19 {
		t.Errorf("fingerprint is laid out as %q, want 4 lines of 4 groups", lines)
	}
	if Fingerprint(b, a) != got {
		t.Error("the two sides see different fingerprints")
	}
	if other := Fingerprint(a, c); other == got || strings.Fields(other)[0] == strings.Fields(got)[0] {
		t.Errorf("two pairs of persons have fingerprints %q and %q", got, other)
	}
	// The first group of each place is drawn from the whole hash: changing
	// one bit of a key changes about all of them.
	same, before := 0, strings.Fields(got)
	for i, g := range strings.Fields(Fingerprint(identity.PersonID{1, 0, 0, 1}, b)) {
		if g == before[i] {
			same++
		}
	}
	if same > 1 {
		t.Errorf("%d of %d groups stay for another key", same, len(before))
	}
}

func TestTransport(t *testing.T) {
	want := Transport{1, 2, 3}
	id := want.PeerID()
	if got, err := ParseTransport(id); err != nil || got != want || len(id) != 38 {
		t.Errorf("ParseTransport of %d bytes = %v, %v", len(id), got, err)
	}
	rsa := append([]byte{0x12, 0x20}, make([]byte, 32)...) // SHA-256 of a longer key
	for _, bad := range [][]byte{nil, rsa, id[:37], append(id, 0), flip(id, 3)} {
		if _, err := ParseTransport(bad); err == nil {
			t.Errorf("ParseTransport(%x) passes", bad)
		}
	}
}
