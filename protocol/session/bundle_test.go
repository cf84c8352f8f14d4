package session

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// TestBundles: the static bundle is the same for a week and made anew when the
// log changes; a once bundle is good for one start; both end in time.
func TestBundles(t *testing.T) {
	b := newSide(t, "bob", "1")
	day := 24 * time.Hour
	first := b.bundle(epoch0, false)
	b.restart()
	if !bytes.Equal(first, b.bundle(epoch0.Add(6*day), false)) {
		t.Error("another static bundle within the week")
	}
	if bytes.Equal(first, b.bundle(epoch0.Add(7*day), false)) {
		t.Error("the same static bundle after a week")
	}
	week := b.bundle(epoch0.Add(8*day), false)
	b.self.Head = identity.Head{1}
	b.m.SetHead(b.self.Head)
	if bytes.Equal(week, b.bundle(epoch0.Add(8*day), false)) {
		t.Error("the static bundle states an old head")
	}
	if bytes.Equal(b.bundle(epoch0, true), b.bundle(epoch0, true)) {
		t.Error("two once bundles are the same")
	}
	for _, x := range []struct {
		after time.Duration
		once  bool
		want  error
	}{{30 * day, false, nil}, {31 * day, false, ErrExpired}, {OnceLife - time.Second, true, nil}, {OnceLife, true, ErrExpired}} {
		c := newSide(t, "bob", "1")
		if _, err := ParseBundle(c.bundle(epoch0, x.once), c.self.Key.Public(), epoch0.Add(x.after)); !errors.Is(err, x.want) {
			t.Errorf("once %v after %v: %v, want %v", x.once, x.after, err, x.want)
		}
	}
	b.m.Tick(epoch0.Add(80 * day))
	b.save()
	if len(b.m.bundles) != 0 {
		t.Errorf("%d bundles after their time", len(b.m.bundles))
	}
	for key := range b.disk {
		if key[0] == 'b' {
			t.Errorf("row %q is left", key)
		}
	}
}

// TestOnceBundleIsUsedOnce: two starts to one once bundle, of which the second
// finds nothing.
func TestOnceBundleIsUsedOnce(t *testing.T) {
	a, b, c := newSide(t, "alice", "1"), newSide(t, "bob", "1"), newSide(t, "carol", "1")
	meet(a, b)
	meet(c, b)
	signed := b.bundle(epoch0, true)
	for _, s := range []*side{a, c} {
		if err := s.m.Start(epoch0, b.remote(), signed); err != nil {
			t.Fatal(err)
		}
	}
	b.open(epoch0, a.say(epoch0, b, "first"))
	b.restart()
	b.refuses(t, "second", c.say(epoch0, b, "second"), ErrReplay)
}

// TestOnceBundleLimit: H15. The once bundles that are out are bounded, and whoever
// asks for many takes them from himself: what others are given after it is good for
// a start all the same, and not the static one.
func TestOnceBundleLimit(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	meet(a, b)
	first := b.bundle(epoch0, true)
	for i := range maxOnce {
		id := [8]byte{byte(i >> 8), byte(i)}
		b.m.bundles = append(b.m.bundles, &bundle{ID: id, Once: true, Created: epoch0.Unix(), Expiry: epoch0.Unix() + 10, tag: newTagger([32]byte{})})
	}
	signed, err := b.m.Bundle(epoch0, true)
	if err != nil {
		t.Fatalf("bundle 1,026: %v", err)
	}
	b.save()
	out := 0
	for _, x := range b.m.bundles {
		if x.Once && !x.Used {
			out++
		}
	}
	if out > maxOnce {
		t.Errorf("%d once bundles are out, want at most %d", out, maxOnce)
	}
	if u, err := ParseBundle(signed, b.self.Key.Public(), epoch0); err != nil || !u.Once {
		t.Errorf("after %d: a once bundle %v, %v", maxOnce, u.Once, err)
	}
	if err := a.m.Start(epoch0, b.remote(), first); err != nil {
		t.Fatal(err)
	}
	b.refuses(t, "the oldest", a.say(epoch0, b, "to what is gone"), ErrUnknown)
	if err := a.m.Start(epoch0, b.remote(), signed); err != nil {
		t.Fatal(err)
	}
	b.open(epoch0, a.say(epoch0, b, "to the newest"))
}

// TestRemotes: what the machine is told of other devices is checked, kept, and
// replaced by what is newer; a record before the newest still opens a start.
func TestRemotes(t *testing.T) {
	a, b := newSide(t, "alice", "1"), newSide(t, "bob", "1")
	bad := a.remote()
	bad.Device[0] ^= 1
	if err := b.m.SetRemote(bad); !errors.Is(err, identity.ErrRecord) {
		t.Errorf("record of another device: %v", err)
	}
	if err := b.m.SetRemote(b.remote()); !errors.Is(err, identity.ErrRecord) {
		t.Errorf("the device itself: %v", err)
	}
	bad = a.remote()
	bad.Record.Suite = 2
	if err := b.m.SetRemote(bad); !errors.Is(err, ErrSuite) {
		t.Errorf("suite 2: %v", err)
	}
	start(epoch0, a, b, true)
	cell := a.say(epoch0, b, "with the old record")
	renewed := a.remote()
	renewed.RecordHash[0] ^= 1
	if err := b.m.SetRemote(renewed); err != nil {
		t.Fatal(err)
	}
	b.save()
	b.restart()
	wantTexts(t, "old record", texts(b.open(epoch0, cell)), "with the old record")
	if len(b.m.Dirty()) != 0 {
		t.Error("a machine without change has rows to write")
	}
	if err := b.m.SetRemote(renewed); err != nil || len(b.m.Dirty()) != 0 {
		t.Errorf("told again: %v", err)
	}
}

// TestLoadDamaged: each row that is cut, or that stands without what it belongs
// to, is an error that names it, and never a panic.
func TestLoadDamaged(t *testing.T) {
	a, b := talking(t)
	a.say(epoch0, b, "lost")
	b.open(epoch0, a.say(epoch0, b, "held"))
	for _, s := range []*side{a, b} {
		for i, r := range s.rows() {
			rows := s.rows()
			for n := range rows {
				if rows[n].Key == r.Key {
					rows[n].Value = rows[n].Value[:len(rows[n].Value)/2]
				}
			}
			_, err := Load(s.self, s.rnd, rows)
			// Half a row of held bytes or fingerprints has no form of its own:
			// its pages are sealed by the store.
			if !errors.Is(err, ErrDamaged) && r.Key[0] != rowHeld && r.Key[0] != rowPrints {
				t.Errorf("half of row %d %q: %v", i, r.Key, err)
			}
			if r.Key[0] == rowFixed || r.Key[0] == rowMoving || r.Key[0] == 'r' {
				var without []Record
				for _, x := range s.rows() {
					if x.Key != r.Key {
						without = append(without, x)
					}
				}
				if _, err := Load(s.self, s.rnd, without); !errors.Is(err, ErrDamaged) {
					t.Errorf("without %q: %v", r.Key, err)
				}
			}
		}
	}
	if _, err := Load(a.self, a.rnd, []Record{{"z/1", nil}}); !errors.Is(err, ErrDamaged) {
		t.Errorf("unknown row: %v", err)
	}
}
