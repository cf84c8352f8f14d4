package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kinloom/kinloom/identity"
)

// TestForbiddenWay: a cell that came by a way which its device may not come by is as
// unknown as one for somebody else, be it a start, its copy or a later one; nothing has
// changed then, and it opens where it may.
func TestForbiddenWay(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	meet(a, b)
	start(epoch0, a, b, true)
	for _, tc := range []struct {
		name     string
		from, to *side
	}{{"start", a, b}, {"start form again", a, b}, {"answer", b, a}, {"plain", a, b}} {
		cell := tc.from.say(epoch0, tc.to, tc.name)
		before := tc.to.m.snapshot()
		for _, hint := range []identity.DeviceID{{}, tc.from.dev()} {
			asked := identity.DeviceID{}
			o, err := tc.to.m.OpenIf(epoch0, cell, hint, func(id identity.DeviceID) bool {
				asked = id
				return false
			})
			if !errors.Is(err, ErrUnknown) || o.From != (identity.DeviceID{}) || asked != tc.from.dev() {
				t.Errorf("%s: opened from %s, %v, asked for %s", tc.name, o.From, err, asked)
			}
		}
		if !bytes.Equal(before, tc.to.m.snapshot()) {
			t.Errorf("%s: it has changed something", tc.name)
		}
		wantTexts(t, tc.name, texts(tc.to.open(epoch0, cell)), tc.name)
	}
}
