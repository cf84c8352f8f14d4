package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/store"
)

// healthy is a node with which nothing is wrong.
func healthy() node.Checkup {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	return node.Checkup{
		Home:    &node.HomeFacts{Dir: "/home/ada/kinloom", Free: 50e9, FreeKnown: true},
		Holder:  &node.HolderFacts{PID: 4711, Held: true, Answers: true},
		Socket:  &node.SocketFacts{Path: "/run/ada/api.sock", Exists: true, Mode: 0o600},
		Store:   &node.StoreFacts{},
		Account: &node.AccountFacts{Now: now, Expires: now.Add(80 * 24 * time.Hour), Renews: true},
		Clock:   &node.ClockFacts{Now: now, Voices: 5, NotBy: now.Add(-time.Hour)},
		Machine: &node.MachineFacts{Interfaces: 1, Route4: true},
		Ports:   &node.PortFacts{},
		Net:     &node.NetFacts{QUIC: true, UDP: 3, Neighbours: 1, Verdict: "public", Direct: 1, Known: 9, Servers: 4, Answers: 12},
	}
}

// unreachable takes away what makes a healthy node reached.
func unreachable(c *node.Checkup) { c.Net.Direct, c.Net.Relays, c.Net.Verdict = 0, 0, "private" }

// fault is one thing that can be wrong, and the line that has to name it.
type fault struct {
	name    string
	happen  func(*node.Checkup)
	check   string
	verdict node.Verdict
	says    string // in what was found
	fix     string // in what to do
}

