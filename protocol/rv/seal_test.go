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

func BenchmarkRecord(b *testing.B) {
	d, p := newDevice(1), PeriodAt(epoch)
	record, point := d.seal(b, p, 1), d.point(b, p)
	for name, f := range map[string]func() error{
		"point":    func() error { _, err := PointOf(d.public, d.secret, p); return err },
		"seal":     func() error { _, err := Seal(d.key, d.secret, p, 1, someHint(), d.random); return err },
		"validate": func() error { _, err := Validate(epoch, point, record); return err },
		"open":     func() error { _, _, err := Open(d.public, d.secret, p, record); return err },
		"oversize": func() error {
			if _, err := Validate(epoch, point, record[1:]); err == nil {
				return ErrSize
			}
			return nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
