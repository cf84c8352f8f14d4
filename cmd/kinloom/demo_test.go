package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node/client"
)

// TestFindIsNotBlind hides a secret in noise in every spelling that the demo claims to search for, at every place where
// base64 may begin, and wants it found; and nothing in the noise alone.
func TestFindIsNotBlind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	secrets := []secret{{"name", []byte("Bob Bemer")}, {"key", noise(32)}, {"text", []byte("?>ÿþ says the text ~~~ with +/ in it")}}
	if found := find(noise(1<<20), secrets); len(found) != 0 {
		t.Errorf("found %q in noise", found)
	}
	for _, s := range secrets {
		var hidden [][]byte
		hidden = append(hidden, s.value, []byte(hex.EncodeToString(s.value)), []byte(strings.ToUpper(hex.EncodeToString(s.value))))
		for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			for before := range 7 {
				for after := range 4 {
					hidden = append(hidden, []byte(alphabet.EncodeToString(slices.Concat(noise(before), s.value, noise(after)))))
				}
			}
		}
		for _, b := range hidden {
			if found := find(slices.Concat(noise(1000), b, noise(1000)), secrets); len(found) != 1 || found[0].what != s.what {
				t.Errorf("%s hidden as %q: found %q", s.what, b, found)
			}
		}
	}
}

// TestDemoSecrets: none of the demo's secrets is so short that chance would find it.
func TestDemoSecrets(t *testing.T) {
	one := demoNode{name: demoAda, status: client.Status{ID: "did:key:z6Mkhz32qoy7x3LJhM24kg3QmeP1nDaZb2ZkAkiREsFtJVtg", Device: strings.Repeat("ab", 32)}}
	two := one
	two.name = demoBob
	secrets, err := demoSecrets(one, two)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(demoTalk) + 2*4; len(secrets) != want {
		t.Errorf("%d secrets, want %d", len(secrets), want)
	}
	for _, s := range secrets {
		if len(s.value) < shortest {
			t.Errorf("%s %q is shorter than %d bytes", s.what, s.value, shortest)
		}
		if n := len(s.spellings()); n < spellingsSearched {
			t.Errorf("%s %q has %d spellings, want %d or more", s.what, s.value, n, spellingsSearched)
		}
	}
}

// TestTapCopiesAndPassesOn: what is sent through a tap in clear arrives, both ways, for two senders at a time, and is
// found: the control for the demo's "0 found".
func TestTapCopiesAndPassesOn(t *testing.T) {
	echo, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	wire, err := openTap(portOf(echo))
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	g.Go(func() error {
		packet := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(packet)
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			if _, err := echo.WriteToUDPAddrPort(append([]byte("answer to "), packet[:n]...), from); err != nil {
				return err
			}
		}
	})
	g.Go(func() error { return wire.run(ctx) })
	for _, text := range []string{"a text in clear", "another in clear"} {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(wire.addr()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 100)
			n, err := c.Read(answer)
			if got := string(answer[:n]); err != nil || got != "answer to "+text {
				t.Fatalf("through the tap came %q, %v", got, err)
			}
		}
	}
	in, out := wire.copies()
	secrets := []secret{{"text", []byte("a text in clear")}, {"text", []byte("another in clear")}}
	if in.packets != 6 || out.packets != 6 || len(find(in.bytes, secrets)) != 2 || len(find(out.bytes, secrets)) != 2 {
		t.Errorf("the tap saw %d and %d packets with %q and %q", in.packets, out.packets, find(in.bytes, secrets), find(out.bytes, secrets))
	}
	if !wire.carries(wire.addr()) || wire.carries(portOf(echo)) {
		t.Error("the tap does not know its own addresses")
	}
	stop()
	if err := errors.Join(echo.Close(), g.Wait()); err != nil {
		t.Fatal(err)
	}
}
