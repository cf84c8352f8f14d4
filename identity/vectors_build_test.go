package identity

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/kinloom/kinloom/identity/enc"
)

// buildVectors makes every vector from seeds. TestVectors fills in what is
// expected of them by reading them, so a wrong expectation cannot be written
// without the tests of the rules failing first.
func buildVectors(t testing.TB) map[string][]vector {
	t.Helper()
	return map[string][]vector{
		"did.json":           didVectors(),
		"device-record.json": recordVectors(t),
		"log.json":           logVectors(t),
	}
}

func didVectors() []vector {
	did := testRoot(1).Person().String()
	var out []vector
	for _, v := range [][2]string{
		{"a person", did},
		{"another person", testRoot(2).Person().String()},
		{"from the did:key method", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"},
		{"X25519 key", "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc"},
		{"upper case", strings.ToUpper(did)},
		{"fragment behind", did + "#key"},
		{"low order", PersonID{1}.String()},
		{"not the method", "did:web:example.org"},
	} {
		out = append(out, vector{Name: v[0], Message: "did", Hex: hex.EncodeToString([]byte(v[1]))})
	}
	return out
}

// fields are the keys of an encoded map, to be changed before it is signed.
func fields(t testing.TB, v any) map[int]any {
	t.Helper()
	b, err := enc.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]any{}
	if err := enc.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func recordVectors(t testing.TB) []vector {
	t.Helper()
	k, p := testDevice(1), testRoot(1).Person()
	plain := testRecord(p, 1, day0())
	var out []vector
	raw := func(name string, b []byte) {
		out = append(out, vector{Name: name, Message: "device-record", Hex: hex.EncodeToString(b)})
	}
	signed := func(name string, body []byte) {
		raw(name, append(k.sign(ContextDeviceRecord, body), body...))
	}
	changed := func(name string, change func(map[int]any)) {
		m := fields(t, plain)
		change(m)
		raw(name, signRaw(t, k.sign, ContextDeviceRecord, m))
	}
	good := signRaw(t, k.sign, ContextDeviceRecord, plain)
	body := good[SignatureSize:]

	raw("plain", good)
	changed("without capabilities", func(m map[int]any) { delete(m, 9) })
	changed("several capabilities", func(m map[int]any) { m[9] = []string{"blob/1", "dm/1", "x-y.z"} })
	changed("unknown key", func(m map[int]any) { m[100] = "later" })

	raw("signed for another purpose", signRaw(t, k.sign, ContextBundle, plain))
	raw("signed by another device", signRaw(t, testDevice(2).sign, ContextDeviceRecord, plain))
	raw("signature alone", good[:SignatureSize])
	raw("too large", append(slices.Clone(good), make([]byte, MaxRecord)...))
	raw("changed byte", append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1))
	changed("suite 2", func(m map[int]any) { m[1] = 2 })
	changed("version 2", func(m map[int]any) { m[2] = 2 })
	changed("version missing", func(m map[int]any) { delete(m, 2) })
	changed("person missing", func(m map[int]any) { delete(m, 3) })
	changed("person of 31 bytes", func(m map[int]any) { m[3] = p[:31] })
	changed("person of low order", func(m map[int]any) { m[3] = PersonID{1} })
	changed("Olm key of low order", func(m map[int]any) { m[5] = [32]byte{1} })
	changed("rendezvous key not on the curve", func(m map[int]any) { m[6] = [32]byte{2} })
	changed("valid for 90 days and a second", func(m map[int]any) { m[8] = plain.Expiry + 1 })
	changed("valid for no time", func(m map[int]any) { m[8] = plain.NotBefore })
	changed("17 capabilities", func(m map[int]any) { m[9] = strings.Split("a b c d e f g h i j k l m n o p q", " ") })
	changed("capabilities out of order", func(m map[int]any) { m[9] = []string{"b", "a"} })
	changed("capability of 33 bytes", func(m map[int]any) { m[9] = []string{strings.Repeat("a", 33)} })
	changed("capabilities empty but there", func(m map[int]any) { m[9] = []string{} })

	signed("trailing byte", append(slices.Clone(body), 0))
	signed("keys out of order", slices.Concat([]byte{0xa9, 0x02, 0x01, 0x01, 0x01}, body[5:]))
	signed("key twice", slices.Concat([]byte{0xaa, 0x01, 0x01}, body[1:]))
	signed("long form of an integer", slices.Concat([]byte{0xa9, 0x01, 0x18, 0x01}, body[3:]))
	signed("null", append([]byte{0xaa}, slices.Concat(body[1:], []byte{0x0a, 0xf6})...))
	signed("tag", append([]byte{0xaa}, slices.Concat(body[1:], []byte{0x0a, 0xc1, 0x00})...))
	signed("bad UTF-8", append([]byte{0xaa}, slices.Concat(body[1:], []byte{0x0a, 0x61, 0xff})...))
	signed("too deep", append([]byte{0xaa}, slices.Concat(body[1:], []byte{0x0a}, slices.Repeat([]byte{0x81}, enc.MaxDepth), []byte{0})...))
	signed("indefinite length", slices.Concat([]byte{0xbf}, body[1:], []byte{0xff}))
	signed("count beyond the end", slices.Concat([]byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, body[1:]))
	return out
}

