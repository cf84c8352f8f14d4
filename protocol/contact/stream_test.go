package contact

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinloom/kinloom/protocol/wire"
)

// pipe is one end of a stream in memory: a write waits until it is read.
type pipe struct{ net.Conn }

func (p pipe) Reset() error { return p.Close() }

func newPipe() (dialer, listener pipe) {
	a, b := net.Pipe()
	return pipe{a}, pipe{b}
}

// hostNode is the node of an inviter: one invite, and who answered it.
type hostNode struct {
	mu       sync.Mutex // guards the fields below
	party    *party
	token    Token
	many     bool
	met      []Met
	admitErr error
	storeErr error
	admitted int
}

func newHost(p *party) *hostNode { return &hostNode{party: p, token: p.invite().Token} }

func (h *hostNode) Admit(_ context.Context, token Token, _ Transport) (wire.Code, Material, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.admitErr != nil {
		return 0, Material{}, h.admitErr
	}
	if token != h.token {
		return CodeTokenUnknown, Material{}, nil
	}
	h.admitted++
	return 0, h.party.Material, nil
}

func (h *hostNode) Store(_ context.Context, _ Token, met Met) (wire.Code, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.storeErr != nil {
		return 0, false, h.storeErr
	}
	if !h.many && len(h.met) > 0 && h.met[0].Peer.Person() != met.Peer.Person() {
		return wire.CodeUsed, false, nil
	}
	h.met = append(h.met, met)
	return 0, h.many, nil
}

// serve runs the inviter's side in the background; wait gives its outcome.
func (h *hostNode) serve(ctx context.Context, s Stream, from Transport) (wait func() (Result, error)) {
	var r Result
	var err error
	var wg sync.WaitGroup
	wg.Go(func() {
		channel := Channel{Local: h.party.transport, Remote: from}
		r, err = Serve(ctx, s, NewResponder(h.party.Self, channel, random(77)), h)
	})
	return func() (Result, error) { wg.Wait(); return r, err }
}

func initiator(tb testing.TB, a, b *party) *Initiator {
	tb.Helper()
	i, err := NewInitiator(epoch, b.Self, a.invite(), Channel{Local: b.transport, Remote: a.transport}, b.random)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func TestStreamExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newParty(t, 1), newParty(t, 2)
		h := newHost(a)
		there, here := newPipe()
		wait := h.serve(t.Context(), here, b.transport)
		var early Met
		got, err := Exchange(t.Context(), there, initiator(t, a, b), func(m Met) error { early = m; return nil })
		if err != nil {
			t.Fatal(err)
		}
		served, err := wait()
		if err != nil {
			t.Fatal(err)
		}
		if got.Words != served.Words || early.Words != got.Words || got.Request {
			t.Errorf("words %v, early %v, inviter's %v; want the same, and a contact", got.Words, early.Words, served.Words)
		}
		if len(h.met) != 1 || h.met[0].Peer.Person() != b.Person {
			t.Errorf("inviter stored %d persons, want the one who came", len(h.met))
		}
		if _, err := there.Read(make([]byte, 1)); err == nil {
			t.Error("the stream is open after the exchange")
		}
	})
}

// TestTokenRace: two persons show one single-use token at the same time; one
// becomes a contact and the other is told why not. Whoever won may come again.
func TestTokenRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newParty(t, 1), newParty(t, 2), newParty(t, 3)
		h := newHost(a)
		results := map[*party]error{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		var waits []func() (Result, error)
		for _, p := range []*party{b, c} {
			there, here := newPipe()
			waits = append(waits, h.serve(t.Context(), here, p.transport))
			i := initiator(t, a, p)
			wg.Go(func() {
				_, err := Exchange(t.Context(), there, i, nil)
				mu.Lock()
				defer mu.Unlock()
				results[p] = err
			})
		}
		wg.Wait()
		for _, wait := range waits {
			if _, err := wait(); err != nil && !errors.Is(err, Declined{wire.CodeUsed}) {
				t.Errorf("inviter's side: %v", err)
			}
		}
		winner, loser := b, c
		if results[b] != nil {
			winner, loser = c, b
		}
		if results[winner] != nil || !errors.Is(results[loser], Refused{wire.CodeUsed}) {
			t.Fatalf("outcomes %v and %v, want one contact and one refusal", results[b], results[c])
		}
		if !strings.Contains(results[loser].Error(), "ask for a new one") {
			t.Errorf("the loser reads %q, want to be told what to do", results[loser])
		}
		there, here := newPipe()
		wait := h.serve(t.Context(), here, winner.transport)
		if _, err := Exchange(t.Context(), there, initiator(t, a, winner), nil); err != nil {
			t.Errorf("the winner again: %v", err)
		}
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestPublicInvite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newParty(t, 1)
		h := newHost(a)
		h.many = true
		for seed := byte(2); seed < 5; seed++ {
			p := newParty(t, seed)
			there, here := newPipe()
			wait := h.serve(t.Context(), here, p.transport)
			got, err := Exchange(t.Context(), there, initiator(t, a, p), nil)
			if err != nil {
				t.Fatal(err)
			}
			served, err := wait()
			if err != nil || !got.Request || !served.Request {
				t.Errorf("answer to a public invite: request %v and %v, %v; want requests", got.Request, served.Request, err)
			}
		}
	})
}

