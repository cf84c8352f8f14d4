package rv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// common returns the longest run of bytes that two records have in common at
// one offset, from one offset on.
func common(a, b []byte, from int) (longest int) {
	run := 0
	for i := from; i < len(a); i++ {
		if run++; a[i] != b[i] {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

// TestUnlinked is H139 for the records: a month of ten devices, whose hints
// never change, tells nobody which belong together. What is left equal between
// two days of one device is equal between devices too.
func TestUnlinked(t *testing.T) {
	days, devices := 30, 10
	if testing.Short() { // beside the race detector
		days, devices = 6, 3
	}
	hint, err := someHint().Hash()
	if err != nil {
		t.Fatal(err)
	}
	type kept struct {
		device int
		out
		point Point
		b     []byte
	}
	var all []kept
	for i := range devices {
		d := newDevice(byte(i + 1))
		for _, o := range run(t, NewMachine(d.random, nil), epoch, epoch.Add(time.Duration(days)*24*time.Hour), 0, hint) {
			all = append(all, kept{i, o, d.point(t, o.Period), d.seal(t, o.Period, o.Seq)})
		}
	}
	inMinutes := map[int]int{}
	for i, a := range all {
		// The head is a function of day and minute: everybody's would be this.
		if want := head(Version, uint32(a.Period.NotAfter().Unix()), a.Seq); !bytes.Equal(a.b[:13], want) {
			t.Fatalf("head %x, want %x", a.b[:13], want)
		}
		for _, b := range all[i+1:] {
			if n := common(a.b, b.b, 13); n >= 4 {
				t.Fatalf("devices %d and %d, periods %d and %d: %d bytes in common at one offset", a.device, b.device, a.Period, b.Period, n)
			}
			same := a.device == b.device && a.Period == b.Period
			if (a.point == b.point) != same {
				t.Fatalf("devices %d and %d, periods %d and %d: points equal: %v", a.device, b.device, a.Period, b.Period, !same)
			}
			if a.device == b.device && a.Period != b.Period {
				inMinutes[int(b.at.Sub(a.at).Abs()/time.Minute)]++
			}
		}
		// No part of one stands anywhere in another, either.
		if i > 0 {
			for at := 13; at+8 <= RecordSize; at += 8 {
				if bytes.Contains(all[i-1].b[13:], a.b[at:at+8]) {
					t.Fatal("8 bytes of one record stand in the next")
				}
			}
		}
	}
	if n := inMinutes[0]; n > 0 {
		t.Errorf("%d times two periods of one device went out within a minute", n)
	}
}

// TestSigningNonces is H138: with the same plaintext, the same random nonce and
// the same seq, every period, secret and key has another R and ciphertext; the
// same record again, after a restart or on a clone, is the same record.
func TestSigningNonces(t *testing.T) {
	seen := map[[32]byte]string{}
	nonce := bytes.Repeat([]byte{7}, nonceSize)
	for dev := range 2 {
		d := newDevice(byte(dev + 1))
		for secret := range 3 {
			for p := range Period(20) {
				for _, h := range []Hint{{}, someHint()} {
					name := fmt.Sprint("device ", dev, ", secret ", secret, ", period ", p, ", devices ", len(h.Devices))
					b, err := Seal(d.key, Secret{byte(secret)}, p, 5, h, bytes.NewReader(nonce))
					if err != nil {
						t.Fatal(err)
					}
					for what, part := range map[string][]byte{"R": b[1061:1093], "S": b[1093:], "ciphertext": b[headSize : headSize+32]} {
						if before := seen[[32]byte(part)]; before != "" {
							t.Fatalf("%s: %s is that of %s", name, what, before)
						}
						seen[[32]byte(part)] = name
					}
					again, err := Seal(newDevice(byte(dev+1)).key, Secret{byte(secret)}, p, 5, h, bytes.NewReader(nonce))
					if err != nil || !bytes.Equal(again, b) {
						t.Fatalf("%s: another record the second time (%v)", name, err)
					}
				}
			}
		}
	}
}

// TestSecretStaysHidden: no way of printing a contact secret shows it.
func TestSecretStaysHidden(t *testing.T) {
	s := Secret([]byte("hidden  hidden  hidden  hidden  "))
	holder := struct{ S Secret }{s}
	js, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("secret", "s", s, "in", holder)
	shown := []string{string(js), log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder))
	}
	shown = append(shown, s.String(), s.GoString())
	if i := slices.IndexFunc(shown, func(s string) bool {
		return strings.Contains(strings.ToLower(s), "hidden") || strings.Contains(strings.ToLower(s), "68696464") || strings.Contains(s, "104") || !strings.Contains(s, "secret")
	}); i >= 0 {
		t.Errorf("prints as %s", shown[i])
	}
}
