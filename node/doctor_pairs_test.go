package node_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
)

// injected is a fault with what the collectors cannot see any more while it is there.
type injected struct {
	fault
	// blinds takes away what cannot be seen, whatever else is wrong.
	blinds func(*node.Checkup)
	// hides are the faults that are then not to be told apart from none.
	hides []string
}

// What others outside tell, and what only the node or its opened home tells.
var (
	outside = []string{"UDP blocked", "symmetric NAT without relay", "relay refused", "hostile DHT answers", "clock off"}
	inside  = append([]string{"no bootstrap"}, outside...)
)

func blindOutside(c *node.Checkup) {
	c.Clock.Voices, c.Clock.Offset = 0, 0
	if c.Net != nil {
		*c.Net = node.NetFacts{QUIC: true, Known: c.Net.Known}
	}
}

// blindHeld: the process that has the home open cannot be asked. The command looks at
// the folder, the lock, the socket, the clock, the machine and the ports that it is told.
func blindHeld(c *node.Checkup) {
	blindOutside(c)
	c.Store, c.Account, c.Net = nil, nil, nil
}

// blindShut: no node runs, and the home cannot be opened; what is wrong with the
// databases is known.
func blindShut(c *node.Checkup) {
	blindOutside(c)
	c.Account, c.Net = nil, nil
	if c.Holder.Answers { // else another process has it
		*c.Holder, c.Socket.Exists, c.Socket.Mode = node.HolderFacts{}, false, 0
	}
}

func damage(c *node.Checkup) {
	if c.Store != nil {
		c.Store.Problem, c.Store.Next = "account.db in /home/ada/kinloom is damaged", "Put back your own backup."
	}
}

// issueFaults are those that the doctor has to tell apart, alone and any two of them at
// once. Those of one name are one fault, as a running node and as the command sees it.
var issueFaults = []injected{
	{fault{"no network", func(c *node.Checkup) { c.Machine = &node.MachineFacts{} }, "network", node.Fail, "connected to no network", "Connect"}, blindOutside, outside},
	{
		fault{"UDP blocked", func(c *node.Checkup) { c.Net.UDP, c.Net.TCP, c.Net.Skipped = 0, 5, 4 }, "udp", node.Warn, "UDP is blocked", "Allow outgoing UDP"},
		func(c *node.Checkup) { // the mapping of UDP ports is not seen
			if c.Net != nil {
				c.Net.Symmetric = false
			}
		},
		[]string{"symmetric NAT without relay"},
	},
	{fault{"port taken", func(c *node.Checkup) {
		c.Ports = &node.PortFacts{Asked: []string{"/ip4/0.0.0.0/udp/443/quic-v1", "/ip4/0.0.0.0/tcp/443"}}
		c.Ports.Taken = c.Ports.Asked[1:]
	}, "ports", node.Fail, "another program has /ip4/0.0.0.0/tcp/443", "--listen"}, nil, nil},
	{
		fault{"clock off", func(c *node.Checkup) { c.Clock.Offset = -26 * time.Hour }, "clock", node.Fail, "26 hours behind", "Set the clock"},
		func(c *node.Checkup) { // QUIC refuses it, so its ports are not seen either
			if c.Net != nil && c.Net.UDP+c.Net.TCP > 0 {
				c.Net.UDP, c.Net.TCP, c.Net.Skipped, c.Net.Symmetric = 0, 5, 4, false
			}
		},
		[]string{"UDP blocked", "symmetric NAT without relay"},
	},
	{fault{"disk full", func(c *node.Checkup) { c.Home.Free = 4096 }, "disk", node.Fail, "is full", "Free some space"}, nil, nil},
	{fault{"disk full", func(c *node.Checkup) { c.Home.Free = 4096 }, "disk", node.Fail, "is full", "Free some space"}, func(c *node.Checkup) {
		blindShut(c)
		if c.Store != nil {
			c.Store.Full = true
		}
	}, inside},
	{fault{"no bootstrap", func(c *node.Checkup) { c.Net.Known, c.Net.Servers = 0, 0 }, "bootstrap", node.Warn, "no node is known", "kinloom bootstrap add"}, func(c *node.Checkup) {
		c.Clock.Voices, c.Clock.Offset = 0, 0 // servers tell the time; of the rest, contacts do
	}, []string{"clock off"}},
	{fault{"no bootstrap", func(c *node.Checkup) { c.Net.Known, c.Net.Servers = 0, 0 }, "bootstrap", node.Warn, "no node is known", "kinloom bootstrap add"}, blindOutside, outside},
	{fault{"symmetric NAT without relay", func(c *node.Checkup) { unreachable(c); c.Net.Symmetric = true }, "reach", node.Warn, "symmetric NAT", "A relay is needed"}, nil, nil},
	{fault{"relay refused", func(c *node.Checkup) { unreachable(c); c.Net.Asked, c.Net.Refused = 3, 3 }, "relay", node.Warn, "3 of 3 relays that were asked refused", "ask a contact"}, nil, nil},
	{fault{"hostile DHT answers", func(c *node.Checkup) { c.Net.False = 7 }, "dht", node.Warn, "7 of 12 answers to look-ups were false", "Nothing false was taken"}, nil, nil},
	{fault{"store damaged", damage, "store", node.Fail, "account.db in /home/ada/kinloom is damaged", "backup"}, nil, nil},
	{fault{"store damaged", damage, "store", node.Fail, "account.db in /home/ada/kinloom is damaged", "backup"}, blindShut, inside},
	{fault{"socket rights", func(c *node.Checkup) {
		c.Holder.Answers, c.Socket.Silent, c.Socket.Denied, c.Socket.Mode = false, true, true, 0o400
	}, "socket", node.Fail, "may not be used by you (its rights are 400)", "chmod 600 /run/ada/api.sock"}, blindHeld, append([]string{"store damaged"}, inside...)},
	{fault{"second node", func(c *node.Checkup) { c.Holder.Answers, c.Socket.Silent = false, true }, "node", node.Fail, "process 4711 has this home open", ""}, blindHeld, append([]string{"store damaged"}, inside...)},
}

