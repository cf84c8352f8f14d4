package store

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/protocol/event"
)

func TestContacts(t *testing.T) {
	w := newWorld(t, "")
	c := Contact{
		Person: identity.PersonID{5}, Petname: "Aunt", Name: "Ann", Trust: Verified, State: Request, Words: "one two three",
		WordsAt: w.start, Since: w.start.Add(time.Second),
	}
	w.write(func(tx *Tx) error { return tx.PutContact(&c) })
	first := c
	c.Petname, c.Trust, c.State, c.Ways = "", Blocked, Accepted, LANOnly
	w.write(func(tx *Tx) error { return tx.PutContact(&c) })
	if c.Row != first.Row || c.Changed <= first.Changed {
		t.Errorf("row %d changed %d, then row %d changed %d", first.Row, first.Changed, c.Row, c.Changed)
	}
	w.read(func(tx *Tx) error {
		for _, f := range []func() (Contact, error){
			func() (Contact, error) { return tx.ContactByPerson(c.Person) },
			func() (Contact, error) { return tx.ContactByRow(c.Row) },
		} {
			got, err := f()
			if err != nil {
				return err
			}
			if diff := cmp.Diff(c, got); diff != "" {
				t.Errorf("stored and read differ (-want +got):\n%s", diff)
			}
		}
		all, err := tx.Contacts()
		if err != nil || len(all) != 4 || all[0].State != Self || all[3].Person != c.Person {
			t.Errorf("contacts are %+v, %v", all, err)
		}
		if _, err := tx.ContactByPerson(identity.PersonID{77}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a stranger gives %v", err)
		}
		return nil
	})
}

