package identity

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// TestSecretsStayHidden: no way of printing a private key shows it.
func TestSecretsStayHidden(t *testing.T) {
	s := seed("hidden", 1)
	blinded, err := NewRendezvousKey(s).Blind([64]byte([]byte(strings.Repeat("hidden  ", 8))))
	if err != nil {
		t.Fatal(err)
	}
	keys := []any{NewRootKey(s), NewLogKey(s), NewDeviceKey(s), NewRendezvousKey(s), NewListKey(s), NewOlmKey(s), blinded}
	for _, k := range keys {
		typ := reflect.TypeOf(k)
		if typ.Comparable() {
			t.Errorf("%v can be compared with ==", typ)
		}
		holder := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Key", Type: typ}})).Elem()
		holder.Field(0).Set(reflect.ValueOf(k))
		var log strings.Builder
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("key", "key", k, "holder", holder.Interface())
		}
		js, err := json.Marshal(holder.Interface())
		if err != nil {
			t.Fatal(err)
		}
		shown := []string{log.String(), string(js)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, k), fmt.Sprintf(verb, holder.Interface()))
		}
		for _, out := range shown {
			low := strings.ToLower(out)
			if strings.Contains(low, "68696464656e") || strings.Contains(low, "hidden") ||
				strings.Contains(low, "104 105 100") || !strings.Contains(out, "<secret>") && !strings.Contains(out, `\u003csecret`) {
				t.Errorf("%v prints as %s", typ, out)
			}
		}
	}
}

func TestKeyWithoutSeedPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"sign":   func() { DeviceKey{}.Sign(ContextBundle, nil) },
		"public": func() { LogKey{}.Public() },
		"blind":  func() { _, _ = RendezvousKey{}.Blind([64]byte{1}) },
		"signed": func() { BlindedKey{}.Sign(nil) },
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "bug:") {
					t.Errorf("%s: panic %q, want one that says bug:", name, r)
				}
			}()
			f()
		}()
	}
}

func contexts() []Context {
	return []Context{ContextLog, ContextDeviceRecord, ContextDeviceProof, ContextBundle, ContextContact, ContextServerList}
}

// TestContextsSeparate is H18: a signature of one context verifies in no
// other, whatever moves between context and message.
func TestContextsSeparate(t *testing.T) {
	k := testDevice(1)
	msg := []byte("message")
	for _, made := range contexts() {
		sig := k.Sign(made, msg)
		for _, used := range contexts() {
			want := error(nil)
			if made != used {
				want = ErrSignature
			}
			wantErr(t, fmt.Sprintf("signed for %s, verified for %s", made, used), k.Public().Verify(used, msg, sig), want)
		}
		if strings.ContainsRune(string(made), 0) {
			t.Errorf("%q contains a zero byte", made)
		}
		wantErr(t, "longer message", k.Public().Verify(made, append(msg, 0), sig), ErrSignature)
		wantErr(t, "other key", testDevice(2).Public().Verify(made, msg, sig), ErrSignature)
		wantErr(t, "short signature", k.Public().Verify(made, msg, sig[:63]), ErrSignature)
		wantErr(t, "no signature", k.Public().Verify(made, msg, nil), ErrSignature)
		for i := range sig {
			bad := append([]byte(nil), sig...)
			bad[i] ^= 1
			wantErr(t, "changed signature", k.Public().Verify(made, msg, bad), ErrSignature)
		}
	}
	seen := map[Context]bool{}
	for _, c := range contexts() {
		if seen[c] {
			t.Errorf("%s stands twice", c)
		}
		seen[c] = true
	}
}

