package contact

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity"
)

// pairs returns n pairs of the device own, of which number known is the one with the
// device other.
func pairs(own, other identity.DeviceID, n, known int) []Pair {
	out := make([]Pair, n)
	for i := range out {
		out[i] = Pair{Own: own, Device: identity.DeviceID{byte(i), byte(i >> 8), 1}, Secret: [32]byte{byte(i), byte(i >> 8), 2, byte(n), byte(known)}}
	}
	if known >= 0 {
		out[known].Device, out[known].Secret = other, sharedSecret
	}
	return out
}

// say runs a hello in memory and returns what both sides learn, and the
// lengths of the two messages.
func say(t *testing.T, d *HelloDialer, l *HelloListener) (dialer, listener Greeting, hello, answer []byte) {
	t.Helper()
	hello, err := d.Start()
	if err != nil {
		t.Fatal(err)
	}
	answer, listener, err = l.Handle(hello)
	if err != nil {
		t.Fatal(err)
	}
	if dialer, err = d.Handle(answer); err != nil {
		t.Fatal(err)
	}
	return dialer, listener, hello, answer
}

var (
	ada, bob       = identity.DeviceID{0xad}, identity.DeviceID{0xb0}
	hostA, hostB   = Transport{0xa}, Transport{0xb}
	atDialer       = Channel{Local: hostA, Remote: hostB}
	atListener     = Channel{Local: hostB, Remote: hostA}
	sharedSecret   = [32]byte{5, 5, 5}
	aboutForHello  = About{Caps: []string{"dm/1"}, Limits: Limits{Frame: 32768, Cells: 126}}
	aboutOtherSide = About{Caps: []string{"x"}, Versions: []uint16{1, 7}}
)

func TestHelloAmongContacts(t *testing.T) {
	for _, n := range []int{1, 64, 65, 256, 257, 1024} {
		d := NewHelloDialer(aboutForHello, atDialer, pairs(ada, bob, n, n-1), random(1))
		l := NewHelloListener(aboutOtherSide, atListener, pairs(bob, ada, 20, 3), random(2))
		gotD, gotL, hello, _ := say(t, d, l)
		wantD := Greeting{Known: true, Device: bob, Version: 1, Caps: []string{"x"}}
		wantL := Greeting{Known: true, Device: ada, Version: 1, Caps: []string{"dm/1"}, Limits: Limits{32768, 126}}
		if diff := cmp.Diff([]Greeting{wantD, wantL}, []Greeting{gotD, gotL}); diff != "" {
			t.Errorf("%d contacts: %s", n, diff)
		}
		class := 64
		for class < n {
			class *= 4
		}
		if len(hello) != class*TagSize+512 {
			t.Errorf("%d contacts: hello of %d bytes, want %d", n, len(hello), class*TagSize+512)
		}
	}
}

// TestHelloOfAStranger: a stranger learns versions and nothing else, and no
// length tells a stranger from a contact.
func TestHelloOfAStranger(t *testing.T) {
	lengths := map[int]bool{}
	hellos := map[int]bool{}
	for _, known := range []bool{false, true} {
		of := -1
		if known {
			of = 0
		}
		for _, about := range []About{{}, aboutForHello, {Versions: []uint16{1, 2, 3}, Caps: []string{"a", "b", "c", "d"}}} {
			d := NewHelloDialer(about, atDialer, pairs(ada, bob, 1, 0), random(1))
			l := NewHelloListener(about, atListener, pairs(bob, ada, 20, of), random(2))
			gotD, gotL, hello, answer := say(t, d, l)
			lengths[len(answer)], hellos[len(hello)] = true, true
			if gotD.Known != known || gotL.Known != known {
				t.Errorf("known %v: dialer says %v, listener %v", known, gotD.Known, gotL.Known)
			}
			m, err := ParseAnswer(answer)
			if err != nil {
				t.Fatal(err)
			}
			if !known && (m.Caps != nil || m.Limits != Limits{} || gotD.Caps != nil || gotL.Caps != nil) {
				t.Errorf("a stranger is told %+v", m)
			}
		}
	}
	if len(lengths) != 1 || len(hellos) != 1 {
		t.Errorf("lengths of answers %v and of hellos %v, want one each", lengths, hellos)
	}
}

// TestHelloReplay: tags are worth nothing between other hosts, nor turned
// round, and an answer cannot be made of a hello.
func TestHelloReplay(t *testing.T) {
	other := Transport{0xc}
	for name, ends := range map[string][2]Channel{
		"passed on to another listener":    {{Local: hostA, Remote: other}, {Local: hostB, Remote: hostA}},
		"passed on by another dialer":      {{Local: hostA, Remote: hostB}, {Local: hostB, Remote: other}},
		"listener and dialer have swapped": {{Local: hostA, Remote: hostB}, {Local: hostA, Remote: hostB}},
	} {
		d := NewHelloDialer(About{}, ends[0], pairs(ada, bob, 1, 0), random(1))
		l := NewHelloListener(About{}, ends[1], pairs(bob, ada, 1, 0), random(2))
		if gotD, gotL, _, _ := say(t, d, l); gotD.Known || gotL.Known {
			t.Errorf("%s: known to the dialer %v, to the listener %v", name, gotD.Known, gotL.Known)
		}
	}
	d := NewHelloDialer(About{}, atDialer, pairs(ada, bob, 1, 0), random(1))
	hello, err := d.Start()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseHello(hello)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(m.Tags); at += TagSize { // a liar sends one of them back
		d.over = false
		echo, err := Answer{Versions: []uint16{1}, Tag: Tag(m.Tags[at:][:TagSize])}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if g, err := d.Handle(echo); err != nil || g.Known {
			t.Fatalf("tag %d sent back: known %v, %v", at/TagSize, g.Known, err)
		}
	}
}