func logVectors(t testing.TB) []vector {
	t.Helper()
	root, key := testRoot(1), testLogKey(1)
	w := begin(t, root, key).add(1).add(2)
	w.at = day(60)
	w.renew(1)
	w.at = day(61)
	w.revoke(2)
	stolen := w.branch().add(50)
	answered := stolen.branch().supersede(root, testLogKey(2), 6).add(3)

	var out []vector
	put := func(name string, p PersonID, entries [][]byte) {
		b, err := enc.Marshal(logMessage{Person: p, Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, vector{Name: name, Message: "log", Hex: hex.EncodeToString(b)})
	}
	behind := func(name string, entry []byte) {
		put(name, root.Person(), append(w.log.Entries(), entry))
	}
	forged := func(name string, sign func(Context, []byte) []byte, typ EntryType, body any, change func(*entry)) {
		behind(name, forge(t, w.log, sign, typ, body, change))
	}
	revoke := deviceRevokeBody{testDevice(1).ID()}

	put("begin", root.Person(), begin(t, root, key).log.Entries())
	put("two devices, one renewed, one revoked", root.Person(), w.log.Entries())
	put("a thief's device at entry 6", root.Person(), stolen.log.Entries())
	put("the root's answer at entry 6", root.Person(), answered.log.Entries())
	forged("unknown keys in entry and body", key.sign, EntryDeviceRevoke, map[int]any{1: testDevice(1).ID(), 9: "later"}, nil)

	put("no entries", root.Person(), [][]byte{})
	put("genesis alone", root.Person(), w.log.Entries()[:1])
	put("another person's", testRoot(2).Person(), w.log.Entries())
	put("person of low order", PersonID{1}, w.log.Entries())
	put("entry left out", root.Person(), slices.Delete(w.log.Entries(), 3, 4))
	put("the thief behind the root's answer", root.Person(), append(answered.log.Entries(),
		forge(t, answered.log, key.sign, EntryDeviceRevoke, deviceRevokeBody{testDevice(3).ID()}, nil)))

	forged("suite 2", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Suite = 2 })
	forged("version 2", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Version = 2 })
	forged("entry for another person", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Person = testRoot(2).Person() })
	forged("seq again", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Seq-- })
	forged("prev of another entry", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Prev = w.log.heads[1] })
	forged("time after 9999", key.sign, EntryDeviceRevoke, revoke, func(e *entry) { e.Time = maxTime + 1 })
	forged("recovery-policy, of a later version", root.sign, 6, map[int]int{}, nil)
	forged("root-rotate, of a later version", root.sign, 7, map[int]int{}, nil)
	forged("second genesis", root.sign, EntryGenesis, genesisBody{}, nil)
	forged("log-key by the log key", key.sign, EntryLogKey, logKeyBody{testLogKey(2).Public()}, nil)
	forged("log-key with the key of before", root.sign, EntryLogKey, logKeyBody{key.Public()}, nil)
	forged("log-key that is the root", root.sign, EntryLogKey, logKeyBody{LogPublic(root.Person())}, nil)
	forged("log-key of low order", root.sign, EntryLogKey, logKeyBody{LogPublic{1}}, nil)
	forged("device-revoke by the root", root.sign, EntryDeviceRevoke, revoke, nil)
	forged("device-revoke by the device", testDevice(1).sign, EntryDeviceRevoke, revoke, nil)
	forged("device-revoke of nobody", key.sign, EntryDeviceRevoke, deviceRevokeBody{testDevice(9).ID()}, nil)
	forged("device-renew of nobody", key.sign, EntryDeviceRenew,
		deviceRenewBody{Device: testDevice(9).ID(), NotBefore: day(0).Unix(), Expiry: day(90).Unix()}, nil)
	forged("device-renew of a revoked device", key.sign, EntryDeviceRenew,
		deviceRenewBody{Device: testDevice(2).ID(), NotBefore: day(0).Unix(), Expiry: day(90).Unix()}, nil)
	forged("device-add of a device that is there", key.sign, EntryDeviceAdd, deviceAddBody{Device: testDevice(1).Public(), NotBefore: 1, Expiry: 2}, nil)
	forged("device-add by the root", root.sign, EntryDeviceAdd, deviceAddBody{Device: testDevice(3).Public(), NotBefore: 1, Expiry: 2}, nil)
	forged("device-add of a key of low order", key.sign, EntryDeviceAdd, deviceAddBody{Device: DevicePublic{1}, NotBefore: 1, Expiry: 2}, nil)
	born := &Log{person: root.Person(), entries: w.log.entries[:1], heads: w.log.heads[:1]}
	put("device-add before the first log key", root.Person(), append(born.Entries(),
		forge(t, born, key.sign, EntryDeviceAdd, deviceAddBody{Device: testDevice(1).Public(), NotBefore: 1, Expiry: 2}, nil)))
	forged("device-revoke twice", key.sign, EntryDeviceRevoke, deviceRevokeBody{testDevice(2).ID()}, nil)
	forged("device-add of a revoked device", key.sign, EntryDeviceAdd, deviceAddBody{Device: testDevice(2).Public(), NotBefore: 1, Expiry: 2}, nil)
	forged("device-add without proof", key.sign, EntryDeviceAdd, deviceAddBody{Device: testDevice(3).Public(), NotBefore: 1, Expiry: 2}, nil)
	forged("device-renew for 91 days", key.sign, EntryDeviceRenew,
		deviceRenewBody{Device: testDevice(1).ID(), NotBefore: day(0).Unix(), Expiry: day(91).Unix()}, nil)
	forged("body of another type", key.sign, EntryDeviceRevoke, map[int]any{1: testDevice(1).Public().ID().String()}, nil)
	forged("body without its key", key.sign, EntryDeviceRevoke, map[int]any{}, nil)
	behind("empty entry", []byte{})
	behind("trailing byte", append(forge(t, w.log, key.sign, EntryDeviceRevoke, revoke, nil), 0))
	behind("too large", make([]byte, MaxEntry+1))

	crowd := begin(t, root, key)
	for i := range MaxDevices {
		crowd.add(i)
	}
	l := crowd.log
	extra := testDevice(MaxDevices)
	body := deviceAddBody{Device: extra.Public(), Record: RecordHash{1}, NotBefore: day(0).Unix(), Expiry: day(90).Unix()}
	copy(body.Proof[:], extra.sign(ContextDeviceProof, proofInput(root.Person(), body.Record)))
	put("33 devices", root.Person(), append(l.Entries(), forge(t, l, key.sign, EntryDeviceAdd, body, nil)))
	return out
}