// otherFaults are more, each alone.
var otherFaults = []fault{
	{"no home", func(c *node.Checkup) { c.Home.Missing = true }, "home", node.Fail, "there is no kinloom home", "kinloom up"},
	{"a file in its place", func(c *node.Checkup) { c.Home.NotFolder = true }, "home", node.Fail, "is not a folder", "--home"},
	{"home not ours", func(c *node.Checkup) { c.Home.Unwritable = "permission denied" }, "home", node.Fail, "nothing can be written", "chown"},
	{"home on a network disk", func(c *node.Checkup) { c.Home.NetworkFS = "NFS" }, "home", node.Fail, "network file system (NFS)", "local disk"},
	{"home that all may write", func(c *node.Checkup) { c.Home.Others = 0o077 }, "home", node.Fail, "everybody on this computer", "chmod 700"},
	{"home that all may see", func(c *node.Checkup) { c.Home.Others, c.Home.Dir = 0o055, "/a b" }, "home", node.Warn, "names and sizes", "chmod 700 '/a b'"},
	{"key file gone", func(c *node.Checkup) { c.Home.Key.Missing = true }, "keys", node.Fail, "is missing", "your own copy"},
	{"key file damaged", func(c *node.Checkup) { c.Home.Key.Problem, c.Home.Key.Next = "the key file is damaged", "Put it back." }, "keys", node.Fail, "damaged", "Put it back"},
	{"key file open to all", func(c *node.Checkup) { c.Home.Key.Open, c.Home.Key.Others = true, 0o044 }, "keys", node.Fail, "others on this computer can read the key file", "chmod 600"},
	{"sealed key file open to all", func(c *node.Checkup) { c.Home.Key.Others = 0o044 }, "keys", node.Warn, "get at the key file", "chmod 600"},
	{"half a key file", func(c *node.Checkup) { c.Home.Key.Half = true }, "keys", node.Warn, "one of the two copies", "next start"},
	{"disk nearly full", func(c *node.Checkup) { c.Home.Free = 100e6 }, "disk", node.Warn, "only 100 MB", "soon"},
	{"a crash", func(c *node.Checkup) { c.Home.Crash, c.Home.CrashFile = "panic: bug", "/home/crash.log" }, "crash", node.Warn, "panic: bug (/home/crash.log)", "report"},
	{"no node", func(c *node.Checkup) { *c.Holder = node.HolderFacts{} }, "node", node.Warn, "no node is running", "kinloom up"},
	{"socket open to all", func(c *node.Checkup) { c.Socket.Mode = 0o666 }, "socket", node.Fail, "may command the node", "chmod 600"},
	{"socket closed to its owner", func(c *node.Checkup) { c.Socket.Mode = 0 }, "socket", node.Fail, "rights are 000", "chmod 600"},
	{"socket gone", func(c *node.Checkup) { c.Socket.Exists = false }, "socket", node.Fail, "is gone", "anew"},
	{"no place for a socket", func(c *node.Checkup) { c.Socket.NoPlace = "permission denied" }, "socket", node.Fail, "no socket can be made", "folder writable"},
	{"disk did not confirm", func(c *node.Checkup) { c.Store.FailedSyncs = 1 }, "store", node.Fail, "did not confirm", "check the disk"},
	{"commits fail", func(c *node.Checkup) { c.Store.Paused = true }, "store", node.Fail, "nothing can be stored", "by itself"},
	{"log grows", func(c *node.Checkup) { c.Store.Stuck = 5 }, "store", node.Warn, "cannot be emptied", "anew"},
	{"sealed, no passphrase", func(c *node.Checkup) {
		c.Store.Problem, c.Store.Next, c.Store.Sealed = "this home is sealed with a passphrase", "Give it.", true
	}, "store", node.Warn, "could not be looked at", "Give it"},
	{"certificate ends", func(c *node.Checkup) {
		c.Account.Renews, c.Account.Expires = false, c.Account.Now.Add(5*24*time.Hour)
	}, "certificate", node.Warn, "ends on 2026-03-15", "renewing key"},
	{"certificate ended", func(c *node.Checkup) { c.Account.Renews, c.Account.Expires = false, c.Account.Now }, "certificate", node.Fail, "ended on 2026-03-10", "renewing key"},
	{"contact's certificate ended", func(c *node.Checkup) { c.Account.Expired = []string{"Bob", "Eve"} }, "certificate", node.Warn, "devices of Bob, Eve", "online"},
	{"copy of this device", func(c *node.Checkup) { c.Account.Copies = []string{"A copy of this node is running."} }, "copy", node.Warn, "copy of this node", "stop one"},
	{"messages wait", func(c *node.Checkup) {
		c.Account.Waiting = []node.WaitingFacts{{Name: "Bob", Count: 2, Reason: "not reachable", Next: "See: kinloom route Bob."}, {Name: "Eve", Count: 1, More: true, Reason: "no address"}}
	}, "messages", node.Warn, "more than 3 wait: 2 for Bob (not reachable), 1 for Eve (no address)", "kinloom route Bob"},
	{"clock a little off", func(c *node.Checkup) { c.Clock.Offset = 20 * time.Minute }, "clock", node.Warn, "20 minutes ahead of", "Set the clock"},
	{"clock unlike that of one server", func(c *node.Checkup) { c.Clock.Offset, c.Clock.Voices = 26*time.Hour, 2 }, "clock", node.Warn, "26 hours ahead of that of a server", "nothing to do"},
	{"clock before what was written", func(c *node.Checkup) {
		c.Clock.Voices, c.Clock.Now = 0, time.Date(1970, 1, 1, 0, 3, 0, 0, time.UTC)
	}, "clock", node.Fail, "is behind what this home wrote on 2026-03-10", "Set the clock"},
	{"LAN without internet", func(c *node.Checkup) { c.Machine.Route4 = false }, "network", node.Warn, "no way to the internet", "local network all works"},
	{"low port", func(c *node.Checkup) { c.Ports.Denied = []string{"/ip4/0.0.0.0/tcp/443"} }, "ports", node.Fail, "below 1024", "setcap"},
	{"address of another", func(c *node.Checkup) { c.Ports.Absent = []string{"/ip4/192.0.2.7/tcp/1"} }, "ports", node.Fail, "does not have the address", "--listen"},
	{"usual port taken", func(c *node.Checkup) { c.Ports.Moved = []string{"/ip4/0.0.0.0/tcp/4001"} }, "ports", node.Warn, "the usual /ip4/0.0.0.0/tcp/4001", "by themselves"},
	{"no multicast", func(c *node.Checkup) { c.Net.LANProblem = "no socket" }, "lan", node.Warn, "cannot be found: no socket", "mDNS"},
	{"firewall", unreachable, "reach", node.Warn, "kept them out", "UPnP"},
	{"UPnP lies", func(c *node.Checkup) { unreachable(c); c.Net.Mapped = 2 }, "reach", node.Warn, "although the router says that it opened 2 ports", "provider"},
	{"nobody has tried", func(c *node.Checkup) { unreachable(c); c.Net.Verdict = "" }, "reach", node.Warn, "nobody outside has tried yet", "Wait a minute"},
	{"all ways in are dead", func(c *node.Checkup) { c.Net.Servers = 0 }, "bootstrap", node.Warn, "9 ways are into the network known, and none", "network"},
	{"clock so far off that QUIC fails", func(c *node.Checkup) {
		c.Clock.Offset, c.Net.UDP, c.Net.TCP, c.Net.Skipped = 26*time.Hour, 0, 5, 4
	}, "udp", node.Warn, "not looked at, as QUIC refuses a clock", "line on clock"},
	{"UDP blocked or the clock off", func(c *node.Checkup) {
		c.Clock.Voices, c.Net.UDP, c.Net.TCP, c.Net.Skipped = 0, 0, 5, 4
	}, "udp", node.Warn, "UDP is blocked, or this computer's clock is off", "compare this computer's clock"},
	{"clock that was never compared", func(c *node.Checkup) { c.Clock.Voices = 0 }, "clock", node.Warn, "could not be compared, as nobody was asked", "another clock"},
	{"search index damaged", func(c *node.Checkup) {
		*c.Store = *node.LookFailed(fmt.Errorf("check index.db: %w", store.ErrDamaged))
	}, "store", node.Warn, "index.db", "made anew"},
	{"network data damaged", func(c *node.Checkup) {
		*c.Store = *node.LookFailed(fmt.Errorf("check net.db: %w", store.ErrDamaged))
	}, "store", node.Warn, "net.db", "delete that file"},
	{"captive portal", func(c *node.Checkup) { c.Net.Servers, c.Net.Strange = 0, 4 }, "bootstrap", node.Warn, "what answers there is no node: a login page", "Log in"},
	{"no look-ups, as asked", func(c *node.Checkup) { c.Net.NoDHT, c.Net.Known, c.Net.Servers = true, 0, 0 }, "bootstrap", node.OK, "as you asked", ""},
	{"a server that nobody has tried", func(c *node.Checkup) { c.Net.Claimed, c.Net.Direct, c.Net.Relays = true, 0, 0 }, "reach", node.Warn, "nobody outside has come in to this server", "firewall"},
	{"proxy", func(c *node.Checkup) { c.Net.Proxy, c.Net.ProxyProblem = "proxy:3128", "407" }, "proxy", node.Warn, "proxy:3128 lets nothing through: 407", "443"},
}