// TestHelloOfACopy: a device that runs twice shows itself the tags by which a contact
// knows it, and does not take itself for the contact.
func TestHelloOfACopy(t *testing.T) {
	d := NewHelloDialer(About{}, atDialer, pairs(ada, bob, 5, 2), random(1))
	l := NewHelloListener(About{}, atListener, pairs(ada, bob, 5, 2), random(2))
	if gotD, gotL, _, _ := say(t, d, l); gotD.Known || gotL.Known {
		t.Errorf("known to the dialer as %v, to the listener as %v", gotD.Device.Short(), gotL.Device.Short())
	}
	d = NewHelloDialer(About{}, atDialer, pairs(ada, bob, 5, 2), random(1))
	l = NewHelloListener(About{}, atListener, pairs(bob, ada, 5, 2), random(2))
	if gotD, gotL, _, _ := say(t, d, l); !gotD.Known || !gotL.Known {
		t.Errorf("the contact is known to the dialer: %v, to the listener: %v", gotD.Known, gotL.Known)
	}
}

// TestHelloTags: where in the list a contact's tag stands says nothing, and
// the same hello twice has the same real tags among other random ones.
func TestHelloTags(t *testing.T) {
	want := tag(pairs(ada, bob, 1, 0)[0], hostA, hostB, ada)
	places := map[int]bool{}
	for seed := range byte(40) {
		hello, err := NewHelloDialer(About{}, atDialer, pairs(ada, bob, 1, 0), random(seed)).Start()
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseHello(hello)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(m.Tags, want[:])
		if at < 0 || at%TagSize != 0 {
			t.Fatalf("seed %d: the contact's tag is at byte %d", seed, at)
		}
		places[at/TagSize] = true
	}
	if len(places) < 25 {
		t.Errorf("40 hellos have the tag in %d places, want about 30", len(places))
	}
}

func TestHelloMany(t *testing.T) {
	d := NewHelloDialer(About{}, atDialer, pairs(ada, bob, 5000, 1023), random(1))
	l := NewHelloListener(About{}, atListener, pairs(bob, ada, 5000, 4999), random(2))
	gotD, gotL, hello, _ := say(t, d, l)
	if !gotD.Known || !gotL.Known || len(hello) != MaxHello {
		t.Errorf("5,000 contacts: known %v and %v, hello of %d bytes", gotD.Known, gotL.Known, len(hello))
	}
}

func TestHelloVersions(t *testing.T) {
	d := NewHelloDialer(About{Versions: []uint16{3, 2}}, atDialer, nil, random(1))
	l := NewHelloListener(About{Versions: []uint16{1}}, atListener, nil, random(2))
	hello, err := d.Start()
	if err != nil {
		t.Fatal(err)
	}
	answer, _, err := l.Handle(hello)
	if !errors.Is(err, ErrHelloVersion) || len(answer) != AnswerSize {
		t.Errorf("listener: %v and %d bytes, want ErrHelloVersion and an answer", err, len(answer))
	}
	if _, err := d.Handle(answer); !errors.Is(err, ErrHelloVersion) {
		t.Errorf("dialer: %v, want ErrHelloVersion", err)
	}
	if _, err := d.Handle(answer); !errors.Is(err, ErrOver) {
		t.Errorf("second answer: %v, want ErrOver", err)
	}
	if _, _, err := l.Handle(hello); !errors.Is(err, ErrOver) {
		t.Errorf("second hello: %v, want ErrOver", err)
	}
	if _, err := d.Start(); !errors.Is(err, ErrOver) {
		t.Errorf("second Start: %v, want ErrOver", err)
	}
	if v, err := common([]uint16{1, 2, 9}, []uint16{2, 1, 3}); v != 2 || err != nil {
		t.Errorf("common version %d, %v; want 2", v, err)
	}
}

func TestHelloOverAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, here := newPipe()
		served := make(chan error, 1)
		var gotL Greeting
		go func() {
			var err error
			gotL, err = ServeHello(t.Context(), here, NewHelloListener(aboutOtherSide, atListener, pairs(bob, ada, 3, 1), random(2)))
			served <- err
		}()
		gotD, err := SayHello(t.Context(), there, NewHelloDialer(aboutForHello, atDialer, pairs(ada, bob, 3, 0), random(1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if !gotD.Known || !gotL.Known || gotL.Device != ada {
			t.Errorf("known %v and %v, device %v", gotD.Known, gotL.Known, gotL.Device.Short())
		}
	})
}
