package testnet

import (
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestTwoDaysNeverMeet covers threats.md H139: no server that one looks up through sees
// the records of two days, neither of the publisher nor of the reader, as long as there
// are enough of them, nor over restarts of the publisher; and none sees a peer id twice.
func TestTwoDaysNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		all := servers(t, n, 14)
		disk := dssync.MutexWrap(ds.NewMapDatastore())
		pub := start(t, n, 14, knowing(p2p.Config{Profile: p2p.Client, Data: disk}, all[0]))
		fin := start(t, n, 15, knowing(p2p.Config{Profile: p2p.Client}, all[1]))
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
		for _, p := range []rv.Period{today, today - 1, today + 1} {
			point, err := rv.PointOf(d.key.Public(), d.secret, p)
			if err != nil {
				t.Fatal(err)
			}
			step("reader, day "+p.Start().Format(time.DateOnly), func() {
				if got, _, err := fin.find(t.Context(), point); err != nil || (got == nil) != (p < today) {
					t.Errorf("day %d: %d bytes, %v", p, len(got), err)
				}
			})
			time.Sleep(time.Minute)
		}
	})
}
