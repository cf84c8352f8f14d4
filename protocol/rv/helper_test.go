package rv

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// epoch is the time of all tests that have no clock of their own, in the
// middle of a period. synctest starts at its midnight.
var epoch = time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)

// random returns a stream of bytes drawn from seed.
func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// device is one that publishes.
type device struct {
	key    identity.RendezvousKey
	public [32]byte
	secret Secret
	random io.Reader
}

func newDevice(seed byte) *device {
	k := identity.NewRendezvousKey([32]byte{'r', seed})
	return &device{k, k.Public(), Secret{'s', seed}, random(seed)}
}

func (d *device) point(tb testing.TB, p Period) Point {
	tb.Helper()
	point, err := PointOf(d.public, d.secret, p)
	if err != nil {
		tb.Fatal(err)
	}
	return point
}

func (d *device) seal(tb testing.TB, p Period, seq uint64) []byte {
	tb.Helper()
	b, err := Seal(d.key, d.secret, p, seq, someHint(), d.random)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func someHint() Hint {
	return Hint{
		Devices: []Place{
			{Transport: [32]byte{1, 2}, Addrs: [][]byte{{4, 192, 0, 2, 1, 0x91, 0x02, 0x1f, 0x40, 0xcd, 0x03}}, Caps: CapAlwaysOn},
			{Transport: [32]byte{3}, Addrs: [][]byte{{4, 198, 51, 100, 1, 6, 0x1f, 0x40}}},
		},
		Bundle: [32]byte{7, 7}, Head: identity.Head{9},
	}
}
