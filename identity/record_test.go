package identity

import "testing"

func TestRecordRoundTrip(t *testing.T) {
	d := NewDeviceKey([32]byte{1})
	r := DeviceRecord{
		Person: NewRootKey([32]byte{2}).Person(), Device: d.Public(), Olm: NewOlmKey([32]byte{3}).Public(),
		Rendezvous: NewRendezvousKey([32]byte{4}).Public(), NotBefore: 1000, Expiry: 2000, Capabilities: []string{"blob/1", "dm/1"},
	}
	b, err := SignDeviceRecord(d, r)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := ParseDeviceRecord(b)
	if err != nil || got.Device != d.Public() || !got.Can("dm/1") {
		t.Fatalf("parse: %+v, %v", got, err)
	}
	p, err := ParsePersonID(r.Person.String())
	if err != nil || p != r.Person {
		t.Fatalf("did: %v, %v", p, err)
	}
}
