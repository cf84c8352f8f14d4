package session

import (
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// Prepare seals the control that the session in use with a device owes: the
// receipt inside Olm, and the keys for the next session. Called before Dirty, it
// puts them into the same commit as what they tell about, so that a Pack after
// that commit seals nothing new. It reports whether there was anything.
func (m *Machine) Prepare(now time.Time, dev identity.DeviceID) (bool, error) {
	p := m.peers[dev]
	if p == nil {
		return false, nil
	}
	s := p.current()
	if s == nil {
		return false, nil
	}
	before := s.Sent
	if err := m.dueControl(now, s); err != nil {
		return false, fmt.Errorf("prepare: %w", err)
	}
	return s.Sent != before, nil
}

// Abandon closes a session that the peer says it has lost: nothing is sealed or
// opened in it any more. It reports whether there was such a session in use.
// What it held unacknowledged is the caller's to seal anew.
func (m *Machine) Abandon(now time.Time, dev identity.DeviceID, session ID) bool {
	s := m.sessions[session]
	if s == nil || s.Peer != dev || s.Closed {
		return false
	}
	s.Closed, s.LeftAt = true, max(1, now.Unix())
	m.touch(s)
	m.note(s)
	return true
}
