package rv

import (
	"crypto/ed25519"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecordSize: the arithmetic of SPEC 3.
func TestRecordSize(t *testing.T) {
	if parts := 1 + 4 + 8 + 24 + (1008 + 16) + 64; RecordSize != 1125 || parts != 1125 {
		t.Fatalf("a record has %d bytes, want 1,125", RecordSize)
	}
	d := newDevice(1)
	for name, h := range map[string]Hint{"empty": {}, "some": someHint()} {
		b, err := Seal(d.key, d.secret, 3, 0, h, d.random)
		if err != nil || len(b) != RecordSize {
			t.Errorf("%s hint: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestSealOpen(t *testing.T) {
	d := newDevice(1)
	p := PeriodAt(epoch)
	b := d.seal(t, p, 720)
	point := d.point(t, p)
	stamp, err := Validate(epoch, point, b)
	want := Stamp{Period: p, Seq: 720}
	if err != nil || stamp != want || !stamp.At().Equal(epoch) {
		t.Errorf("Validate = %+v, %v; want %+v", stamp, err, want)
	}
	if !ed25519.Verify(point[:], append(append([]byte("rv1"), point[:]...), b[:1061]...), b[1061:]) {
		t.Error("the signature is no plain Ed25519 over what network.md 4 says")
	}
	h, stamp, err := Open(d.public, d.secret, p, b)
	if err != nil || stamp != want {
		t.Fatalf("Open: %+v, %v", stamp, err)
	}
	if d := cmp.Diff(someHint(), h); d != "" {
		t.Errorf("hint (-want +got):\n%s", d)
	}
}
