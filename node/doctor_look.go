package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
)

// LookAtHome looks at a home folder from outside: nothing is opened that a node may
// have open, and nothing is changed.
func LookAtHome(dir string) *HomeFacts {
	h := &HomeFacts{Dir: dir}
	if dir == "" {
		return nil // in memory
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir(), errors.Is(err, syscall.ENOTDIR):
		h.NotFolder = true
		return h
	case errors.Is(err, fs.ErrNotExist):
		h.Missing = true
		return h
	case err != nil:
		h.Unwritable = causeOf(err)
		h.Key.Problem, h.Key.Next = "the key file in "+dir+" cannot be looked at: "+h.Unwritable, beginWith("home")
		return h
	}
	if h.Free, err = store.FreeIn(dir); err == nil {
		h.FreeKnown = true
	}
	h.NetworkFS, _ = store.NetworkFS(dir) // what cannot be asked is taken for a local disk, as Open does
	h.Others = modeOf(dir)
	h.Unwritable = unwritable(dir)
	h.Key = lookAtKeys(dir)
	h.Missing = h.Key.Missing && !hasDatabase(dir)
	for _, name := range crashFiles {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(b) > 0 {
			h.Crash, h.CrashFile = firstLine(b), filepath.Join(dir, name)
			break
		}
	}
	return h
}

func lookAtKeys(dir string) (k KeyFacts) {
	path := filepath.Join(dir, keysFile)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.Missing = true
		return k
	case err != nil:
		k.Problem, k.Next = "the key file "+path+" cannot be read: "+causeOf(err), "Give it back to the user who runs the node: chown, then chmod 600 "+quotePath(path)+"."
		return k
	}
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" {
		k.Others = info.Mode().Perm() & 0o077
	}
	info, err := keyfile.Inspect(b)
	if e, ok := errors.AsType[*Error](keyError(dir, err)); ok {
		k.Problem, k.Next = e.Text, e.Next
		return k
	}
	k.Open, k.Half = !info.Passphrase && !info.Outside, info.Repair
	return k
}

// unwritable says why no file can be made in a folder. That the disk is full is said
// elsewhere.
func unwritable(dir string) string {
	f, err := os.CreateTemp(dir, "doctor-")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return ""
	}
	return causeOf(err)
}

// causeOf is what the system said, without the path that is named already.
func causeOf(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// LookAtSocket looks at the socket of the local API. answers says whether a node was
// reached over it, and refusal is the error if not.
func LookAtSocket(path string, answers bool, refusal error) *SocketFacts {
	s := &SocketFacts{Path: path, Denied: errors.Is(refusal, fs.ErrPermission), NoModes: runtime.GOOS == "windows"}
	info, err := os.Lstat(path)
	switch {
	case err == nil:
		s.Exists, s.Silent, s.Mode = true, !answers, info.Mode().Perm()
	case errors.Is(err, fs.ErrPermission):
		s.Exists, s.Denied = true, true
	case errors.Is(err, fs.ErrNotExist):
		s.NoPlace = noPlace(filepath.Dir(path))
	}
	return s
}

// noPlace says why no socket can be made in a folder, which may have to be made
// first.
func noPlace(dir string) string {
	for {
		info, err := os.Stat(dir)
		switch parent := filepath.Dir(dir); {
		case errors.Is(err, fs.ErrNotExist) && parent != dir:
			dir = parent
		case err != nil:
			return causeOf(err)
		case !info.IsDir():
			return dir + " is not a folder"
		default:
			return unwritable(dir)
		}
	}
}

// LookAtHolder says who has a home open that does not answer, if anybody has. It
// takes the lock for a moment.
func LookAtHolder(dir string) *HolderFacts {
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		return &HolderFacts{} // nobody ever had it
	}
	lock, err := store.AcquireLock(dir)
	if held, ok := errors.AsType[*store.InUseError](err); ok {
		return &HolderFacts{PID: held.PID, Held: true}
	}
	if err == nil {
		_ = lock.Release() // it goes with the process at the latest
	}
	return &HolderFacts{}
}

// LookAtMachine looks at the network interfaces and routes. Nothing is sent.
func LookAtMachine() *MachineFacts {
	m := &MachineFacts{}
	all, err := net.Interfaces()
	if err != nil {
		return nil // the system does not tell
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err == nil && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 && len(addrs) > 0 {
			m.Interfaces++
		}
	}
	m.Route4, m.Route6 = p2p.Routes()
	return m
}

