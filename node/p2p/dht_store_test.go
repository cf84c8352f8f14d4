package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/rv"
)

// sealed returns a record of device i.
func sealed(t testing.TB, i int, p rv.Period, seq uint64) (rv.Point, []byte) {
	t.Helper()
	key := identity.NewRendezvousKey([32]byte{1, byte(i), byte(i >> 8)})
	point, err := rv.PointOf(key.Public(), rv.Secret{}, p)
	if err != nil {
		t.Fatal(err)
	}
	b, err := rv.Seal(key, rv.Secret{}, p, seq, rv.Hint{}, rand.NewChaCha8([32]byte{byte(i), byte(seq)}))
	if err != nil {
		t.Fatal(err)
	}
	return point, b
}

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func keysIn(t testing.TB, d ds.Datastore) int {
	t.Helper()
	r, err := d.Query(context.Background(), query.Query{KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Rest()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestRecordsSurviveAndEnd: a record is there after a restart of the one server that
// stored it, gone for readers at the end of its time, and then gone from the disk.
func TestRecordsSurviveAndEnd(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	disk := dssync.MutexWrap(ds.NewMapDatastore())
	open := func() *records {
		r, err := newRecords(t.Context(), disk, "self", at.now)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	p := rv.PeriodAt(at.at)
	point, record := sealed(t, 1, p, 5)
	if err := r.add(t.Context(), point, record, own); err != nil {
		t.Fatal(err)
	}
	if err := disk.Put(t.Context(), ds.NewKey("/dht/x/y"), []byte("junk")); err != nil {
		t.Fatal(err)
	}
	r = open()
	if got := r.record(t.Context(), point); !bytes.Equal(got, record) || r.len() != 1 {
		t.Fatalf("after a restart: %d bytes, %d records, want the one", len(got), r.len())
	}
	if n := keysIn(t, disk); n != 1 {
		t.Errorf("%d keys, want 1: what is no record goes", n)
	}
	at.at = p.NotAfter().Add(-time.Second)
	if got := r.record(t.Context(), point); !bytes.Equal(got, record) {
		t.Error("gone before its time")
	}
	at.at = p.NotAfter()
	if got := r.record(t.Context(), point); got != nil {
		t.Error("served at the end of its time")
	}
	if err := r.expire(t.Context()); err != nil || keysIn(t, disk) != 0 || r.len() != 0 {
		t.Errorf("expire: %v, %d keys, %d records left", err, keysIn(t, disk), r.len())
	}
	// One that ended while the server was off goes at its start.
	at.at = p.Start()
	if err := r.add(t.Context(), point, record, own); err != nil {
		t.Fatal(err)
	}
	at.at = p.NotAfter().Add(time.Hour)
	if r = open(); r.len() != 0 || keysIn(t, disk) != 0 {
		t.Error("an ended record came back with the server")
	}
}

// TestTheBetterRecordStays, whichever comes first (threats.md H47), and what is no
// record does not get in (H46, H48).
func TestTheBetterRecordStays(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	r, err := newRecords(t.Context(), nil, "self", at.now)
	if err != nil {
		t.Fatal(err)
	}
	p := rv.PeriodAt(at.at)
	point, older := sealed(t, 1, p, 5)
	_, newer := sealed(t, 1, p, 9)
	for _, b := range [][]byte{older, newer, older} {
		if err := r.add(t.Context(), point, b, own); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.record(t.Context(), point); !bytes.Equal(got, newer) {
		t.Error("the older record won")
	}
	other, _ := sealed(t, 2, p, 5)
	forged := bytes.Clone(newer)
	forged[100] ^= 1
	for name, bad := range map[string][]byte{"forged": forged, "short": newer[1:], "long": make([]byte, 4<<20), "none": nil} {
		if err := r.add(t.Context(), point, bad, own); !errors.Is(err, errDHTStore) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := r.add(t.Context(), other, newer, own); !errors.Is(err, errDHTStore) {
		t.Errorf("a record at another point: got %v", err)
	}
	if err := r.Put(t.Context(), ds.NewKey("/pk"), []byte("x")); !errors.Is(err, errDHTStore) {
		t.Errorf("garbage: got %v", err)
	}
}

// TestRecordsAreBounded covers threats.md H54: a flood of valid records leaves no more
// than the bound, and those that lie nearest to this server.
func TestRecordsAreBounded(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	disk := dssync.MutexWrap(ds.NewMapDatastore())
	r, err := newRecords(t.Context(), disk, "self", at.now)
	if err != nil {
		t.Fatal(err)
	}
	r.max = 20
	refused := 0
	p := rv.PeriodAt(at.at)
	var nearest rv.Point
	far := [32]byte{255}
	for i := range 100 {
		point, b := sealed(t, i, p, 1)
		if d := distance(r.self, pointHash(point)); bytes.Compare(d[:], far[:]) < 0 {
			nearest, far = point, d
		}
		switch err := r.add(t.Context(), point, b, own); {
		case errors.Is(err, errDHTStore):
			refused++
		case err != nil:
			t.Fatal(err)
		}
	}
	if r.len() != 20 || keysIn(t, disk) != 20 || refused == 0 {
		t.Errorf("%d records, %d keys, %d refused", r.len(), keysIn(t, disk), refused)
	}
	if r.record(t.Context(), nearest) == nil {
		t.Error("the nearest record was dropped")
	}
	// The next day's make room of those that ended.
	at.at = p.NotAfter()
	point, b := sealed(t, 7, p+2, 1)
	if err := r.add(t.Context(), point, b, own); err != nil {
		t.Error(err)
	}
}

// TestPutSpamFromOneSource leaves room for others: one subnet fills the store with
// valid records that lie as near as it likes, and still all others find their room,
// keep it, and have their records changed.
func TestPutSpamFromOneSource(t *testing.T) {
	at := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	open := func(disk ds.Batching) *records {
		r, err := newRecords(t.Context(), disk, "self", at.now)
		if err != nil {
			t.Fatal(err)
		}
		r.max = 24
		return r
	}
	disk := dssync.MutexWrap(ds.NewMapDatastore())
	r := open(disk)
	p := rv.PeriodAt(at.at)
	spammer := sourceOf("x", ma.StringCast("/ip4/66.6.6.6/udp/1/quic-v1"))
	if again := sourceOf("y", ma.StringCast("/ip4/66.6.6.250/tcp/9")); again != spammer {
		t.Fatalf("two of one /24 are %q and %q", spammer, again)
	}
	spam := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			point, b := sealed(t, i, p, 1)
			if err := r.add(t.Context(), point, b, spammer); err != nil && !errors.Is(err, errDHTStore) {
				t.Fatal(err)
			}
		}
	}
	spam(1000, 1100)
	if r.len() != r.max || r.held[spammer] != r.max {
		t.Fatalf("%d records, %d of the spammer, want %d", r.len(), r.held[spammer], r.max)
	}
	// Four servers bring three records each.
	var points []rv.Point
	for i := range 12 {
		point, b := sealed(t, i, p, 1)
		from := sourceOf("z", ma.StringCast("/ip4/11.0."+string(rune('0'+i%4))+".1/udp/1/quic-v1"))
		if err := r.add(t.Context(), point, b, from); err != nil {
			t.Errorf("record %d found no room: %v", i, err)
		}
		points = append(points, point)
	}
	spam(1100, 1400)
	for i, point := range points {
		if r.record(t.Context(), point) == nil {
			t.Errorf("record %d was pushed out", i)
		}
	}
	_, newer := sealed(t, 0, p, 2)
	if err := r.add(t.Context(), points[0], newer, "11.0.0.0/24"); err != nil || !bytes.Equal(r.record(t.Context(), points[0]), newer) {
		t.Errorf("a newer record did not take the place of the older one: %v", err)
	}
	sum := 0
	for from, n := range r.held {
		sum += n
		if n <= 0 {
			t.Errorf("%q holds %d", from, n)
		}
	}
	if r.len() != r.max || keysIn(t, disk) != r.max || sum != r.max {
		t.Errorf("%d records, %d keys, %d counted, want %d", r.len(), keysIn(t, disk), sum, r.max)
	}
	// Who brought what is not on the disk; what lay there is one source like others.
	all, err := disk.Query(t.Context(), query.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for e := range all.Next() {
		if bytes.Contains(e.Value, []byte("66.6.6")) || bytes.Contains(e.Value, []byte("11.0.")) {
			t.Error("a subnet is on the disk")
		}
	}
	r = open(disk)
	if r.held[before] != r.max {
		t.Errorf("after a restart %d records are of before, want %d", r.held[before], r.max)
	}
	point, b := sealed(t, 77, p, 1)
	if err := r.add(t.Context(), point, b, "11.0.9.0/24"); err != nil {
		t.Errorf("no room after a restart: %v", err)
	}
}

func pointHash(p rv.Point) [32]byte { return sha256.Sum256([]byte(rv.DHTKey(p))) }
