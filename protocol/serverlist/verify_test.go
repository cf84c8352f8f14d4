package serverlist

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

const someServer = "/ip4/198.51.100.7/udp/443/quic-v1/p2p/12D3KooWAvocDfgG4k8GXErtRqhENCzRYg5vbJiQEQtXgmCxGYJt"

func someList() List {
	return List{Name: "Ours", Issued: 1_772_366_400, Expires: 1_772_366_400 + 90*86400, Servers: []Server{{Address: someServer, Name: "Ada's"}}}
}

func keys(n int) (all []identity.ListKey, public []identity.ListPublic) {
	for i := range n {
		all = append(all, identity.NewListKey([32]byte{1, byte(i)}))
		public = append(public, all[i].Public())
	}
	return all, public
}

// TestWhoMustAgree: any need of those who are believed, and nobody twice.
func TestWhoMustAgree(t *testing.T) {
	k, believed := keys(4)
	now := time.Unix(someList().Issued, 0)
	signed := someList()
	for n := range 4 {
		for need := range 5 {
			want := error(nil)
			if n < max(need, 1) {
				want = ErrSigners
			}
			if err := signed.Check(now, believed, need); !errors.Is(err, want) {
				t.Errorf("%d signed, %d must agree: %v, want %v", n, need, err, want)
			}
		}
		signed = signed.Sign(k[n]).Sign(k[n])
	}
	if err := signed.Check(now, nil, 0); !errors.Is(err, ErrSigners) {
		t.Errorf("nobody is believed: %v", err)
	}
	twice := someList().Sign(k[0])
	twice.Signatures = append(twice.Signatures, twice.Signatures[0])
	if _, err := twice.Append(nil); !errors.Is(err, ErrSignature) {
		t.Errorf("one who signed twice: %v", err)
	}
}

// TestAnyByteCounts: whatever is changed in a signed file, nobody takes it for what was
// signed.
func TestAnyByteCounts(t *testing.T) {
	k, believed := keys(2)
	now := time.Unix(someList().Issued, 0)
	b, err := someList().Sign(k[0]).Sign(k[1]).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(now, believed, 2, b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if l, err := Verify(now, believed, 2, bad); err == nil {
			t.Errorf("byte %d may be %q: %+v", i, bad[i], l)
		}
	}
}

// TestTimesOfAList at their very ends.
func TestTimesOfAList(t *testing.T) {
	k, believed := keys(1)
	l := someList().Sign(k[0])
	for _, c := range []struct {
		at   int64
		want error
	}{
		{l.Issued - int64(Ahead/time.Second) - 1, ErrNotYet},
		{l.Issued - int64(Ahead/time.Second), nil},
		{l.Expires - 1, nil},
		{l.Expires, ErrExpired},
	} {
		if err := l.Check(time.Unix(c.at, 0), believed, 1); !errors.Is(err, c.want) {
			t.Errorf("at %d: %v, want %v", c.at, err, c.want)
		}
	}
}

// TestOlderListsDoNotComeBack: rollback and two lists of one date are refused, the same
// list with one signature more is not.
func TestOlderListsDoNotComeBack(t *testing.T) {
	k, _ := keys(1)
	old := someList()
	older, other, newer := old, old, old
	older.Issued--
	other.Expires++
	newer.Issued++
	for _, c := range []struct {
		name string
		l    List
		want error
	}{{"older", older, ErrRollback}, {"other", other, ErrTwo}, {"newer", newer, nil}, {"same", old.Sign(k[0]), nil}} {
		if err := c.l.After(old); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestSigningAnew drops what no longer fits.
func TestSigningAnew(t *testing.T) {
	k, believed := keys(2)
	l := someList().Sign(k[0])
	l.Servers[0].Name = "Bob's"
	l = l.Sign(k[1])
	if len(l.Signatures) != 1 || l.Signatures[0].Key != believed[1] {
		t.Errorf("signed by %+v, want the second alone", l.Signatures)
	}
	if n := len(l.Sign(k[0]).Signatures); n != 2 || len(l.Signatures) != 1 {
		t.Errorf("%d signatures, and %d where they were", n, len(l.Signatures))
	}
}
