package rv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// signed is a record with any head, sealed and signed as by its owner.
func (d *device) signed(tb testing.TB, p Period, head []byte) []byte {
	tb.Helper()
	b := d.seal(tb, p, 0)
	copy(b, head)
	k, err := d.key.Blind(factor(material(d.public, d.secret, p)))
	if err != nil {
		tb.Fatal(err)
	}
	return append(b[:headSize+sealedSize:headSize+sealedSize], k.Sign(signInput(k.Public(), b[:headSize+sealedSize]))...)
}

func head(version byte, notAfter uint32, seq uint64) []byte {
	b := binary.BigEndian.AppendUint32([]byte{version}, notAfter)
	return binary.BigEndian.AppendUint64(b, seq)
}

// TestTenThousand is H46 to H49, H51 and H52: of 10,000 records that are
// forged, changed, cut, swollen, old, put at the wrong point or signed by their
// own owner against the rules, a reader takes none, and a node that stores none
// but those which only a reader can know to be old.
func TestTenThousand(t *testing.T) {
	d, now := newDevice(1), epoch
	p := PeriodAt(now)
	point := d.point(t, p)
	sound, newest := d.seal(t, p, 700), d.seal(t, p, 719)
	stamp, err := Validate(now, point, newest)
	if err != nil {
		t.Fatal(err)
	}
	seen := Seen{}.Add(now, stamp)
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(newest)
		copy(b[at:], to)
		return b
	}
	end := uint32(p.NotAfter().Unix())
	others := make([]*device, 20)
	for i := range others {
		others[i] = newDevice(byte(i + 2))
	}
	identityPoint := append([]byte{1}, make([]byte, 31)...)
	type kind struct {
		name  string
		n     int
		point func(i int) Point // nil: the one that was asked for
		make  func(i int) []byte
		old   bool // sound, and known to be old by a reader alone
	}
	kinds := []kind{
		{name: "one bit changed", n: 4000, make: func(i int) []byte { at := i * 2 % (8 * RecordSize); return change(at/8, newest[at/8]^1<<(at%8)) }},
		{name: "cut", n: 500, make: func(i int) []byte { return newest[:2*i] }},
		{name: "swollen", n: 490, make: func(i int) []byte { return append(bytes.Clone(newest), noise(i+1)...) }},
		{name: "4 MiB", n: 10, make: func(int) []byte { return append(bytes.Clone(newest), make([]byte, 4<<20)...) }},
		{name: "noise", n: 1000, make: func(int) []byte { return noise(RecordSize) }},
		{name: "noise behind a sound head", n: 500, make: func(int) []byte { return append(bytes.Clone(newest[:headSize]), noise(RecordSize-headSize)...) }},
		{name: "half of one, half of another", n: 700, make: func(i int) []byte { at := 13 + i; return append(bytes.Clone(sound[:at]), newest[at:]...) }},
		{name: "of another device", n: 400, make: func(i int) []byte { return others[i%20].seal(t, p, uint64(i)) }},
		{name: "of another day, at this point", n: 400, make: func(i int) []byte { return d.seal(t, p-1+Period(i%2*2), uint64(i)) }},
		{name: "of another secret, at this point", n: 300, make: func(i int) []byte {
			o := device{d.key, d.public, Secret{byte(i), byte(i >> 8), 1}, d.random}
			return o.seal(t, p, 719)
		}},
		{name: "past", n: 300, make: func(i int) []byte { return d.seal(t, p-2-Period(i%40), 1439) }, point: func(i int) Point { return d.point(t, p-2-Period(i%40)) }},
		{name: "too far ahead", n: 200, make: func(i int) []byte { return d.seal(t, p+3+Period(i%40), 0) }, point: func(i int) Point { return d.point(t, p+3+Period(i%40)) }},
		{name: "not on a day, signed", n: 200, make: func(i int) []byte { return d.signed(t, p, head(1, end+uint32(i)*431+1, 719)) }},
		{name: "another day, signed", n: 100, make: func(i int) []byte { return d.signed(t, p, head(1, end+uint32(i%20+2)*day, 719)) }},
		{name: "seq too high, signed", n: 200, make: func(i int) []byte { return d.signed(t, p, head(1, end, MaxSeq+1<<(i%60))) }},
		{name: "another version, signed", n: 100, make: func(i int) []byte { return d.signed(t, p, head(byte(i+2), end, 719)) }},
		{name: "a point that any signature fits", n: 100, make: func(i int) []byte {
			return slices.Concat(newest[:RecordSize-64], identityPoint, make([]byte, 32))
		}, point: func(i int) Point { return []Point{{1}, {}, Point(append(bytes.Repeat([]byte{0xff}, 31), 0x7f))}[i%3] }},
		{name: "sound, but a lower seq", n: 500, old: true, make: func(i int) []byte { return d.seal(t, p, uint64(i)) }},
	}
	total, accepted, step := 0, 0, 1
	if testing.Short() { // beside the race detector
		step = 20
	}
	for _, k := range kinds {
		for i := 0; i < k.n; i += step {
			b, at := k.make(i), point
			if k.point != nil {
				at = k.point(i)
			}
			total++
			err := (Validator{Now: func() time.Time { return now }}).Validate(DHTKey(at), b)
			if (err == nil) != k.old {
				t.Errorf("%s %d: a node says %v", k.name, i, err)
			}
			for _, q := range Periods(Clock{Now: now}) {
				_, stamp, err := Open(d.public, d.secret, q, b)
				if err == nil && seen.Check(stamp) == nil && q == p {
					accepted++
					t.Errorf("%s %d: accepted", k.name, i)
				}
			}
		}
	}
	t.Logf("%d of %d forged or stale records accepted", accepted, total)
	if total != 10000 && step == 1 {
		t.Errorf("%d records, want 10,000", total)
	}
	if _, stamp, err := Open(d.public, d.secret, p, newest); err != nil || seen.Check(stamp) != nil {
		t.Errorf("the sound one is refused too: %v", err)
	}
}

