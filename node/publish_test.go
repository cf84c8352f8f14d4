package node

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/rv"
)

// TestPublishAfterAFailedCommit: a record that could not be noted down does not leave,
// and is due again a moment later; the period is not given up.
func TestPublishAfterAFailedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := alone(t, net, 0, "Ada"), alone(t, net, 1, "Bob")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		var p publication
		at(t, ada, bob, func(l *loop, _ *device) {
			p = publication{secret: rv.Secret(l.acct.secret), hint: l.hint(0)}
		})
		hash, err := p.hint.Hash()
		if err != nil {
			t.Fatal(err)
		}
		m := rv.NewMachine(ada.cfg.Random, nil)
		full := errors.New("the disk is full")
		if _, err := ada.FailCommits(ctx, Faults{Nth: 1, For: time.Second, Cause: full}); err != nil {
			t.Fatal(err)
		}
		if _, err := ada.edge.publishOne(ctx, m, p); !errors.Is(err, full) {
			t.Fatalf("with commits that fail: %v", err)
		}
		if _, err := ada.FailCommits(ctx, Faults{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rv.RetryFirst)
		job, _, err := m.Due(ada.edge.clock(), hash)
		if err != nil || job == nil || job.Period != rv.PeriodAt(ada.cfg.Now()) {
			t.Errorf("a minute later %+v is due, %v; want the record of today", job, err)
		}
		closed(t, ada, bob)
	})
}

// TestSecretIsKnownToWhomItWasReceipted: a device that never confirmed the word of the
// secret does not count as told because another one of its person did.
func TestSecretIsKnownToWhomItWasReceipted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.New(t, 1, testnet.Options{})
		ada, bob := alone(t, net, 0, "Ada"), alone(t, net, 1, "Bob")
		meet(t, ada, bob)
		time.Sleep(10 * time.Second)
		known := func(d device) (told bool) {
			t.Helper()
			if err := ada.change(t.Context(), func(l *loop, tx *store.Tx) (err error) {
				told, err = l.knowsSecret(tx, &d)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return told
		}
		var phone, laptop device
		at(t, ada, bob, func(_ *loop, d *device) {
			phone.Device, laptop.Device = d.Device, d.Device
			laptop.Row++ // Bob's too, and away when the phone was told
		})
		if !known(phone) || known(laptop) {
			t.Errorf("the device that was told knows it: %v; the one that was away: %v", known(phone), known(laptop))
		}
		closed(t, bob)
		if err := ada.change(t.Context(), func(l *loop, tx *store.Tx) error { return l.hide(tx) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if known(phone) {
			t.Error("a device that is away counts as told of the next secret")
		}
		closed(t, ada)
	})
}

// TestEachPersonGetsAPair: a contact with many devices, all heard of a moment ago, does
// not take the records of others: each person's device that was heard of last comes first.
func TestEachPersonGetsAPair(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	var all []*device
	add := func(person, n byte, seen time.Time) *device {
		d := &device{Device: store.Device{ID: identity.DeviceID{person, n}, Person: identity.PersonID{person}, Seen: seen}}
		all = append(all, d)
		return d
	}
	for i := range byte(2 * pairsMax) {
		add(1, i, at.Add(time.Duration(i)*time.Second))
	}
	late, early := add(2, 0, at.Add(-time.Hour)), add(2, 1, at.Add(-2*time.Hour))
	away := add(3, 0, at.Add(-24*time.Hour))
	last := all[2*pairsMax-1]
	got := choosePairs(slices.Clone(all))
	if len(got) != pairsMax || !slices.Equal(got[:3], []*device{last, late, away}) || slices.Contains(got, early) || got[3] != all[2*pairsMax-2] {
		t.Errorf("%d records, of %v", len(got), got)
	}
	if got := choosePairs([]*device{early, away, late}); !slices.Equal(got, []*device{late, away, early}) {
		t.Errorf("of a few: %v", got)
	}
}
