package session

import (
	"errors"
	"testing"
	"time"
)

// TestHostileAdvert: keys for the renewal that are no keys do not keep the other
// side from sending, then or later.
func TestHostileAdvert(t *testing.T) {
	sound := newSecrets(seed32("sound"))
	olmKey := [32]byte(olmKeyPair(sound.olm).PublicKey)
	var noKEM [xwingSize]byte
	for i := range noKEM {
		noKEM[i] = 0xff // coefficients above the modulus
	}
	for name, bad := range map[string]Advert{
		"Olm key of low order": {sound.id, [32]byte{}, xwingPublic(sound.xwing)},
		"X-Wing key":           {sound.id, olmKey, noKEM},
		"zero":                 {},
	} {
		t.Run(name, func(t *testing.T) {
			now := epoch0
			ada, eve := newSide(t, "ada", ""), newSide(t, "eve", "")
			start(now, ada, eve, true)
			eve.open(now, ada.say(now, eve, "hello"))
			// Eve's advert goes out before the honest one of her machine.
			s := eve.m.peers[ada.dev()].current()
			if err := eve.m.addControl(s, (&Inner{Type: innerAdvert, Advert: &bad}).Append(nil)); err != nil {
				t.Fatal(err)
			}
			s.Told = true
			ada.open(now, eve.say(now, ada, "hi"))
			if info, _ := ada.m.Current(now, eve.dev()); !info.Renewable {
				t.Fatal("the advert did not arrive")
			}
			now = now.Add(2 * 24 * time.Hour)
			for _, text := range []string{"one", "two"} {
				wantTexts(t, "after the bad advert", texts(eve.open(now, ada.say(now, eve, text))), text)
			}
			ada.restart()
			wantTexts(t, "after a restart", texts(eve.open(now, ada.say(now, eve, "three"))), "three")
			x := ada.m.peers[eve.dev()].current()
			x.Sent = MaxSeq
			if _, err := ada.m.Seal(now, eve.dev(), conv(ada, eve), []byte("four")); !errors.Is(err, ErrNeedBundle) {
				t.Errorf("at the end of the session: %v, want ErrNeedBundle", err)
			}
		})
	}
}