func TestDevices(t *testing.T) {
	w := newWorld(t, "")
	d := Device{
		ID: identity.DeviceID{9}, Person: w.persons[1].Person, Record: []byte("record"), Static: []byte("bundle"), Transport: []byte("peer"),
		LAN: []byte("lan"), Seen: w.start, Secret: [32]byte{7: 7}, Told: w.start.Add(time.Minute), Records: []byte("seen"), Offers: 1<<63 | 5,
		Addrs: []Address{
			{Addr: []byte{4, 1}, Source: "invite", LastOK: w.start, LastTry: w.start.Add(time.Second), LastError: "refused"},
			{Addr: []byte{4, 2}},
		},
	}
	w.write(func(tx *Tx) error { return tx.PutDevice(&d) })
	w.read(func(tx *Tx) error {
		for _, f := range []func() (Device, error){
			func() (Device, error) { return tx.DeviceByID(d.ID) },
			func() (Device, error) { return tx.DeviceByRow(d.Row) },
			func() (Device, error) { return tx.DeviceByTransport(d.Transport) },
		} {
			got, err := f()
			if err != nil {
				return err
			}
			if diff := cmp.Diff(d, got); diff != "" {
				t.Errorf("stored and read differ (-want +got):\n%s", diff)
			}
		}
		all, err := tx.Devices(d.Person)
		if err != nil || len(all) != 2 || all[1].Row != d.Row {
			t.Errorf("devices are %+v, %v", all, err)
		}
		return nil
	})
	w.read(func(tx *Tx) error {
		_, err := tx.one("SELECT secret FROM device WHERE row = ?", func(st *sqlite3.Stmt) {
			if b := st.ColumnRawBlob(0); len(b) == 0 || bytes.Contains(b, d.Secret[:]) {
				t.Errorf("the secret lies in its row as %x", b)
			}
		}, d.Row)
		return err
	})
	row := d.Row
	d.Addrs, d.Static, d.Transport, d.Secret = nil, nil, nil, [32]byte{}
	w.write(func(tx *Tx) error { return tx.PutDevice(&d) })
	w.read(func(tx *Tx) error {
		got, err := tx.DeviceByID(d.ID)
		if got.Row != row || got.Addrs != nil || got.Static != nil || got.Secret != [32]byte{} {
			t.Errorf("after taking addresses away: %+v", got)
		}
		if _, err := tx.DeviceByTransport([]byte("peer")); !errors.Is(err, ErrNotFound) {
			t.Errorf("by a transport key of before: %v", err)
		}
		return err
	})
	stranger := Device{ID: identity.DeviceID{10}, Person: identity.PersonID{99}}
	if err := w.Write(t.Context(), func(tx *Tx) error { return tx.PutDevice(&stranger) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("a device of nobody gives %v, want ErrNotFound", err)
	}
}

func TestLog(t *testing.T) {
	w := newWorld(t, "")
	p := w.persons[0].Person
	for _, entries := range [][][]byte{{{1}, {2, 2}}, {{1}, {2, 2}, {3}}, {{1}, {9}}} {
		w.write(func(tx *Tx) error { return tx.PutLog(p, entries) })
		w.read(func(tx *Tx) error {
			got, err := tx.Log(p)
			if diff := cmp.Diff(entries, got); diff != "" {
				t.Errorf("log differs (-want +got):\n%s", diff)
			}
			return err
		})
	}
	w.read(func(tx *Tx) error {
		if _, err := tx.Log(w.persons[1].Person); !errors.Is(err, ErrNotFound) {
			t.Errorf("no log gives %v", err)
		}
		return nil
	})
}

func TestConversations(t *testing.T) {
	w := newWorld(t, "")
	c := Conversation{
		ID: event.ConversationID{1, 2}, Kind: event.Group, Title: "Climbing", Muted: true, Archived: true, Retention: 36 * time.Hour,
		OwnSeq: 17, Heads: []event.ID{{1}, {2}}, Clock: event.MaxClock, Unread: 3, LastAt: w.start,
	}
	w.write(func(tx *Tx) error { return tx.PutConversation(&c) })
	check := func() {
		t.Helper()
		w.read(func(tx *Tx) error {
			byID, err := tx.ConversationByID(c.ID)
			if err != nil {
				return err
			}
			byRow, err := tx.ConversationByRow(c.Row)
			if diff := cmp.Diff(c, byID) + cmp.Diff(c, byRow); diff != "" {
				t.Errorf("stored and read differ (-want +got):\n%s", diff)
			}
			return err
		})
	}
	check()
	c.Title, c.Heads, c.Unread, c.Muted = "", nil, 0, false
	w.write(func(tx *Tx) error { return tx.PutConversation(&c) })
	check()
	again := c
	again.Row, again.Title = 0, "by id"
	w.write(func(tx *Tx) error { return tx.PutConversation(&again) })
	if c.Title, c.Changed = "by id", again.Changed; again.Row != c.Row {
		t.Errorf("the same id got row %d, want %d", again.Row, c.Row)
	}
	check()
	again.Row = 999
	if err := w.Write(t.Context(), func(tx *Tx) error { return tx.PutConversation(&again) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("a row that is not there gives %v", err)
	}
	w.read(func(tx *Tx) error {
		all, err := tx.Conversations()
		if len(all) != 4 {
			t.Errorf("%d conversations, want 4", len(all))
		}
		return err
	})
}

func TestControlLatestWins(t *testing.T) {
	w := newWorld(t, "")
	put := func(clock event.Clock, id byte, body string, want bool) {
		t.Helper()
		w.write(func(tx *Tx) error {
			won, err := tx.SetControl(Control{
				Conversation: w.pairs[0].Row, Person: w.persons[0].Person, Type: event.Profile, Key: "k", Clock: clock, ID: event.ID{id}, Body: []byte(body),
			})
			if won != want {
				t.Errorf("clock %d, id %d: won is %v", clock, id, won)
			}
			return err
		})
	}
	put(5, 1, "first", true)
	put(5, 1, "first", false)
	put(4, 9, "older", false)
	put(5, 2, "same clock, higher id", true)
	put(6, 0, "latest", true)
	w.read(func(tx *Tx) error {
		c, err := tx.Control(w.pairs[0].Row, w.persons[0].Person, event.Profile, "k")
		if string(c.Body) != "latest" || c.Clock != 6 {
			t.Errorf("stored is %+v", c)
		}
		if _, err := tx.Control(w.pairs[0].Row, w.persons[0].Person, event.Profile, "other"); !errors.Is(err, ErrNotFound) {
			t.Errorf("another key gives %v", err)
		}
		return err
	})
}

func TestInvites(t *testing.T) {
	w := newWorld(t, "")
	i := Invite{TokenHash: [32]byte{7}, Created: w.start, Expires: w.start.Add(time.Hour), Many: true}
	w.write(func(tx *Tx) error { return tx.PutInvite(&i) })
	i.Uses, i.UsedBy = 2, w.persons[0].Person
	w.write(func(tx *Tx) error { return tx.PutInvite(&i) })
	w.read(func(tx *Tx) error {
		got, err := tx.InviteByToken(i.TokenHash)
		if diff := cmp.Diff(i, got); diff != "" {
			t.Errorf("stored and read differ (-want +got):\n%s", diff)
		}
		return err
	})
	w.write(func(tx *Tx) error { return tx.RevokeInvite(i.Row) })
	w.read(func(tx *Tx) error {
		got, err := tx.InviteByRow(i.Row)
		if err != nil || !got.Revoked || got.Changed <= i.Changed {
			t.Errorf("after the revocation: %+v, %v", got, err)
		}
		all, err := tx.Invites()
		if len(all) != 1 {
			t.Errorf("%d invites", len(all))
		}
		return err
	})
	for _, f := range []func(*Tx) error{
		func(tx *Tx) error { return tx.RevokeInvite(99) },
		func(tx *Tx) error { _, err := tx.InviteByToken([32]byte{}); return err },
	} {
		if err := w.Write(t.Context(), f); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown invite gives %v", err)
		}
	}
}
