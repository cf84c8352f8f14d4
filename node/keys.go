package node

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/node/store"
)

// Settings of the network in account.db.
const (
	settingTransport = "transport key"
	settingPorts     = "listen addresses"
)

// transport gives the main transport key, drawn at the first start, and the
// addresses of the last run.
func (n *Node) transport(ctx context.Context) (key crypto.PrivKey, prefer []multiaddr.Multiaddr, err error) {
	var raw, ports []byte
	err = n.read(ctx, func(v *view) error {
		if raw, err = v.tx.Setting(settingTransport); err != nil && !isNotFound(err) {
			return err
		}
		if ports, err = v.tx.Setting(settingPorts); err != nil && !isNotFound(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	prefer = readAddrs(ports)
	if len(raw) > 0 {
		if key, err = crypto.UnmarshalPrivateKey(raw); err != nil {
			return nil, nil, fmt.Errorf("transport key: %w", err)
		}
	}
	err = n.change(ctx, func(l *loop, tx *store.Tx) error {
		if l.acct.secret != [32]byte{} {
			return nil
		}
		var err error
		if l.acct.secret, err = drawSecret(tx, n.cfg.Random); err != nil {
			return err
		}
		if len(raw) == 0 { // it may run again, where another input of its batch failed
			if key, err = drawTransport(tx, n.cfg.Random, settingTransport); err != nil {
				return err
			}
		}
		l.wrote = true
		return l.acct.answerAs(key)
	})
	return key, prefer, err
}

// nextKey is a transport key for the main host, its number since the start, and how long
// the host waits for it.
type nextKey struct {
	key    crypto.PrivKey
	number uint64
	after  time.Duration
}

// rekey implements jobs.
func (e *edge) rekey(k nextKey) {
	select {
	case <-e.keys: // it was never used
	default:
	}
	e.keys <- k // the loop alone puts keys here, and has just made room
}

const (
	// rekeyAfter leaves time to tell those who are connected of the next key.
	rekeyAfter = 5 * time.Second
	// rekeyAgain is the wait where the main host could not be started again, as
	// when another program has taken its port.
	rekeyAgain = 10 * time.Second
)

// rekeyer gives the main host the keys that the loop draws, a moment later, until
// ctx ends. The LAN host gets another one too: they knew that as well.
func (e *edge) rekeyer(ctx context.Context) error {
	var due <-chan time.Time
	var next nextKey
	for {
		select {
		case next = <-e.keys:
			due = time.After(next.after)
		case <-due:
			due = nil
			err := e.n.net.Rekey(ctx, next.key)
			if err != nil && ctx.Err() == nil {
				e.n.cfg.Log.Error("the main host could not start with its new key; trying again", "error", err)
				due = time.After(rekeyAgain)
				continue
			}
			e.rotate()
			e.hand(change{apply: func(l *loop, _ *store.Tx) error { l.part(next.number); return nil }, reply: func(error) {}})
			e.AddrsChanged()
		case <-ctx.Done():
			return nil
		}
	}
}

// keepPorts notes the addresses of this run, to listen there again; not those that
// are about to be left, as they would tell whose the next key is.
func (n *Node) keepPorts(l *loop, tx *store.Tx) error {
	if l.hasKeys < l.keys {
		return nil
	}
	return tx.PutSetting(settingPorts, appendAddrs(nil, n.net.ListenAddrs()), false)
}

// rotator gives the LAN host another key at each midnight (UTC) and on each
// change of network, so that a neighbour cannot follow this device (network.md
// 10). The first report of addresses is that of the start.
func (e *edge) rotator(ctx context.Context) error {
	started := false
	for {
		now := e.n.cfg.Now().UTC()
		midnight := now.Truncate(24 * time.Hour).Add(24 * time.Hour)
		timer := time.NewTimer(midnight.Sub(now))
		select {
		case <-timer.C:
		case <-e.moved:
			timer.Stop()
			if !started {
				started = true
				continue
			}
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if err := e.n.net.RotateLAN(nil); err != nil && ctx.Err() == nil {
			e.n.cfg.Log.Warn("the LAN host got no new key", "error", err)
		}
	}
}
