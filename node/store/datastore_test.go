package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

func TestDatastoreSurvives(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	n := s.Datastore()
	cell, hint := ds.NewKey("/mailbox/a/1"), ds.NewKey("/peers/addrs/x")
	for _, k := range []ds.Key{cell, hint} {
		if err := n.Put(t.Context(), k, []byte(k.String())); err != nil {
			t.Fatal(err)
		}
	}
	// A cell is on disk at once, a hint after Sync: look at a copy of the files.
	snapshot(t, dir, func(n *Datastore) {
		if ok, err := n.Has(t.Context(), cell); !ok || err != nil {
			t.Errorf("cell after a crash: %v, %v", ok, err)
		}
	})
	if err := n.Sync(t.Context(), ds.NewKey("/")); err != nil {
		t.Fatal(err)
	}
	snapshot(t, dir, func(n *Datastore) {
		for _, k := range []ds.Key{cell, hint} {
			if got, err := n.Get(t.Context(), k); string(got) != k.String() || err != nil {
				t.Errorf("%s after a crash: %q, %v", k, got, err)
			}
		}
	})
}

// snapshot opens a copy of a running home, as a crash would leave it.
func snapshot(t *testing.T, dir string, f func(*Datastore)) {
	t.Helper()
	to := t.TempDir()
	copyHome(t, dir, to)
	s := openTest(t, Options{Dir: to})
	f(s.Datastore())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDatastoreTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{})
		n := s.Datastore()
		for _, k := range []string{"/dht/a", "/mailbox/a"} {
			key := ds.NewKey(k)
			if err := n.PutWithTTL(t.Context(), key, []byte("v"), time.Hour); err != nil {
				t.Fatal(err)
			}
			time.Sleep(59 * time.Minute)
			if ok, err := n.Has(t.Context(), key); !ok || err != nil {
				t.Errorf("%s within its time: %v, %v", k, ok, err)
			}
			if at, err := n.GetExpiration(t.Context(), key); err != nil || time.Until(at) != time.Minute {
				t.Errorf("%s expires %v, %v, want in 1m", k, at, err)
			}
			if err := n.SetTTL(t.Context(), key, 2*time.Minute); err != nil {
				t.Error(err)
			}
			time.Sleep(90 * time.Second)
			if ok, _ := n.Has(t.Context(), key); !ok {
				t.Errorf("%s was not prolonged", k)
			}
			time.Sleep(time.Minute)
			if _, err := n.Get(t.Context(), key); !errors.Is(err, ds.ErrNotFound) {
				t.Errorf("%s after its time: %v", k, err)
			}
			if err := n.SetTTL(t.Context(), ds.NewKey(k+"none"), time.Hour); !errors.Is(err, ds.ErrNotFound) {
				t.Errorf("time to live of nothing: %v", err)
			}
		}
		r, err := n.Query(t.Context(), query.Query{})
		if err != nil {
			t.Fatal(err)
		}
		if rest, err := r.Rest(); len(rest) != 0 || err != nil {
			t.Errorf("expired entries in a query: %v, %v", rest, err)
		}
	})
}