func TestHostErrors(t *testing.T) {
	boom := errors.New("disk full")
	for _, which := range []string{"admit", "store", "token"} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newParty(t, 1), newParty(t, 2)
			h := newHost(a)
			want, told := boom, error(Refused{wire.CodeStorage})
			switch which {
			case "admit":
				h.admitErr = boom
			case "store":
				h.storeErr = boom
			case "token":
				h.token = Token{9}
				want, told = Declined{CodeTokenUnknown}, Refused{CodeTokenUnknown}
			}
			there, here := newPipe()
			wait := h.serve(t.Context(), here, b.transport)
			if _, err := Exchange(t.Context(), there, initiator(t, a, b), nil); !errors.Is(err, told) {
				t.Errorf("%s: the other side gets %v, want %v", which, err, told)
			}
			if _, err := wait(); !errors.Is(err, want) {
				t.Errorf("%s: this side gets %v, want %v", which, err, want)
			}
		})
	}
}

// TestMetSaysNo: the caller of Exchange can still turn back.
func TestMetSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newParty(t, 1), newParty(t, 2)
		there, here := newPipe()
		wait := newHost(a).serve(t.Context(), here, b.transport)
		no := errors.New("no")
		if _, err := Exchange(t.Context(), there, initiator(t, a, b), func(Met) error { return no }); !errors.Is(err, no) {
			t.Errorf("Exchange = %v, want what met returned", err)
		}
		if _, err := wait(); err == nil {
			t.Error("the inviter was told that all is well")
		}
	})
}

// bad is a hostile peer on a raw stream.
type bad struct {
	name string
	play func(s pipe)
	want error
	most time.Duration
}

func frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// drip writes one byte a second and never ends.
func drip(s pipe, b []byte) {
	for {
		for _, c := range b {
			if _, err := s.Write([]byte{c}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
}

// hostile are the peers that both sides have to get rid of.
func hostile() []bad {
	return []bad{
		{"silent", func(s pipe) { _, _ = io.Copy(io.Discard, s) }, ErrSlow, Timeout},
		{"never reads", func(s pipe) { _, _ = s.Read(make([]byte, 1)); time.Sleep(time.Hour) }, ErrSlow, Timeout},
		{"one byte per second", func(s pipe) { go func() { _, _ = io.Copy(io.Discard, s) }(); drip(s, bytes.Repeat([]byte{0x7f}, 128)) }, nil, Timeout},
		{"huge length", func(s pipe) {
			_, _ = s.Write([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
			_, _ = io.Copy(io.Discard, s)
		}, wire.ErrFrameSize, 0},
		{"length spelled too long", func(s pipe) { _, _ = s.Write([]byte{0x80, 0x00}); _, _ = io.Copy(io.Discard, s) }, wire.ErrFrameVarint, 0},
		{"hangs up", func(s pipe) { _, _ = s.Write([]byte{5, 1}); _ = s.Close() }, ErrCut, 0},
		{"web server", func(s pipe) {
			_, _ = s.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n"))
			_, _ = io.Copy(io.Discard, s)
		}, ErrMalformed, 2 * time.Second},
		{"empty frame", func(s pipe) { _, _ = s.Write([]byte{0}); _, _ = io.Copy(io.Discard, s) }, wire.ErrFrameSize, 0},
		{"random", func(s pipe) {
			b := make([]byte, 300)
			_, _ = io.ReadFull(random(5), b)
			_, _ = s.Write(frame(b))
			_, _ = io.Copy(io.Discard, s)
		}, ErrMalformed, 2 * time.Second},
	}
}

// against runs one side against a hostile peer and checks that it ends in
// time, with an error that says what happened, and leaves the stream closed.
func against(t *testing.T, b bad, run func(ctx context.Context, s Stream) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := newPipe()
		var wg sync.WaitGroup
		wg.Go(func() { b.play(theirs) })
		start := time.Now()
		err := run(t.Context(), mine)
		took := time.Since(start)
		if err == nil || b.want != nil && !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.name, err, b.want)
		}
		if took > b.most {
			t.Errorf("%s: took %v, want %v at most", b.name, took, b.most)
		}
		if _, err := mine.Write([]byte{1}); err == nil {
			t.Errorf("%s: the stream is still open", b.name)
		}
		_ = theirs.Close()
		wg.Wait()
	})
}

func TestHostileInitiator(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	peers := append(hostile(),
		bad{"large first message", func(s pipe) {
			_, _ = s.Write(frame(make([]byte, MaxShort+1)))
			_, _ = io.Copy(io.Discard, s)
		}, wire.ErrFrameSize, 0},
		bad{"Ask, then silence", func(s pipe) {
			ask, _ := initiator(t, a, b).Start()
			_, _ = s.Write(frame(ask))
			_, _ = io.Copy(io.Discard, s)
		}, ErrSlow, Timeout},
		bad{"Ask twice", func(s pipe) {
			ask, _ := initiator(t, a, b).Start()
			go func() { _, _ = io.Copy(io.Discard, s) }()
			_, _ = s.Write(append(frame(ask), frame(ask)...))
		}, ErrOrder, 2 * time.Second},
	)
	for _, p := range peers {
		against(t, p, func(ctx context.Context, s Stream) error {
			h := newHost(a)
			_, err := h.serve(ctx, s, b.transport)()
			if len(h.met) > 0 {
				t.Errorf("%s: was stored", p.name)
			}
			return err
		})
	}
}

func TestHostileResponder(t *testing.T) {
	a, b := newParty(t, 1), newParty(t, 2)
	for _, p := range hostile() {
		play := p.play
		p.play = func(s pipe) { // it first reads what the dialer says
			if p.name != "never reads" {
				_, _ = s.Read(make([]byte, MaxShort))
			}
			play(s)
		}
		if p.name == "huge length" || p.name == "length spelled too long" || p.name == "empty frame" {
			p.most = time.Second
		}
		against(t, p, func(ctx context.Context, s Stream) error {
			_, err := Exchange(ctx, s, initiator(t, a, b), nil)
			return err
		})
	}
}

func TestHostileHello(t *testing.T) {
	for _, p := range hostile() {
		switch p.want {
		case ErrMalformed:
			p.want = ErrHello
		case ErrSlow:
			p.most = HelloTimeout
		}
		p.most = min(p.most, HelloTimeout)
		against(t, p, func(ctx context.Context, s Stream) error {
			_, err := ServeHello(ctx, s, NewHelloListener(About{}, Channel{}, nil, random(1)))
			return err
		})
	}
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newParty(t, 1), newParty(t, 2)
		mine, theirs := newPipe()
		defer theirs.Close()
		stop := errors.New("the node stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(stop) })
		start := time.Now()
		_, err := Exchange(ctx, mine, initiator(t, a, b), nil)
		if !errors.Is(err, stop) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v, want the cause after 3 s", time.Since(start), err)
		}
		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		mine, other := newPipe()
		defer other.Close()
		if _, err := Exchange(ctx2, mine, initiator(t, a, b), nil); err == nil {
			t.Error("exchange outlives the deadline of its context")
		}
	})
}

// TestBigLog: a log of 400 entries fits into one message.
func TestBigLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newParty(t, 1), newParty(t, 2)
		var err error
		for n := range 400 {
			at := epoch.Add(time.Duration(n) * time.Second)
			a.Material.Record = a.record(t, at)
			if a.log, err = a.log.RenewDevice(a.logKey, a.Material.Record, at); err != nil {
				t.Fatal(err)
			}
		}
		a.Material.Entries = a.log.Entries()
		there, here := newPipe()
		wait := newHost(a).serve(t.Context(), here, b.transport)
		got, err := Exchange(t.Context(), there, initiator(t, a, b), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wait(); err != nil {
			t.Fatal(err)
		}
		if got.Peer.Log.Seq() != 402 {
			t.Errorf("log of %d entries came as %d", a.log.Seq()+1, got.Peer.Log.Seq()+1)
		}
	})
}
