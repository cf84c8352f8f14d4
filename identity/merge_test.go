package identity

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func merge(t *testing.T, l, other *Log) (*Log, error) {
	t.Helper()
	m, err := l.Merge(other)
	if m == nil {
		t.Fatalf("merge: no log, %v", err)
	}
	return m, err
}

func TestMergeNewerAndRollback(t *testing.T) {
	w := begin(t, testRoot(1), testLogKey(1)).add(1)
	old := w.log
	w.add(2).revoke(1)
	l, err := merge(t, old, w.log)
	if err != nil || l.Head() != w.log.Head() {
		t.Errorf("newer: %v, %v", l.Head(), err)
	}
	l, err = merge(t, w.log, old)
	wantErr(t, "older", err, ErrRollback)
	if l != w.log {
		t.Error("older: the longer one was not kept")
	}
	l, err = merge(t, w.log, w.log)
	if err != nil || l != w.log {
		t.Errorf("the same: %v", err)
	}
	if _, err := w.log.Merge(begin(t, testRoot(2), testLogKey(1)).log); !errors.Is(err, ErrPerson) {
		t.Errorf("another person's: %v, want ErrPerson", err)
	}
}

// TestMergeAfterUnknownEntry: a log that ends in something unread is a prefix
// like any other once the rest can be read.
func TestMergeAfterUnknownEntry(t *testing.T) {
	w := begin(t, testRoot(1), testLogKey(1)).add(1)
	unread := forge(t, w.log, testRoot(1).sign, 6, map[int]int{}, nil)
	cut, err := ParseLog(w.log.Person(), append(w.log.Entries(), unread))
	wantErr(t, "parse", err, ErrUnknownEntry)
	longer := w.branch().add(2).log
	l, err := merge(t, cut, longer)
	if err != nil || l.End() != nil || l.Head() != longer.Head() {
		t.Errorf("got %v, %v", l.Head(), err)
	}
	l, err = merge(t, longer, cut)
	wantErr(t, "the other way", err, ErrRollback)
	if l != longer {
		t.Error("the longer one was not kept")
	}
}

// TestFork: equal seq by the same key is an alarm until the root speaks (H45).
func TestFork(t *testing.T) {
	root, key := testRoot(1), testLogKey(1)
	w := begin(t, root, key).add(1)
	mine, theirs := w.branch().add(2), w.branch().add(3).add(4)
	l, err := merge(t, mine.log, theirs.log)
	wantErr(t, "fork", err, ErrFork)
	rival, seq := l.Fork()
	if rival == nil || rival.Head() != theirs.log.Head() || seq != 3 {
		t.Fatalf("rival %v at %d, want the other log at 3", rival, seq)
	}
	if l.Head() != mine.log.Head() || l.Live(day(1)) != nil {
		t.Errorf("forked: head %v, live %v: want ours, and nobody to send to", l.Head(), l.Live(day(1)))
	}
	if _, ok := l.Device(testDevice(2).ID()); !ok {
		t.Error("our device is gone")
	}

	// It stays forked whatever of the same log key comes.
	for name, other := range map[string]*Log{
		"ours":             mine.log,
		"ours, longer":     mine.branch().add(5).log,
		"theirs":           theirs.log,
		"before the fork":  w.log,
		"a third":          w.branch().add(6).log,
		"theirs, forked":   must(theirs.log.Merge(mine.log)),
		"a third and ours": must(w.branch().add(7).log.Merge(mine.log)),
	} {
		m, err := merge(t, l, other)
		wantErr(t, name, err, ErrFork)
		if r, _ := m.Fork(); r == nil || m.Live(day(1)) != nil {
			t.Errorf("%s: the alarm is over", name)
		}
	}
	m, _ := merge(t, l, mine.branch().add(5).log)
	if m.Seq() != 4 {
		t.Error("ours does not go on while forked")
	}
	m, _ = merge(t, l, theirs.branch().add(5).log)
	if r, _ := m.Fork(); r.Seq() != 5 {
		t.Error("the rival does not go on while forked")
	}

	// The log key cannot write any more, the root can.
	_, err = l.AddDevice(key, signedRecord(t, root.Person(), 8, day0()), testDevice(8), day0())
	wantErr(t, "add while forked", err, ErrFork)
	_, err = l.RevokeDevice(key, testDevice(1).ID(), day0())
	wantErr(t, "revoke while forked", err, ErrFork)
	for _, from := range []uint64{2, 3, 4} { // before, at, and behind the first difference
		healed, err := l.SupersedeLogKey(root, testLogKey(2).Public(), from, day(1))
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := healed.Fork(); r != nil {
			t.Errorf("from %d: still forked", from)
		}
		for name, other := range map[string]*Log{"ours": mine.log, "theirs": theirs.log, "forked": l} {
			m, err := merge(t, other, healed)
			if err != nil || m.Head() != healed.Head() || m.Live(day(1)) == nil && from > 2 {
				t.Errorf("from %d, known to %s: %v", from, name, err)
			}
			m, err = merge(t, healed, other)
			if !errors.Is(err, ErrRollback) || m != healed {
				t.Errorf("from %d, then %s arrives: %v", from, name, err)
			}
		}
	}
}

