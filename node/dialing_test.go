package node

import (
	"testing"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
)

// TestBlockedWhileDialled: a device whose person is blocked while it is dialled can be dialled again later.
func TestBlockedWhileDialled(t *testing.T) {
	p := identity.PersonID{1}
	l := &loop{acct: &account{contacts: map[identity.PersonID]*store.Contact{p: {Person: p, Trust: store.Blocked}}}}
	d := &device{Device: store.Device{Person: p}}
	d.queue.dialing = true
	if err := l.attach(nil, &link{}, d); err != nil {
		t.Fatal(err)
	}
	if d.queue.link != nil || len(l.after) != 1 {
		t.Errorf("the link is taken: %v, %d effects", d.queue.link, len(l.after))
	}
	if d.queue.dialing {
		t.Error("the dial that ended still counts: this device is never dialled again")
	}
}
