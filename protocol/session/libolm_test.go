package session

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
)

// libolmRecord is testdata/libolm.json: what libolm, as the other side, asked
// of this package, and what it got. `node libolm.mjs --record` writes it.
type libolmRecord struct {
	Note  string
	Lines []struct{ Do, Gives string }
}

// TestLibolm: the use of Olm here against libolm, in both directions, with
// messages lost, late and twice, and with pickles going over. It replays a
// recorded conversation, which is recorded again where Go or goolm draws its
// chance in another order. Where KINLOOM_LIBOLM is live it is the peer of
// .ci/crosscheck/libolm.mjs instead: commands on stdin, answers on stdout.
func TestLibolm(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 3)
	p := &libolmPeer{t: t}
	if os.Getenv("KINLOOM_LIBOLM") == "live" {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println(p.do(lines.Text()))
		}
		return
	}
	b, err := os.ReadFile("testdata/libolm.json")
	if err != nil {
		t.Fatal(err)
	}
	var r libolmRecord
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Lines) < 100 {
		t.Fatalf("%d lines were recorded, a conversation has more", len(r.Lines))
	}
	for i, l := range r.Lines {
		if got := p.do(l.Do); got != l.Gives {
			t.Fatalf("line %d: %s\ngives %s\nwant  %s", i+1, l.Do, got, l.Gives)
		}
	}
}

// libolmPeer is one end of an Olm session, told what to do in lines of words.
type libolmPeer struct {
	t *testing.T
	o olm
}

func (p *libolmPeer) do(line string) string {
	words := strings.Fields(line)
	at := func(i int) []byte { return hexBytes(p.t, words[i]) }
	key := func(i int) [32]byte { return [32]byte(at(i)) }
	var err error
	var out []byte
	switch words[0] {
	case "start": // own identity, theirs, their one-time key
		var base, ratchet [32]byte
		p.o, base, ratchet, err = olmStart(olmKeyPair(key(1)), key(2), key(3))
		out = append(base[:], ratchet[:]...)
	case "answer": // own identity, own one-time key, their identity, base and ratchet key
		p.o, err = olmAnswer(olmKeyPair(key(1)), olmKeyPair(key(2)), key(3), key(4), key(5))
	case "seal": // text
		out, err = p.o.seal(at(1))
	case "open": // seq, message
		var seq int
		if seq, err = strconv.Atoi(words[1]); err == nil {
			out, _, err = p.o.open(at(2), uint64(seq), all)
		}
	case "pickle":
		out = p.o.pickle()
	case "unpickle":
		p.o, err = olmUnpickle(at(1))
	default:
		err = fmt.Errorf("unknown command %q", words[0])
	}
	if err != nil {
		return "refused"
	}
	return "ok " + hex.EncodeToString(out)
}