// named says what is missing of a fault in findings, or nothing.
func (f fault) named(found []node.Finding) error {
	for _, line := range found {
		if line.Check != f.check {
			continue
		}
		if line.Verdict != f.verdict || !strings.Contains(line.Found, f.says) || !strings.Contains(line.Fix, f.fix) {
			return fmt.Errorf("%s is told as %+v; want %s, %q and %q", f.name, line, f.verdict, f.says, f.fix)
		}
		return nil
	}
	return fmt.Errorf("%s: there is no line %q", f.name, f.check)
}

// wellFormed holds findings to the rules for texts and to one line a check, in order.
func wellFormed(t *testing.T, what string, found []node.Finding) {
	t.Helper()
	at := -1
	for _, f := range found {
		next := slices.Index(node.Checks, f.Check)
		if next <= at {
			t.Errorf("%s: %q stands twice or out of order", what, f.Check)
		}
		at = next
		if f.Found == "" || strings.HasSuffix(f.Found, ".") && f.Check != "copy" || strings.ContainsAny(f.Found+f.Fix, "!\n") {
			t.Errorf("%s: %+v is no line for people", what, f)
		}
		if f.Verdict != node.OK && !strings.HasSuffix(f.Fix, ".") || f.Verdict == node.OK && f.Fix != "" {
			t.Errorf("%s: %+v: what is wrong has a next step, and nothing else does", what, f)
		}
	}
}

func TestDoctorOfTheHealthy(t *testing.T) {
	found := healthy().Findings()
	wellFormed(t, "healthy", found)
	for _, f := range found {
		if f.Verdict != node.OK {
			t.Errorf("%+v", f)
		}
	}
	if len(found) != len(node.Checks) {
		t.Errorf("%d lines for %d checks", len(found), len(node.Checks))
	}
	for _, lan := range (node.Checkup{Net: &node.NetFacts{LANOnly: true, LANOff: true, NoDHT: true}}).Findings() {
		if lan.Verdict != node.OK {
			t.Errorf("kept to the local network, as its owner asked: %+v", lan)
		}
	}
}

// TestDoctorNamesEveryFault: each is told by its own line.
func TestDoctorNamesEveryFault(t *testing.T) {
	for _, f := range otherFaults {
		c := healthy()
		f.happen(&c)
		found := c.Findings()
		wellFormed(t, f.name, found)
		if err := f.named(found); err != nil {
			t.Error(err)
		}
	}
}
