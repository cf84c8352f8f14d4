package rv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"filippo.io/edwards25519"

	"github.com/kinloom/kinloom/protocol/wire"
)

// everywhere asks all who judge a record of one point at a moment, and fails the test
// unless each gives the error, and the proxy the code. nil: it is taken. A reader has no
// clock, so what it says is wantReader.
func everywhere(t *testing.T, name string, d *device, p Period, point Point, b []byte, now time.Time, want, wantReader error, code wire.Code) {
	t.Helper()
	_, validate := Validate(now, point, b)
	if !errors.Is(validate, want) {
		t.Errorf("%s: Validate says %v, want %v", name, validate, want)
	}
	if err := (Validator{Now: func() time.Time { return now }}).Validate(DHTKey(point), b); !errors.Is(err, want) {
		t.Errorf("%s: the DHT says %v, want %v", name, err, want)
	}
	if _, err := Verify(point, b); !errors.Is(err, wantReader) {
		t.Errorf("%s: Verify says %v, want %v", name, err, wantReader)
	}
	if point == d.point(t, p) {
		if _, _, err := Open(d.public, d.secret, p, b); !errors.Is(err, wantReader) {
			t.Errorf("%s: a reader says %v, want %v", name, err, wantReader)
		}
	}
	if len(b) != RecordSize {
		return // no request holds it
	}
	request, err := Request{Point: point, Record: b}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := judge(now, request); got != code {
		t.Errorf("%s: the proxy says %v, want %v", name, got, code)
	}
}

// TestRecordAtExactNotAfter: a record counts up to the moment before its end, and from
// that moment on nobody stores it or passes it on. A reader goes by the period that it
// asked for.
func TestRecordAtExactNotAfter(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	point, b, end := d.point(t, p), d.seal(t, p, 3), p.NotAfter()
	everywhere(t, "a nanosecond before", d, p, point, b, end.Add(-1), nil, nil, 0)
	everywhere(t, "at its end", d, p, point, b, end, ErrNotAfter, nil, wire.CodeExpired)
	everywhere(t, "a nanosecond after", d, p, point, b, end.Add(1), ErrNotAfter, nil, wire.CodeExpired)
	everywhere(t, "78 h before", d, p, point, b, end.Add(-Ahead), nil, nil, 0)
	everywhere(t, "a nanosecond more", d, p, point, b, end.Add(-Ahead-1), ErrNotAfter, nil, wire.CodeExpired)
}

// TestNotAfterNotOnADay: an end that is not that of a day would tell devices apart. It
// is refused, signed by the owner as it may be.
func TestNotAfterNotOnADay(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	point, end := d.point(t, p), uint32(p.NotAfter().Unix())
	for _, off := range []int64{-1, 1, 60, 3600, -3600, 12 * 3600, day/2 + 1, day - 1} {
		b := d.signed(t, p, head(Version, uint32(int64(end)+off), 3))
		everywhere(t, time.Duration(off*int64(time.Second)).String(), d, p, point, b, epoch, ErrNotAfter, ErrNotAfter, wire.CodeExpired)
	}
	everywhere(t, "on a day", d, p, point, d.signed(t, p, head(Version, end, 3)), epoch, nil, nil, 0)
}

// TestWrongLength: one size, whatever is in front.
func TestWrongLength(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	point, b := d.point(t, p), d.seal(t, p, 3)
	for _, n := range []int{0, 1, headSize, RecordSize - 64, RecordSize - 1, RecordSize + 1, ProxySize, 2 * RecordSize, 4 << 20} {
		long := append(bytes.Clone(b), make([]byte, max(0, n-RecordSize))...)[:n]
		everywhere(t, "wrong length", d, p, point, long, epoch, ErrSize, ErrSize, wire.CodeMalformed)
		if i := Select([][]byte{long}); i >= 0 {
			t.Errorf("%d bytes were chosen", n)
		}
	}
}

// TestSmallOrderPoint: at a point of low order, or in a second spelling, anybody could
// sign. Nobody stores there, looks there, or computes one.
func TestSmallOrderPoint(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	b := d.seal(t, p, 3)
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"0100000000000000000000000000000000000000000000000000000000000080", // not canonical, as the rest
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		point := Point(mustHex(t, s))
		// The signature that fits every message at the neutral point: R neutral, S zero.
		free := append(bytes.Clone(b[:RecordSize-64]), append([]byte{1}, make([]byte, 63)...)...)
		everywhere(t, s, d, p, point, free, epoch, ErrPoint, ErrPoint, wire.CodeProof)
		var a Asker
		if _, err := a.Get(point); !errors.Is(err, ErrPoint) {
			t.Errorf("%s: asked for, %v", s, err)
		}
		request, err := Request{Point: point}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, code := judge(epoch, request); code != wire.CodeProof {
			t.Errorf("%s: the proxy looks for it: %v", s, code)
		}
		if _, err := PointOf(point, d.secret, p); !errors.Is(err, ErrPoint) {
			t.Errorf("%s as a rendezvous key: %v", s, err)
		}
	}
	// A key with a part of low order would have it at every point.
	torsion, err := new(edwards25519.Point).SetBytes(mustHex(t, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
	if err != nil {
		t.Fatal(err)
	}
	sound, err := new(edwards25519.Point).SetBytes(d.public[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PointOf([32]byte(sound.Add(sound, torsion).Bytes()), d.secret, p); !errors.Is(err, ErrPoint) {
		t.Errorf("a rendezvous key with a part of low order: %v", err)
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