// isHidden says what is missing of the line of a fault that another one hides: it says
// that there was nothing to see, and where to begin.
func (f injected) isHidden(by injected, found []node.Finding) error {
	for _, line := range found {
		if line.Check != f.check {
			continue
		}
		says, fix := "not looked at, as ", "line on "+by.check
		switch {
		case f.check == "clock":
			says, fix = "could not be compared, as nobody was asked", "another clock"
		case f.check == "reach" && by.name == "no bootstrap":
			says, fix = "nobody outside has tried to reach this node, as none is known", "kinloom bootstrap add"
		case f.check == "reach" && (by.name == "UDP blocked" || by.name == "clock off"):
			says, fix = "nobody outside can reach this node", "hold a relay" // the same remedy
		}
		if line.Verdict != node.Warn || !strings.Contains(line.Found, says) || !strings.Contains(line.Fix, fix) {
			return fmt.Errorf("%s, hidden by %s, is told as %+v; want %q and %q", f.name, by.name, line, says, fix)
		}
		return nil
	}
	return fmt.Errorf("%s: there is no line %q", f.name, f.check)
}

// seen is what the collectors find of faults.
func seen(faults ...injected) []node.Finding {
	c := healthy()
	for _, f := range faults {
		f.happen(&c)
	}
	for _, f := range faults {
		if f.blinds != nil {
			f.blinds(&c)
		}
	}
	if c.Net == nil && len(c.Ports.Asked) == 0 {
		c.Ports = nil // nobody asked about any, and no node listens
	}
	return c.Findings()
}

// TestDoctorNamesAFault alone, and blames nothing else: there is a line for each
// check, and what is not looked at names the fault.
func TestDoctorNamesAFault(t *testing.T) {
	for _, f := range issueFaults {
		found := seen(f)
		wellFormed(t, f.name, found)
		if err := f.named(found); err != nil {
			t.Error(err)
		}
		if len(found) != len(node.Checks) {
			t.Errorf("%s: %d lines for %d checks", f.name, len(found), len(node.Checks))
		}
		for _, line := range found {
			follows := f.name == "relay refused" && line.Check == "reach" || line.Check == "clock" && strings.Contains(line.Found, "nobody was asked") ||
				f.name == "no bootstrap" && line.Check == "reach" || line.Check == "node" && strings.Contains(line.Found, "no node is running") ||
				f.name == "second node" && line.Check == "socket" || f.name == "socket rights" && line.Check == "node"
			hidden := strings.HasPrefix(line.Found, "not looked at, as ") && strings.Contains(line.Fix, "line on "+f.check)
			if line.Verdict != node.OK && line.Check != f.check && !follows && !hidden {
				t.Errorf("%s: %+v", f.name, line)
			}
		}
	}
}

// TestDoctorNamesAnyTwoFaults: each of two is named, unless one keeps the other from
// being seen: then that one is named, and the line of the other says so.
func TestDoctorNamesAnyTwoFaults(t *testing.T) {
	pairs := map[[2]string]bool{}
	for i, a := range issueFaults {
		for _, b := range issueFaults[i+1:] {
			if a.name == b.name {
				continue
			}
			pairs[[2]string{a.name, b.name}] = true
			for _, order := range [][]injected{{a, b}, {b, a}} {
				found := seen(order...)
				wellFormed(t, a.name+" and "+b.name, found)
				told := func(f, other injected) error {
					if slices.Contains(other.hides, f.name) {
						return f.isHidden(other, found)
					}
					return f.named(found)
				}
				if err := errors.Join(told(a, b), told(b, a)); err != nil {
					t.Errorf("%s and %s: %v", a.name, b.name, err)
				}
				if slices.Contains(a.hides, b.name) && slices.Contains(b.hides, a.name) {
					t.Errorf("%s and %s hide each other", a.name, b.name)
				}
			}
		}
	}
	if len(pairs) != 66 {
		t.Errorf("%d pairs of 12 faults, want 66", len(pairs))
	}
}
