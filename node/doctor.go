package node

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Verdict is what doctor thinks of one check.
type Verdict string

// The verdicts. WARN: something is missing or will be soon, and the rest works.
// FAIL: something does not work until somebody mends it.
const (
	OK   Verdict = "OK"
	Warn Verdict = "WARN"
	Fail Verdict = "FAIL"
)

// Finding is one line of doctor.
type Finding struct {
	Check   string // one of Checks
	Verdict Verdict
	Found   string // a sentence without its full stop
	Fix     string // what to do next; empty where all is well
}

// Checks are the names of all checks, in the order in which they are told: what
// others rest on comes first.
var Checks = []string{
	"home", "keys", "disk", "node", "socket", "store", "certificate", "copy", "clock",
	"network", "ports", "udp", "lan", "reach", "relay", "bootstrap", "dht", "proxy", "messages", "crash",
}

// Checkup is all that doctor looks at, as it was found and without a verdict. A
// part that was not looked at is nil.
type Checkup struct {
	Home    *HomeFacts
	Holder  *HolderFacts
	Socket  *SocketFacts
	Store   *StoreFacts
	Account *AccountFacts
	Clock   *ClockFacts
	Machine *MachineFacts
	Ports   *PortFacts
	Net     *NetFacts
}

// HomeFacts are what the home folder shows from outside.
type HomeFacts struct {
	Dir        string
	Missing    bool        // there is no home here
	NotFolder  bool        // something else is in its place
	Unwritable string      // what the system said when a file was to be made there
	Others     fs.FileMode // what others than the owner may do there
	NetworkFS  string      // name of a network file system that it lies on
	Free       uint64      // bytes
	FreeKnown  bool
	Key        KeyFacts
	Crash      string // the line to look at of the last crash
	CrashFile  string
}

// KeyFacts are what the key file shows without its secrets.
type KeyFacts struct {
	Missing bool
	Problem string      // why it cannot be read, in words
	Next    string      // what helps then
	Open    bool        // neither passphrase nor keychain seals it
	Others  fs.FileMode // what others than the owner may do with it
	Half    bool        // one of its two copies is damaged
}

func (k *KeyFacts) broken() bool { return k.Missing || k.Problem != "" }

// HolderFacts say who has the home open.
type HolderFacts struct {
	PID     int  // 0: unknown
	Held    bool // by another process or by the node that answers
	Answers bool // it could be asked
}

// SocketFacts are what the socket of the local API shows.
type SocketFacts struct {
	Path    string
	Exists  bool
	Silent  bool        // it is there, and nobody answers
	Denied  bool        // the system does not let this user use it
	Mode    fs.FileMode // permission bits; 0 with NoModes
	NoModes bool        // modes say nothing on this system
	NoPlace string      // why none could be made there
}

// StoreFacts are how the databases are.
type StoreFacts struct {
	Problem     string // why they cannot be opened or are not whole
	Next        string
	Spare       bool // Problem is of a file that is made anew, and holds no message
	Sealed      bool // Problem is that no key was given
	Full        bool // they were not opened, as the disk is full
	Unread      bool // and could not be read either
	Paused      bool // commits failed a moment ago
	FailedSyncs int  // writes that the disk did not confirm
	Stuck       int  // failed checkpoints in a row
}

// ClockFacts compare the clock with what is known of the time.
type ClockFacts struct {
	Now    time.Time
	Voices int           // whose clocks it was compared with
	Offset time.Duration // how far it is ahead of the middle of them
	NotBy  time.Time     // the newest time that this home wrote; a clock before that is wrong, or was
}

// Findings gives one finding for each check, in the order of Checks. Each fact has its
// own check, so that two faults show as two; where one hides what another check would
// look at, that one says so. Of the parts that belong to no home (a socket or ports
// alone) it gives the findings of those.
func (c Checkup) Findings() []Finding {
	var out []Finding
	add := func(name string, v Verdict, fix, found string, args ...any) {
		out = append(out, Finding{Check: name, Verdict: v, Found: fmt.Sprintf(found, args...), Fix: fix})
	}
	if c.Home != nil {
		c.Home.check(add)
	}
	if c.Holder != nil {
		c.Holder.check(c.Socket, add)
	}
	if c.Socket != nil {
		c.Socket.check(c.Holder, add)
	}
	if c.Store != nil {
		c.Store.check(c.Home, add)
	}
	if c.Account != nil {
		c.Account.check(add)
	}
	if c.Clock != nil {
		c.Clock.check(add)
	}
	if c.Machine != nil {
		c.Machine.check(add)
	}
	if c.Ports != nil {
		c.Ports.check(add)
	}
	if c.Net != nil {
		c.Net.check(c.Machine, c.Clock, add)
	}
	if c.Holder != nil {
		c.unseen(out, add)
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return slices.Index(Checks, a.Check) - slices.Index(Checks, b.Check) })
	return out
}