func must(l *Log, _ error) *Log { return l }

// TestRootFork: not even the root may write one number twice; more root-signed
// entries decide.
func TestRootFork(t *testing.T) {
	root := testRoot(1)
	w := begin(t, root, testLogKey(1)).add(1)
	a, b := w.branch().supersede(root, testLogKey(2), 3), w.branch().supersede(root, testLogKey(3), 3)
	early := w.branch().supersede(root, testLogKey(4), 2)
	for name, other := range map[string]*Log{"same number": b.log, "other number": early.log} {
		l, err := merge(t, a.log, other)
		wantErr(t, name, err, ErrFork)
		c := (&writer{t: t, log: l, at: day0()}).supersede(root, testLogKey(5), l.Seq()+1)
		m, err := merge(t, other, c.log)
		if err != nil || m.Head() != c.log.Head() {
			t.Errorf("%s: one more by the root does not decide: %v", name, err)
		}
	}
	// Two beginnings, as after a restore that found no log to go on from.
	again := &writer{t: t, at: day(1)}
	again.take(NewLog(root, testLogKey(6).Public(), day(1)))
	l, err := merge(t, w.log, again.log)
	wantErr(t, "two beginnings", err, ErrFork)
	if _, seq := l.Fork(); seq != 0 {
		t.Errorf("two beginnings differ from entry %d, want 0", seq)
	}
	again.supersede(root, testLogKey(7), 2)
	l, err = merge(t, l, again.log)
	if err != nil || l.Head() != again.log.Head() {
		t.Errorf("two beginnings are not decided by the root: %v", err)
	}
}

// TestStolenLogKey is H136: the thief adds his devices and revokes the
// owner's; the owner answers from the recovery words; the thief goes on. In
// every order of arrival the same log stands, without the thief's devices from
// the answer on.
func TestStolenLogKey(t *testing.T) {
	root, stolen := testRoot(1), testLogKey(1)
	w := begin(t, root, stolen).add(1).add(2)               // entries 2 and 3
	thief := w.branch().add(50).revoke(1).revoke(2).add(51) // 4 to 7
	thief.at = day(1)
	late := thief.branch().add(52).add(53) // answers the answer
	parallel := w.branch().add(60)         // and writes another story at 4

	for _, tt := range []struct {
		name  string
		known *writer // what the owner's restore found
		from  uint64
		want  []DeviceID
	}{
		{"earlier than the thief's entries", thief, 3, ids(1, 7)},
		{"at the first of the thief's entries", thief, 4, ids(1, 2, 7)},
		{"in the middle of them", thief, 6, ids(2, 50, 7)}, // 4 and 5 stand until revoked
		{"behind all of them", thief, 8, ids(50, 51, 7)},
		{"without having seen them", w, 4, ids(1, 2, 7)},
	} {
		owner := tt.known.branch()
		owner.at = day(2)
		owner.supersede(root, testLogKey(2), tt.from).add(7)
		if got := owner.log.Live(day(2)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: live %v, want %v", tt.name, got, tt.want)
		}
		arriving := []*Log{w.log, thief.log, late.log, parallel.log, owner.log}
		permute(arriving, func(order []*Log) {
			l := order[0]
			for _, next := range order[1:] {
				l, _ = merge(t, l, next)
			}
			rival, _ := l.Fork()
			if l.Head() != owner.log.Head() || rival != nil || !slices.Equal(l.Live(day(2)), tt.want) {
				t.Fatalf("%s: head %v, forked %v, live %v", tt.name, l.Head(), rival != nil, l.Live(day(2)))
			}
		})
		// His entries on top of the owner's are no part of the log.
		e := forge(t, owner.log, stolen.sign, EntryDeviceRevoke, deviceRevokeBody{testDevice(7).ID()}, nil)
		l, err := ParseLog(root.Person(), append(owner.log.Entries(), e))
		wantErr(t, tt.name+": the thief on top", err, ErrSignature)
		if l.Head() != owner.log.Head() {
			t.Errorf("%s: the thief on top changed the log", tt.name)
		}
		_, err = merge(t, owner.log, late.log)
		wantErr(t, tt.name+": the thief's log again", err, ErrSuperseded)
		wantErr(t, tt.name+": the thief's log again", err, ErrRollback)
	}
}

