package testnet

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestClonedDeviceWritesTwice: a device that was copied publishes two records with one
// seq in one minute, through different servers and at the same moment. Whoever asks
// whomever finds the same one.
func TestClonedDeviceWritesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, 1, Options{})
		all := servers(t, n, 4)
		var clones []*up
		for i := range 2 {
			clones = append(clones, start(t, n, 4+i, knowing(p2p.Config{Profile: p2p.Client}, all[i])))
		}
		fin := start(t, n, 6, knowing(p2p.Config{Profile: p2p.Client}, all[3]))
		time.Sleep(time.Minute)
		for i := range 3 {
			d := newDevice(i)
			point, one := d.now(t, 30)
			two, err := rv.Seal(d.key, d.secret, rv.PeriodAt(time.Now()), 30, rv.Hint{Head: identity.Head{7}}, rand.NewChaCha8([32]byte{99}))
			if err != nil {
				t.Fatal(err)
			}
			want := one
			if a, b := sha256.Sum256(one), sha256.Sum256(two); bytes.Compare(b[:], a[:]) < 0 {
				want = two
			}
			var wg sync.WaitGroup
			for k, record := range [][]byte{one, two} {
				wg.Go(func() {
					if err := clones[k].PublishRecord(t.Context(), point, record); err != nil {
						t.Errorf("clone %d: %v", k, err)
					}
				})
			}
			wg.Wait()
			for k, u := range []*up{fin, clones[0], all[3]} {
				if got, _, err := u.find(t.Context(), point); err != nil || !bytes.Equal(got, want) {
					t.Errorf("device %d, finder %d: %d bytes, %v; want the record with the lower hash", i, k, len(got), err)
				}
			}
		}
	})
}

// TestFewerThanFourPublicPeers: with one, two or three servers in the whole network, too
// few to tell a home its address, two homes whose routers let nothing in hold a relay,
// find each other by record, and talk.
func TestFewerThanFourPublicPeers(t *testing.T) {
	for count := 1; count < 4; count++ {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(t, 1, Options{})
				all := servers(t, n, count)
				a, w := walled(t, n, 10, knowing(p2p.Config{}, all[0]), all...)
				b, v := walled(t, n, 11, knowing(p2p.Config{}, all[count-1]), all...)
				for who, f := range map[*up]*follower{a: w, b: v} {
					took := f.until(t, who, "a relay", 2*time.Minute, func(r p2p.Reachability) bool { return len(r.Relays) > 0 && r.Internet() })
					t.Logf("a relay is held after %v", took)
				}
				point, record := newDevice(1).now(t, 1)
				if err := b.PublishRecord(t.Context(), point, record); err != nil {
					t.Fatal(err)
				}
				if got, _, err := a.find(t.Context(), point); err != nil || !bytes.Equal(got, record) {
					t.Errorf("found %d bytes, %v", len(got), err)
				}
				best, ok := b.BestAddr(p2p.Internet)
				if !ok {
					t.Fatal("no address that others could dial")
				}
				if path, err := over(t.Context(), a, b, []ma.Multiaddr{best}, "hello"); err != nil {
					t.Errorf("no way to the other home: %+v, %v", path, err)
				}
			})
		})
	}
}
