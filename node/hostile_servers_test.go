package node_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/rv"
)

// lookupLiar is a look-up server that keeps the first record of each point that it is
// given, and answers with that, with none, with another point's, or not at all.
type lookupLiar struct {
	how string

	mu    sync.Mutex // guards all below
	first map[rv.Point][]byte
	asked int
}

// PutRecord implements [rv.ProxyHost].
func (l *lookupLiar) PutRecord(_ context.Context, point rv.Point, record []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.first[point] == nil {
		l.first[point] = record
	}
	return nil
}

// GetRecord implements [rv.ProxyHost].
func (l *lookupLiar) GetRecord(ctx context.Context, point rv.Point) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	switch l.how {
	case "old":
		return l.first[point], nil
	case "another's":
		for other, record := range l.first {
			if other != point {
				return record, nil
			}
		}
	case "nothing, for long":
		l.mu.Unlock()
		<-ctx.Done()
		l.mu.Lock()
	}
	return nil, nil
}

// TestHostileServersKeepNobodyApart: every look-up server that is known lies. Contacts
// whose addresses of before are still good are all reached, by who has moved too.
func TestHostileServersKeepNobodyApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
		defer cancel()
		net := testnet.New(t, 1, testnet.Options{})
		var known []string
		var liars []*lookupLiar
		for i, how := range []string{"old", "none", "another's", "nothing, for long"} {
			h, err := bare(net.Host(20 + i))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			l := &lookupLiar{how: how, first: map[rv.Point][]byte{}}
			h.SetStreamHandler(rv.ProxyID, func(s network.Stream) {
				if err := rv.ServeProxy(ctx, s, l, time.Now); err != nil {
					_ = s.Reset()
				}
			})
			liars, known = append(liars, l), append(known, fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID()))
		}
		open := func(machine int, dir, name string) *node.Node {
			n, err := node.Open(ctx, node.Config{Dir: dir, Name: name, NoLAN: true, Bootstrap: known, Network: net.Host(machine).Configure})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		const contacts = 5
		name := func(i int) string { return fmt.Sprint("Contact ", i) }
		home := t.TempDir()
		ada, homes, there := open(0, home, "Ada"), [contacts]string{}, [contacts]*node.Node{}
		for i := range contacts {
			homes[i] = t.TempDir()
			there[i] = open(1+i, homes[i], name(i))
			befriend(ctx, t, ada, there[i])
		}
		time.Sleep(10 * time.Minute)
		closeAll(t, append(there[:], ada)...)
		time.Sleep(8 * time.Hour)
		for i := range contacts {
			there[i] = open(1+i, homes[i], "")
		}
		ada = open(10, home, "")
		for i := range contacts {
			if took := talking(ctx, t, ada, there[i], "Ada", name(i)); took > 30*time.Second {
				t.Errorf("%s is reached after %s, want at most 30 s", name(i), took)
			}
		}
		closeAll(t, append(there[:], ada)...)
		for _, l := range liars {
			l.mu.Lock()
			if l.asked == 0 {
				t.Errorf("the server that answers with %s was never asked: the test proves nothing", l.how)
			}
			l.mu.Unlock()
		}
	})
}