// permute calls f with every order of list.
func permute[T any](list []T, f func([]T)) {
	var walk func(int)
	walk = func(n int) {
		if n == len(list) {
			f(list)
			return
		}
		for i := n; i < len(list); i++ {
			list[n], list[i] = list[i], list[n]
			walk(n + 1)
			list[n], list[i] = list[i], list[n]
		}
	}
	walk(0)
}

// TestMergeOrder: of random stories of owner and thief, copies of any age
// arriving in any order end in the same state: the owner's last word, or an
// alarm everywhere.
func TestMergeOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		root := testRoot(1)
		branches := []*writer{begin(t, root, testLogKey(1)).add(0)}
		var copies []*Log
		device, key := 0, 1
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			from := branches[rapid.IntRange(0, len(branches)-1).Draw(rt, "branch")]
			w := from.branch()
			switch rapid.IntRange(0, 3).Draw(rt, "act") {
			case 0: // the root speaks: only the owner has it, and goes on from its last word
				key++
				w = slices.MaxFunc(branches, func(a, b *writer) int { return len(a.log.logKeys) - len(b.log.logKeys) }).branch()
				w.supersede(root, testLogKey(key), rapid.Uint64Range(lastLogKey(t, w.log)+1, w.log.Seq()+1).Draw(rt, "from"))
			default:
				device++
				w.add(device)
			}
			if rapid.Bool().Draw(rt, "fork") {
				branches = append(branches, w)
			} else {
				*from = *w
			}
			copies = append(copies, w.log)
		}
		var heads []Head
		for range 3 {
			order := rapid.Permutation(copies).Draw(rt, "order")
			l := order[0]
			for _, next := range order[1:] {
				var err error
				if l, err = l.Merge(next); l == nil {
					rt.Fatal(err)
				}
			}
			rival, _ := l.Fork()
			want := 0
			for _, c := range copies {
				want = max(want, len(c.logKeys))
			}
			if len(l.logKeys) != want {
				rt.Fatalf("%d log keys, want %d: a superseded key won", len(l.logKeys), want)
			}
			if rival != nil {
				if l.Live(day(1)) != nil {
					rt.Fatal("forked, and still sent to")
				}
				heads = append(heads, Head{})
				continue
			}
			heads = append(heads, l.Head())
		}
		if heads[0] != heads[1] || heads[1] != heads[2] {
			rt.Fatalf("three orders of arrival, ends %v", heads)
		}
	})
}

// lastLogKey is the number of the last log-key entry.
func lastLogKey(t *testing.T, l *Log) uint64 {
	t.Helper()
	for i, b := range slices.Backward(l.entries) {
		if mustEntry(t, b).Type == EntryLogKey {
			return uint64(i)
		}
	}
	t.Fatal("no log key")
	return 0
}