func TestDatastoreQuota(t *testing.T) {
	quotas := [classes]int64{}
	for c := range quotas {
		quotas[c] = 10 * (1024 + rowCost + 32)
	}
	s := openTest(t, Options{Dir: t.TempDir(), quotas: quotas})
	n := s.Datastore()
	body := bytes.Repeat([]byte{1}, 1024)
	for _, prefix := range []string{"/mailbox", "/custody", "/dht", "/peers", "/other"} {
		var refused error
		kept := 0
		for i := range 20 {
			if err := n.Put(t.Context(), ds.NewKey(fmt.Sprintf("%s/%d", prefix, i)), body); err != nil {
				refused = err
				break
			}
			kept++
		}
		if !errors.Is(refused, ErrQuota) || kept != 10 {
			t.Errorf("%s: %d kept, then %v; want 10, then %v", prefix, kept, refused, ErrQuota)
		}
		// The same key again fits, and a deletion makes room.
		if err := n.Put(t.Context(), ds.NewKey(prefix+"/3"), body); err != nil {
			t.Errorf("%s: overwrite: %v", prefix, err)
		}
		if err := n.Delete(t.Context(), ds.NewKey(prefix+"/4")); err != nil {
			t.Error(err)
		}
		if err := n.Sync(t.Context(), ds.NewKey("/")); err != nil {
			t.Error(err)
		}
		if err := n.Put(t.Context(), ds.NewKey(prefix+"/new"), body); err != nil {
			t.Errorf("%s: after a deletion: %v", prefix, err)
		}
		// A batch that does not fit leaves nothing.
		b, err := n.Batch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Delete(t.Context(), ds.NewKey(prefix+"/5")), b.Put(t.Context(), ds.NewKey(prefix+"/b1"), body), b.Put(t.Context(), ds.NewKey(prefix+"/b2"), body)); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(t.Context()); !errors.Is(err, ErrQuota) {
			t.Errorf("%s: batch over the quota: %v", prefix, err)
		}
		if ok, _ := n.Has(t.Context(), ds.NewKey(prefix+"/5")); !ok {
			t.Errorf("%s: half a batch was kept", prefix)
		}
	}
	if err := n.Put(t.Context(), ds.NewKey("/dht/huge"), make([]byte, maxValue+1)); !errors.Is(err, ErrQuota) {
		t.Errorf("huge value: %v", err)
	}
}

func TestDatastoreQuotaMakesRoomOfExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{quotas: [classes]int64{ClassMailbox: 4096}})
		n := s.Datastore()
		for i := range 3 {
			if err := n.PutWithTTL(t.Context(), ds.NewKey(fmt.Sprintf("/mailbox/%d", i)), make([]byte, 1200), time.Second*time.Duration(10+i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Put(t.Context(), ds.NewKey("/mailbox/x"), make([]byte, 1200)); !errors.Is(err, ErrQuota) {
			t.Errorf("full: %v", err)
		}
		time.Sleep(11 * time.Second)
		if err := n.Put(t.Context(), ds.NewKey("/mailbox/x"), make([]byte, 1200)); err != nil {
			t.Errorf("after one expired: %v", err)
		}
	})
}

func TestDatastoreDamagedOrForeign(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(t *testing.T, path string)
	}{
		{"cut short", func(t *testing.T, path string) { check(t, os.Truncate(path, 5000)) }},
		{"empty", func(t *testing.T, path string) { check(t, os.Truncate(path, 0)) }},
		{"deleted", func(t *testing.T, path string) { check(t, os.Remove(path)) }},
		{"flipped", func(t *testing.T, path string) { flip(t, path, 4000) }},
		{"another home's", func(t *testing.T, path string) {
			other := t.TempDir()
			s := openTest(t, Options{Dir: other, Key: func(string) [32]byte { return [32]byte{9} }})
			check(t, s.Close())
			b, err := os.ReadFile(filepath.Join(other, NetFile))
			check(t, err)
			check(t, os.WriteFile(path, b, 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, Options{Dir: dir})
			check(t, s.Datastore().Put(t.Context(), ds.NewKey("/mailbox/1"), []byte("cell")))
			check(t, s.Close())
			c.break_(t, filepath.Join(dir, NetFile))
			var log bytes.Buffer
			s = openTest(t, Options{Dir: dir, Log: textLog(&log)})
			n := s.Datastore()
			if c.name != "deleted" && !bytes.Contains(log.Bytes(), []byte("set aside")) {
				t.Errorf("no warning in %q", &log)
			}
			check(t, n.Put(t.Context(), ds.NewKey("/mailbox/2"), []byte("cell")))
			if ok, err := n.Has(t.Context(), ds.NewKey("/mailbox/2")); !ok || err != nil {
				t.Errorf("new file does not work: %v, %v", ok, err)
			}
		})
	}
}
