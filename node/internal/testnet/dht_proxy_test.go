package testnet

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestTwoDaysNeverMeet covers threats.md H139: no server that one looks up through sees
// the records of two days, neither of the publisher nor of the reader, as long as there
// are enough of them, nor over restarts of either; and none sees a peer id twice. Where
// there are not enough, nobody is asked, and that is said.
func TestTwoDaysNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		all := servers(t, n, 14)
		disk := dssync.MutexWrap(ds.NewMapDatastore())
		pub := start(t, n, 14, knowing(p2p.Config{Profile: p2p.Client, Data: disk}, all[0]))
		notes := dssync.MutexWrap(ds.NewMapDatastore())
		fin := start(t, n, 15, knowing(p2p.Config{Profile: p2p.Client, Data: notes}, all[1]))
		time.Sleep(time.Minute)
		served := func() (out []int64) {
			for _, u := range all {
				out = append(out, u.Stats(rv.ProxyID).Served)
			}
			return out
		}
		seen := make([]string, len(all))
		step := func(who string, f func()) {
			before := served()
			f()
			for i, now := range served() {
				if now == before[i] {
					continue
				}
				if seen[i] != "" && seen[i] != who {
					t.Errorf("server %d served %s and %s", i, seen[i], who)
				}
				seen[i] = who
			}
		}
		d, today := newDevice(1), rv.PeriodAt(time.Now())
		publish := func(p rv.Period, devices int) {
			for i := range devices {
				point, record := newDevice(1+i).record(t, p, 1)
				step("publisher, day "+p.Start().Format(time.DateOnly), func() {
					if err := pub.PublishRecord(t.Context(), point, record); err != nil {
						t.Error(err)
					}
				})
			}
		}
		publish(today, 3)
		// As a laptop does that is off by night.
		pub.stop()
		pub = start(t, n, 14, knowing(p2p.Config{Profile: p2p.Client, Data: disk}, all[0]))
		time.Sleep(10 * time.Second)
		publish(today+1, 2)
		clear(seen)
		var not []peer.ID
		look := func(p rv.Period) error {
			point, err := rv.PointOf(d.key.Public(), d.secret, p)
			if err != nil {
				t.Fatal(err)
			}
			step("reader, day "+p.Start().Format(time.DateOnly), func() {
				var asked []peer.ID
				got := 0
				asked, err = fin.FindRecord(t.Context(), p2p.Point{ID: point, Period: p, Not: not}, func(b []byte, _ time.Time) { got += len(b) })
				if err == nil && (got == 0) != (p < today) {
					t.Errorf("day %d: %d bytes", p, got)
				}
				not = append(not, asked...)
			})
			time.Sleep(time.Minute)
			return err
		}
		for _, p := range []rv.Period{today, today - 1} {
			if err := look(p); err != nil {
				t.Error(p, err)
			}
		}
		fin.stop()
		fin, not = start(t, n, 15, knowing(p2p.Config{Profile: p2p.Client, Data: notes}, all[1])), nil
		time.Sleep(time.Minute)
		if err := look(today + 1); err != nil {
			t.Error(err)
		}
		for _, u := range all {
			not = append(not, u.id)
		}
		if err := look(today - 1); !errors.Is(err, p2p.ErrNoProxy) {
			t.Errorf("every server has seen another day: %v, want ErrNoProxy", err)
		}
	})
}
