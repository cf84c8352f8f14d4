package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/mr-tron/base58"
)

// TestDID uses identifiers published with the did:key method and by others
// that implement it.
func TestDID(t *testing.T) {
	for _, s := range []string{
		"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
		"did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw",
		"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
	} {
		p, err := ParsePersonID(s)
		if err != nil || p.String() != s || len(s) != 56 {
			t.Errorf("ParsePersonID(%s) = %v, %v", s, p, err)
		}
		b, err := json.Marshal(map[string]any{"id": p})
		if err != nil || string(b) != `{"id":"`+s+`"}` {
			t.Errorf("JSON of %s: %s, %v", s, b, err)
		}
		var back struct {
			ID PersonID `json:"id"`
		}
		if err := json.Unmarshal(b, &back); err != nil || back.ID != p {
			t.Errorf("JSON %s: %v, %v", b, back.ID, err)
		}
	}
}

func TestDIDRefuses(t *testing.T) {
	good := testRoot(1).Person()
	did := good.String()
	encode := func(prefix string, b []byte) string { return prefix + base58.Encode(b) }
	for name, s := range map[string]string{
		"nothing":          "",
		"no multibase":     strings.Replace(did, "key:z", "key:", 1),
		"other multibase":  strings.Replace(did, "key:z", "key:u", 1),
		"other method":     strings.Replace(did, "did:key", "did:web", 1),
		"upper case":       strings.ToUpper(did),
		"blank before":     " " + did,
		"newline behind":   did + "\n",
		"fragment":         did + "#" + did[8:],
		"one letter off":   did[:20] + "0" + did[21:], // 0 is no base58 digit
		"one letter less":  did[:len(did)-1],
		"one letter more":  did + "1",
		"leading zero":     strings.Replace(did, "key:z", "key:z1", 1),
		"X25519":           "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
		"secp256k1":        "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
		"33 bytes":         encode(didPrefix, append(didCodec(), make([]byte, 33)...)),
		"31 bytes":         encode(didPrefix, append(didCodec(), good[:31]...)),
		"long":             didPrefix + strings.Repeat("6", 10<<20),
		"neutral element":  encode(didPrefix, append(didCodec(), append([]byte{1}, make([]byte, 31)...)...)),
		"not on the curve": encode(didPrefix, append(didCodec(), append([]byte{2}, make([]byte, 31)...)...)),
	} {
		if _, err := ParsePersonID(s); !errors.Is(err, ErrDID) {
			t.Errorf("%s: ParsePersonID(%.80q) = %v, want ErrDID", name, s, err)
		}
		var p PersonID
		if err := p.UnmarshalText([]byte(s)); err == nil || !p.IsZero() {
			t.Errorf("%s: UnmarshalText took %.80q", name, s)
		}
	}
}

// TestIDsDiffer: one key gives different ids in different roles (H23).
func TestIDsDiffer(t *testing.T) {
	k := testDevice(1).Public()
	if DeviceID(k) == k.ID() {
		t.Error("device id is the key itself")
	}
	if k.ID() == DeviceID(hashEntry(k[:])) {
		t.Error("device id is the bare hash of the key")
	}
	if got := k.ID().String(); len(got) != 64 || len(k.ID().Short()) != 8 || !strings.HasPrefix(got, k.ID().Short()) {
		t.Errorf("got %s, want 64 digits that begin with the short form", got)
	}
	h := PersonID(k).Hash16()
	if full := hashEntry(k[:]); string(h[:]) != string(full[:16]) {
		t.Errorf("Hash16 = %x, want the first half of %x", h, full)
	}
	if len(Head{}.String()) != 64 || len(RecordHash{}.String()) != 64 {
		t.Error("hashes are not shown as 64 digits")
	}
}

// FuzzParsePersonID: what is accepted has one spelling.
func FuzzParsePersonID(f *testing.F) {
	f.Add(testRoot(1).Person().String())
	f.Add("did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePersonID(s)
		if err == nil && p.String() != s {
			t.Fatalf("%q is shown as %q", s, p)
		}
	})
}