// LookAtPorts tries to listen at addresses, each for a moment. used are those that a
// running node of this home listens on: they are not taken by another program.
func LookAtPorts(ctx context.Context, asked, used []string) (*PortFacts, error) {
	addrs, err := parseAddrs(asked)
	if err != nil {
		return nil, err
	}
	p := &PortFacts{Asked: asked}
	for i, a := range addrs {
		if listensAt(used, a) {
			continue
		}
		switch err := tryPort(ctx, a); {
		case err == nil:
		case errors.Is(err, syscall.EACCES):
			p.Denied = append(p.Denied, asked[i])
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			p.Absent = append(p.Absent, asked[i])
		default:
			p.Taken = append(p.Taken, asked[i])
		}
	}
	return p, nil
}

// tryPort binds an address and lets it go.
func tryPort(ctx context.Context, a multiaddr.Multiaddr) error {
	network, host, err := manet.DialArgs(a[:2])
	if err != nil {
		return err
	}
	var c net.ListenConfig
	if strings.HasPrefix(network, "udp") {
		l, err := c.ListenPacket(ctx, network, host)
		if err != nil {
			return err
		}
		return l.Close()
	}
	l, err := c.Listen(ctx, network, host)
	if err != nil {
		return err
	}
	return l.Close()
}

// listensAt reports whether addresses in use have the port of a.
func listensAt(used []string, a multiaddr.Multiaddr) bool {
	for _, s := range used {
		if u, err := multiaddr.NewMultiaddr(s); err == nil && len(u) > 1 && u[1].Code() == a[1].Code() && u[1].Value() == a[1].Value() {
			return true
		}
	}
	return false
}

// LookAtClock compares the clock with when the files of a home were written that
// cannot be opened.
func LookAtClock(dir string) *ClockFacts {
	c := &ClockFacts{Now: time.Now()}
	for _, name := range databases {
		for _, part := range []string{"", "-wal"} {
			if info, err := os.Stat(filepath.Join(dir, name+part)); err == nil && info.ModTime().After(c.NotBy) {
				c.NotBy = info.ModTime()
			}
		}
	}
	return c
}

// LookAtStore says what is wrong with the databases of a home that could not be opened,
// and why. A full disk keeps them from being opened, not from being read: that is done
// here.
func LookAtStore(ctx context.Context, cfg Config, failed error) *StoreFacts {
	if !errors.Is(failed, store.ErrDiskFull) {
		return LookFailed(failed)
	}
	switch err := readAll(ctx, cfg); {
	case err == nil:
		return &StoreFacts{Full: true}
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrForeign), errors.Is(err, store.ErrMissing):
		s := LookFailed(openError(cfg.Dir, err))
		s.Full = true
		return s
	}
	return LookFailed(failed)
}

// readAll reads every page of the databases and writes nothing.
func readAll(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	h, err := openHome(&cfg, false)
	if err != nil {
		return err
	}
	err = store.CheckFiles(ctx, store.Options{
		Dir: cfg.Dir, Key: func(file string) [32]byte { return h.secrets.SubKey(file) }, IDs: h.secrets.Files, Log: cfg.Log, Now: cfg.Now,
	})
	return errors.Join(err, h.close())
}

// LookFailed puts a failure to open a home, or to read its databases, into facts.
func LookFailed(err error) *StoreFacts {
	if errors.Is(err, store.ErrDiskFull) {
		return &StoreFacts{Full: true, Unread: true}
	}
	s := &StoreFacts{Problem: err.Error()}
	if e, ok := errors.AsType[*Error](err); ok {
		s.Problem, s.Next, s.Sealed = e.Text, e.Next, e.Kind == KindRefused
		if cause := e.Cause(); cause != "" {
			s.Problem += ": " + cause
		}
	}
	if !errors.Is(err, store.ErrDamaged) {
		return s
	}
	switch filesOf(err) {
	case store.IndexFile:
		s.Spare, s.Next = true, "It is made anew from your messages at the next start; until then a search may miss some."
	case store.NetFile:
		s.Spare, s.Next = true, "None of your messages is in it: stop the node, delete that file, and start the node again."
	}
	return s
}