// adder adds a finding.
type adder func(name string, v Verdict, fix, found string, args ...any)

const (
	diskFull = 2 << 20   // a commit with its padding does not fit
	diskLow  = 256 << 20 // four times what the store keeps for the account alone
)

// keepsShut reports whether what is wrong with the folder or the key file is why no
// database is opened.
func (h *HomeFacts) keepsShut() bool {
	return h.Missing || h.NotFolder || h.Unwritable != "" || h.NetworkFS != "" || h.Others&0o002 != 0 || h.Key.broken()
}

func (h *HomeFacts) check(add adder) {
	switch {
	case h.Missing:
		add("home", Fail, "Make one: kinloom up.", "there is no kinloom home in %s yet", h.Dir)
	case h.NotFolder:
		add("home", Fail, "Choose another folder with --home, or move that file away.", "%s is not a folder", h.Dir)
	case h.Unwritable != "":
		add("home", Fail, "Make it writable for the user who runs the node; if it was started with sudo once, give the files back: chown -R.", "nothing can be written in %s: %s", h.Dir, h.Unwritable)
	case h.NetworkFS != "":
		add("home", Fail, "Move it to a local disk, with the node stopped.", "%s lies on a network file system (%s), where a crash can damage it", h.Dir, h.NetworkFS)
	case h.Others&0o002 != 0:
		add("home", Fail, "Close it: chmod 700 "+quotePath(h.Dir)+".", "everybody on this computer may change the files in %s", h.Dir)
	case h.Others != 0:
		add("home", Warn, "Close it: chmod 700 "+quotePath(h.Dir)+".", "others on this computer can see names and sizes of the files in %s", h.Dir)
	default:
		add("home", OK, "", "%s is yours alone", h.Dir)
	}
	if h.Missing || h.NotFolder {
		return
	}
	switch k := &h.Key; {
	case k.Missing:
		add("keys", Fail, "Put it back from your own copy; the databases were not touched.", "the key file in %s is missing", h.Dir)
	case k.Problem != "":
		add("keys", Fail, k.Next, "%s", k.Problem)
	case k.Others&0o066 != 0 && k.Open:
		add("keys", Fail, "Close it now: chmod 600 "+quotePath(h.Dir+"/keys")+". Whoever read it before can read everything.", "others on this computer can read the key file, and no passphrase seals it")
	case k.Others != 0:
		add("keys", Warn, "Close it: chmod 600 "+quotePath(h.Dir+"/keys")+".", "others on this computer can get at the key file")
	case k.Half:
		add("keys", Warn, "It is mended at the next start; keep a copy of the file.", "one of the two copies in the key file is damaged")
	case k.Open:
		add("keys", OK, "", "protected by its file mode only: who can read your files can read everything")
	default:
		add("keys", OK, "", "sealed")
	}
	switch {
	case !h.FreeKnown:
	case h.Free < diskFull:
		add("disk", Fail, "Free some space; reading works meanwhile, and nothing that was said is lost.", "the disk of %s is full", h.Dir)
	case h.Free < diskLow:
		add("disk", Warn, "Free some space soon.", "only %d MB are free on the disk of %s", h.Free/1e6, h.Dir)
	default:
		add("disk", OK, "", "%.1f GB free", float64(h.Free)/1e9)
	}
	if h.Crash != "" {
		add("crash", Warn, "Send it with your report; when you have looked at it, delete the file.", "the node crashed: %s (%s)", h.Crash, h.CrashFile)
	} else {
		add("crash", OK, "", "no crash is on record")
	}
}

func (h *HolderFacts) check(s *SocketFacts, add adder) {
	who := "another process"
	if h.PID > 0 {
		who = fmt.Sprintf("process %d", h.PID)
	}
	switch {
	case h.Answers:
		add("node", OK, "", "%s runs this home, so no second node can", who)
	case h.Held && s != nil && (s.Denied || s.broken()):
		add("node", Fail, "Mend the socket first, see below; a second node cannot be started beside it.", "%s has this home open and could not be asked", who)
	case h.Held:
		add("node", Fail, "If that is a node of yours, end it and start one: kinloom up. One home serves one node.", "%s has this home open and does not answer, so no second node can start", who)
	default:
		add("node", Warn, "Start it and ask again: kinloom up.", "no node is running, so its network was not looked at")
	}
}

func (s *SocketFacts) broken() bool { return s.Exists && !s.NoModes && s.Mode&0o600 != 0o600 }