// TestOrderOfChecks is H48: nothing dear is done for a record that a cheap
// look refuses.
func TestOrderOfChecks(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	b := d.seal(t, p, 1)
	bad := bytes.Clone(b)
	bad[RecordSize-1] ^= 1
	for name, c := range map[string]struct {
		point Point
		b     []byte
		want  error
	}{
		"oversize, everything wrong":   {Point{1}, make([]byte, 4<<20), ErrSize},
		"wrong version, point, sig":    {Point{1}, change(bad, 0, 9), ErrVersion},
		"wrong time, point, sig":       {Point{1}, change(bad, 4, 1), ErrNotAfter},
		"wrong seq, point, sig":        {Point{1}, change(bad, 5, 1), ErrSeq},
		"wrong point, wrong signature": {Point{1}, bad, ErrPoint},
		"wrong signature":              {d.point(t, p), bad, ErrSignature},
	} {
		if _, err := Validate(epoch, c.point, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func change(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

// TestEdgesOfTime is H49, to the nanosecond.
func TestEdgesOfTime(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	b, point, end := d.seal(t, p, 0), d.point(t, p), p.NotAfter()
	for _, c := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"its last nanosecond", end.Add(-1), nil},
		{"its end", end, ErrNotAfter},
		{"the 78th hour before", end.Add(-Ahead), nil},
		{"a nanosecond before that", end.Add(-Ahead - 1), ErrNotAfter},
		{"its first second", p.Start(), nil},
		{"three hours before its day", p.Start().Add(-Early), nil},
		{"by a clock that is 26 h slow too", p.Start().Add(-Early - 26*time.Hour), nil},
		{"in 1970", time.Unix(0, 0), ErrNotAfter},
		{"in 3000", time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC), ErrNotAfter},
	} {
		if _, err := Validate(c.now, point, b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		at   time.Time
		want Period
	}{
		{p.Start(), p}, {p.Start().Add(-1), p - 1}, {(p + 1).Start().Add(-1), p}, {(p + 1).Start(), p + 1},
	} {
		if got := PeriodAt(c.at); got != c.want {
			t.Errorf("PeriodAt(%v) = %d, want %d", c.at, got, c.want)
		}
	}
}

// TestRemoved is H59: who knows the key and the old secret neither finds nor
// opens what comes under the new one, and can put nothing in its place.
func TestRemoved(t *testing.T) {
	d := newDevice(1)
	old := d.secret
	d.secret = Secret{'n', 'e', 'w'}
	stored := map[Point][]byte{}
	first := PeriodAt(epoch)
	for p := first; p < first+7; p++ {
		stored[d.point(t, p)] = d.seal(t, p, 1)
	}
	for p := first - 2; p < first+9; p++ {
		for name, s := range map[string]Secret{"old": old, "open": {}} {
			at, err := PointOf(d.public, s, p)
			if err != nil {
				t.Fatal(err)
			}
			if stored[at] != nil {
				t.Errorf("the %s secret leads to the record of period %d", name, p)
			}
			for _, b := range stored {
				if _, _, err := Open(d.public, s, p, b); err == nil {
					t.Errorf("the %s secret opens a record", name)
				}
			}
		}
	}
	mallory := device{identity.NewRendezvousKey([32]byte{'m'}), d.public, d.secret, random(9)}
	forged := mallory.seal(t, first, 2880)
	if _, err := Validate(epoch, d.point(t, first), forged); !errors.Is(err, ErrSignature) {
		t.Errorf("a record by somebody who knows everything but the private key: %v", err)
	}
}

// TestTwoWritersInOneMinute: a device that was copied writes two records in one minute; all
// choose the same one, whatever order they come in.
func TestTwoWritersInOneMinute(t *testing.T) {
	d, p := newDevice(1), PeriodAt(epoch)
	all := [][]byte{d.seal(t, p, 720), d.seal(t, p, 720), d.seal(t, p, 719), nil, make([]byte, 5), d.seal(t, p, 720)}
	want := all[Select(all)]
	v := Validator{Now: func() time.Time { return epoch }}
	for range 50 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		i, err := v.Select(DHTKey(d.point(t, p)), all)
		if err != nil || !bytes.Equal(all[i], want) {
			t.Fatalf("another choice: %d, %v", i, err)
		}
	}
	if _, err := v.Select("", [][]byte{nil, {1}}); !errors.Is(err, ErrSize) {
		t.Errorf("nothing to choose from: %v", err)
	}
	if i := Select(nil); i != -1 {
		t.Errorf("Select(nil) = %d", i)
	}
}
