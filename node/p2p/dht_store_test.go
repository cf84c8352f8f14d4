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
	if err := r.add(t.Context(), point, record); err != nil {
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
	if err := r.add(t.Context(), point, record); err != nil {
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
		if err := r.add(t.Context(), point, b); err != nil {
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
		if err := r.add(t.Context(), point, bad); !errors.Is(err, errDHTStore) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := r.add(t.Context(), other, newer); !errors.Is(err, errDHTStore) {
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
		switch err := r.add(t.Context(), point, b); {
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
	if err := r.add(t.Context(), point, b); err != nil {
		t.Error(err)
	}
}

func pointHash(p rv.Point) [32]byte { return sha256.Sum256([]byte(rv.DHTKey(p))) }