func (s *SocketFacts) check(h *HolderFacts, add adder) {
	held := h != nil && h.Held
	switch {
	case s.Denied || s.broken():
		add("socket", Fail, "Give it back, as the user who runs the node: chmod 600 "+quotePath(s.Path)+".", "the node's socket %s may not be used by you (its rights are %03o)", s.Path, s.Mode)
	case s.Exists && !s.NoModes && s.Mode&0o077 != 0:
		add("socket", Fail, "Close it: chmod 600 "+quotePath(s.Path)+".", "others on this computer may command the node over its socket %s", s.Path)
	case s.NoPlace != "":
		add("socket", Fail, "Make that folder writable for you, or choose another home with --home.", "no socket can be made at %s: %s", s.Path, s.NoPlace)
	case held && (!s.Exists || s.Silent):
		add("socket", Fail, "Start the node anew; it makes the socket again.", "the node's socket %s is gone, or nobody answers there", s.Path)
	case !s.Exists || s.Silent:
		add("socket", OK, "", "none is open, as no node runs")
	default:
		add("socket", OK, "", "%s is yours alone", s.Path)
	}
}

func (s *StoreFacts) check(h *HomeFacts, add adder) {
	switch {
	case s.Unread:
		add("store", Warn, beginWith("disk"), notSeen, "the disk is full")
	case s.Problem != "" && s.Spare:
		add("store", Warn, s.Next, "%s", s.Problem)
	case s.Problem != "" && (s.Sealed || h != nil && h.keepsShut()):
		add("store", Warn, s.Next, "the databases could not be looked at: %s", s.Problem)
	case s.Problem != "":
		add("store", Fail, s.Next, "%s", s.Problem)
	case s.FailedSyncs > 0:
		add("store", Fail, "Save a copy of the home, check the disk, and start the node anew.", "the disk did not confirm %d writes; the databases are whole so far", s.FailedSyncs)
	case s.Paused:
		add("store", Fail, "See the lines on the disk and the home; it goes on by itself once writing works.", "nothing can be stored at the moment")
	case s.Stuck > 2:
		add("store", Warn, "Start the node anew when it suits you.", "the log of the databases grows and cannot be emptied")
	default:
		add("store", OK, "", "every page of the databases is whole")
	}
}

const (
	clockFar  = 24 * time.Hour // look-up records of another day are looked for
	clockNear = 5 * time.Minute
	// voicesEnough is how many have to be asked until one that lies, or is wrong itself,
	// is not the middle of them.
	voicesEnough = 3
)

// refused reports whether QUIC fails by the clock: the certificates that it makes for
// each connection begin an hour ago.
func (c *ClockFacts) refused() bool { return c.Voices > 0 && c.Offset.Abs() >= time.Hour-clockNear }

func (c *ClockFacts) check(add adder) {
	const set = "Set the clock and its time zone, best by letting the system fetch the time."
	now := c.Now.UTC().Format("2006-01-02 15:04") + " UTC"
	fix := set
	side := "ahead of"
	if c.Offset < 0 {
		side = "behind"
	}
	if c.Voices < voicesEnough {
		fix = "Compare it with another clock. If yours is wrong, set it; if it is right, that server's is wrong, and there is nothing to do."
	}
	switch off := c.Offset.Abs(); {
	case c.Voices >= voicesEnough && off < clockNear:
		add("clock", OK, "", "%s, as others have it", now)
	case c.NotBy.Sub(c.Now) > time.Hour && !c.NotBy.IsZero():
		add("clock", Fail, set+" If it is right, it was ahead then, and there is nothing to do.", "this computer's clock (%s) is behind what this home wrote on %s", now, c.NotBy.UTC().Format("2006-01-02 15:04"))
	case c.Voices == 0:
		add("clock", Warn, "Compare it with another clock; if it is wrong, set it.", "this computer's clock (%s) could not be compared, as nobody was asked", now)
	case c.Voices < voicesEnough && off >= clockNear:
		add("clock", Warn, fix, "this computer's clock (%s) is %s %s that of a server; contacts are still found", now, spanWords(off), side)
	case off >= clockFar:
		add("clock", Fail, fix, "this computer's clock (%s) is %s %s the others': contacts are still found, but times are wrong and certificates may seem to have ended", now, spanWords(off), side)
	case off >= clockNear:
		add("clock", Warn, fix, "this computer's clock (%s) is %s %s the others'", now, spanWords(off), side)
	default:
		add("clock", OK, "", "%s, as others have it", now)
	}
}

// spanWords gives a length of time as people say it.
func spanWords(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d.Round(24*time.Hour)/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d.Round(time.Hour)/time.Hour)
	}
	return fmt.Sprintf("%d minutes", d.Round(time.Minute)/time.Minute)
}

// some joins the first few.
func some(all []string) string {
	const most = 4
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}

// quotePath makes a path safe for the command lines that are offered.
func quotePath(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r)
	}
	if strings.ContainsFunc(path, func(r rune) bool { return !plain(r) }) {
		return quoteName(path)
	}
	return path
}
