package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tap is a device in memory.
type tap struct {
	in   chan []byte // what the host sends
	once sync.Once
	gone chan struct{}

	mu  sync.Mutex // guards got
	got []arrival
}

type arrival struct {
	at   time.Time
	text string
}

func newTap() *tap { return &tap{in: make(chan []byte), gone: make(chan struct{})} }

func (t *tap) Read(b []byte) (int, error) {
	select {
	case p := <-t.in:
		return copy(b, p), nil
	case <-t.gone:
		return 0, io.EOF
	}
}

func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.got = append(t.got, arrival{time.Now(), string(b[len(b)-1:])})
	return len(b), nil
}

func (t *tap) Close() error {
	t.once.Do(func() { close(t.gone) })
	return nil
}

// heard returns what has come, and forgets it.
func (t *tap) heard() []arrival {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.got
	t.got = nil
	return out
}

// threePorts makes a wire with hosts a and b and a router r, whose inside is 45.60.0.0/16.
func threePorts(ctx context.Context, t *testing.T) (w *wire, a, b, r *tap) {
	t.Helper()
	w = newWire(1, quality{delay: 10 * time.Millisecond})
	a, b, r = newTap(), newTap(), newTap()
	for _, p := range []struct {
		name string
		tap  *tap
		net  string
	}{{"a", a, "45.10.0.1/32"}, {"b", b, "45.60.0.9/32"}, {"r", r, "45.60.0.0/16"}} {
		if err := w.attach(p.name, p.tap, netip.MustParsePrefix(p.net)); err != nil {
			t.Fatal(err)
		}
	}
	go w.run(ctx)
	return w, a, b, r
}

func TestWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, a, b, r := threePorts(ctx, t)
		began := time.Now()
		a.in <- sample("45.10.0.1", "45.60.0.9", protoUDP, "1")
		a.in <- sample("45.10.0.1", "45.60.0.8", protoUDP, "2") // behind the router
		a.in <- sample("45.10.0.1", "45.10.0.1", protoUDP, "3") // to itself
		a.in <- sample("45.10.0.1", "45.99.0.1", protoUDP, "4") // to nobody
		a.in <- []byte("no packet")
		time.Sleep(time.Second)
		for name, test := range map[string]struct {
			tap  *tap
			want string
		}{"a": {a, ""}, "b": {b, "1"}, "r": {r, "2"}} {
			var said []string
			for _, g := range test.tap.heard() {
				said = append(said, g.text)
				if took := g.at.Sub(began); took != 10*time.Millisecond {
					t.Errorf("%s: a packet took %v, want 10 ms", name, took)
				}
			}
			if strings.Join(said, "") != test.want {
				t.Errorf("%s heard %q, want %q", name, said, test.want)
			}
		}

		// A later packet that is due earlier leaves earlier.
		if err := w.set("a>b delay=1s"); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		a.in <- sample("45.10.0.1", "45.60.0.9", protoUDP, "5")
		synctest.Wait() // it is on its way
		if err := w.set("a b delay=1ms"); err != nil {
			t.Fatal(err)
		}
		a.in <- sample("45.10.0.1", "45.60.0.9", protoUDP, "6")
		time.Sleep(2 * time.Second)
		got := b.heard()
		if len(got) != 2 || got[0].text != "6" || got[0].at.Sub(began) != time.Millisecond || got[1].at.Sub(began) != time.Second {
			t.Errorf("b heard %v, want 6 after 1 ms and 5 after 1 s", got)
		}

		// One direction is cut, the other is not.
		if err := w.set("a>* cut=yes"); err != nil {
			t.Fatal(err)
		}
		a.in <- sample("45.10.0.1", "45.60.0.9", protoUDP, "7")
		b.in <- sample("45.60.0.9", "45.10.0.1", protoUDP, "8")
		time.Sleep(time.Second)
		if there, back := b.heard(), a.heard(); len(there) != 0 || len(back) != 1 {
			t.Errorf("b heard %v, a heard %v, want nothing and 8", there, back)
		}
		cancel()
		synctest.Wait()
		if _, err := b.Read(nil); err != io.EOF {
			t.Errorf("the end of the wire left a tap open")
		}
	})
}

func TestWireSet(t *testing.T) {
	w, _, _, _ := threePorts(t.Context(), t)
	for _, wrong := range []string{"", "a", "a nobody loss=1%", "nobody>a loss=1%", "a b loss=high", "a>b colour=red"} {
		if err := w.set(wrong); err == nil {
			t.Errorf("%q was carried out", wrong)
		}
	}
	if err := w.set("* * loss=10%"); err != nil {
		t.Fatal(err)
	}
	if err := w.set("r>a rate=1mbit cut=yes"); err != nil {
		t.Fatal(err)
	}
	want := `port a 45.10.0.1/32
port b 45.60.0.9/32
port r 45.60.0.0/16
a>b clear delay=10ms loss=0.1
a>r clear delay=10ms loss=0.1
b>a clear delay=10ms loss=0.1
b>r clear delay=10ms loss=0.1
r>a clear delay=10ms loss=0.1 rate=1e+06bit cut=yes
r>b clear delay=10ms loss=0.1`
	got := strings.Join(w.show(), "\n")
	if got != want {
		t.Errorf("show gives\n%s\nwant\n%s", got, want)
	}
	for _, line := range w.show()[3:] { // what it shows, it takes
		if err := w.set(line); err != nil {
			t.Error(err)
		}
	}
	if again := strings.Join(w.show(), "\n"); again != want {
		t.Errorf("its own lines change it to\n%s", again)
	}
	if err := w.attach("a", newTap()); err == nil {
		t.Error("two ports have one name")
	}
}

func TestControl(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w, _, _, _ := threePorts(ctx, t)
	socket := filepath.Join(t.TempDir(), "w")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- serveControl(ctx, l, w) }()
	if lines, err := askControl(ctx, socket, "a b loss=50%"); err != nil || len(lines) != 0 {
		t.Errorf("set: %q, %v", lines, err)
	}
	if lines, err := askControl(ctx, socket, "show"); err != nil || len(lines) != 5 || lines[3] != "a>b clear delay=10ms loss=0.5" {
		t.Errorf("show: %q, %v", lines, err)
	}
	if _, err := askControl(ctx, socket, "a nobody cut=yes"); err == nil || !strings.Contains(err.Error(), `no port "nobody"`) {
		t.Errorf("an unknown port: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
