package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/protocol/dm"
	"github.com/kinloom/kinloom/protocol/wire"
)

// TestContactThatLosesEverySession: a contact that confirms one message, disowns the session and hands out keys for the
// next, again and again, has what waits for it sealed anew a few times only. It gets it all the same.
func TestContactThatLosesEverySession(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("first"))
		m.receipts()
		for i := range 1500 {
			say(ctx, t, ada, "Mallory", fmt.Sprint("text ", i))
		}
		m.frames.Reset(m.stream)
		rounds, disowned := 0, false
		for begin := time.Now(); time.Since(begin) < time.Minute; {
			f, err := m.next(5 * time.Second)
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				continue
			}
			switch f := f.(type) {
			case dm.WantBundle:
				b, err := m.sessions.Bundle(time.Now(), true)
				m.fatal("bundle", err)
				m.sessions.Dirty()
				m.fatal("send", m.send(dm.Bundle{Bundle: b}))
				rounds++
				disowned = false
			case dm.Cells:
				for _, cell := range f.Cells {
					if disowned {
						break
					}
					o, err := m.sessions.Open(time.Now(), cell)
					if err != nil || len(o.Messages) == 0 {
						continue
					}
					_, err = m.sessions.Prepare(time.Now(), m.victim.Device)
					m.fatal("prepare", err)
					m.sessions.Dirty()
					receipt, _, err := m.sessions.Pack(time.Now(), o.From, o.Session, nil, wire.Padme)
					m.fatal("receipt", err)
					m.fatal("send", m.send(dm.Cells{Cells: [][]byte{receipt}}))
					id, _, err := wire.ParseCell(cell)
					m.fatal("cell", err)
					m.fatal("send", m.send(dm.Nack{Cell: id, Code: wire.CodeUnopened}))
					disowned = true
				}
			}
		}
		if rounds < 8 || rounds > 12 {
			t.Errorf("%d sessions in a minute, want 8 to 12", rounds)
		}
	})
}

// TestContactThatAsksForLists: a contact that asks for the device list without end has it stored a few times.
func TestContactThatAsksForLists(t *testing.T) {
	attacked(t, func(ctx context.Context, t *testing.T, ada, _ *node.Node, m *mallory) {
		m.meet(ctx, link(ctx, t, ada, false))
		m.say(m.text("first"))
		m.receipts()
		lists := 0
		for range 20 {
			for range 3 {
				m.fatal("ask", m.sessions.AskLog(time.Now(), m.victim.Device, identity.Head{1}))
			}
			_, err := m.sessions.Prepare(time.Now(), m.victim.Device)
			m.fatal("prepare", err)
			m.say(m.text("and you?"))
			_, got := m.receipts()
			for _, what := range got {
				if what == "log" {
					lists++
				}
			}
		}
		if lists < 1 || lists > 8 {
			t.Errorf("got the device list %d times, want 1 to 8", lists)
		}
	})
}

// TestDeliveredIsReadAsDelivered: whoever waited for a receipt finds it in all that they read then.
func TestDeliveredIsReadAsDelivered(t *testing.T) {
	pair(t, func(ctx context.Context, t *testing.T, ada, bob *node.Node, conv node.Added) {
		for i := range 20 {
			m := say(ctx, t, bob, "Ada", fmt.Sprint("text ", i))
			delivered(ctx, t, bob, m)
			one, err := bob.Message(ctx, m.ID.String())
			if err != nil || one.State != "delivered" {
				t.Errorf("message %d: Message tells %q, %v", i, one.State, err)
			}
			all, err := bob.Read(ctx, "Ada", node.ReadQuery{Limit: 1, Peek: true})
			if err != nil || len(all) != 1 || all[0].State != "delivered" {
				t.Errorf("message %d: Read tells %+v, %v", i, all, err)
			}
		}
	})
}