// TestListKeySignsListsAlone: what a list key signs is a list and nothing else, and a
// key under which one signature fits many lists verifies nothing.
func TestListKeySignsListsAlone(t *testing.T) {
	body := []byte("body")
	k, device := NewListKey([32]byte{7}), NewDeviceKey([32]byte{7})
	wantErr(t, "own", k.Public().Verify(body, k.Sign(body)), nil)
	wantErr(t, "other body", k.Public().Verify([]byte("bodies"), k.Sign(body)), ErrSignature)
	wantErr(t, "other key", NewListKey([32]byte{8}).Public().Verify(body, k.Sign(body)), ErrSignature)
	for _, c := range contexts() {
		want := ErrSignature
		if c == ContextServerList {
			want = nil
		}
		wantErr(t, "signed as "+string(c), k.Public().Verify(body, device.Sign(c, body)), want)
	}
	wantErr(t, "low order", ListPublic{1}.Verify(body, make([]byte, SignatureSize)), ErrKey)
	wantErr(t, "off the curve", ListPublic{2}.Sound(), ErrKey)
}

// TestSignatureInput fixes what is signed: context, zero byte, message.
func TestSignatureInput(t *testing.T) {
	if got, want := string(ContextLog.input([]byte("m"))), "kinloom/idlog/1\x00m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// lowOrderEd25519 are all encodings of the eight points of low order, and the
// second spellings of some of them.
func lowOrderEd25519() []string {
	return []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	}
}

// lowOrderX25519 are the points with which every shared secret is zero.
func lowOrderX25519() []string {
	return []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
}

func hex32(t testing.TB, s string) [32]byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		t.Fatal(s, err)
	}
	return [32]byte(b)
}

// TestLowOrderKeys is H12 for everything that a record or log entry names.
func TestLowOrderKeys(t *testing.T) {
	root, k := testRoot(1), testDevice(1)
	w := begin(t, root, testLogKey(1))
	for _, s := range lowOrderEd25519() {
		bad := hex32(t, s)
		wantErr(t, "key "+s, CheckKey(bad), ErrKey)
		r := testRecord(root.Person(), 1, day0())
		r.Rendezvous = bad
		_, err := SignDeviceRecord(k, r)
		wantErr(t, "rendezvous "+s, err, ErrKey)
		r = testRecord(bad, 1, day0())
		_, err = SignDeviceRecord(k, r)
		wantErr(t, "person "+s, err, ErrKey)
		_, err = NewLog(root, LogPublic(bad), day0())
		wantErr(t, "log key "+s, err, ErrKey)
		_, err = ParseLog(bad, w.log.Entries())
		wantErr(t, "log of "+s, err, ErrKey)
		add := deviceAddBody{Device: bad, NotBefore: 1, Expiry: 2}
		err = w.log.grow().apply(forge(t, w.log, w.key.sign, EntryDeviceAdd, add, nil))
		wantErr(t, "device "+s, err, ErrKey)
	}
	for _, s := range lowOrderX25519() {
		wantErr(t, "X25519 "+s, checkX25519(hex32(t, s)), ErrKey)
		r := testRecord(root.Person(), 1, day0())
		r.Olm = hex32(t, s)
		_, err := SignDeviceRecord(k, r)
		wantErr(t, "olm "+s, err, ErrKey)
	}
}

// TestShared uses the keys of RFC 7748, 6.1.
func TestShared(t *testing.T) {
	alice := NewOlmKey(hex32(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
	bob := NewOlmKey(hex32(t, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
	a, err := alice.Shared(bob.Public())
	if err != nil {
		t.Fatal(err)
	}
	b, err := bob.Shared(alice.Public())
	want := hex32(t, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
	if err != nil || a != want || b != want {
		t.Errorf("%x and %x, %v, want %x", a, b, err, want)
	}
	for _, s := range lowOrderX25519() {
		_, err := alice.Shared(hex32(t, s))
		wantErr(t, "shared with "+s, err, ErrKey)
	}
}

func TestRootSeedRoundTrip(t *testing.T) {
	s := seed("root", 9)
	if NewRootKey(s).Seed() != s {
		t.Error("the root key has another seed than it was made of")
	}
	if errors.Is(CheckKey(NewRootKey(s).Person()), ErrKey) {
		t.Error("an ordinary key is refused")
	}
}
