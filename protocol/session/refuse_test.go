package session

import (
	"slices"
	"testing"
	"time"
)

// TestRefuse: what opened and was not kept is never receipted, not after a restart
// and however much came around it, until the sender has voided it.
func TestRefuse(t *testing.T) {
	a, b, now := newSide(t, "ann", ""), newSide(t, "bob", ""), epoch0
	start(now, a, b, true)
	b.open(now, a.say(now, b, "1"))
	settle(now, a, b)
	var items []Sealed
	for range 40 {
		items = append(items, a.seal(now, b, "x"))
	}
	o, err := b.m.Open(now, a.cell(now, b, items...))
	if err != nil || len(o.Messages) != 40 {
		t.Fatalf("%d messages, %v", len(o.Messages), err)
	}
	refused := []uint64{}
	for _, m := range o.Messages[2:38] { // more than a mark can name
		refused = append(refused, m.Seq)
	}
	slices.Reverse(refused)
	if err := b.m.Refuse(now, o.Session, append(refused, refused[0], 0, MaxSeq)); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(refused)
	b.save()
	b.restart()
	reply := a.open(now, b.cell(now, a))
	if reply.Mark == nil || reply.Mark.Upto != refused[MaxMissing]-1 || !slices.Equal(reply.Mark.Missing, refused[:MaxMissing]) {
		t.Fatalf("mark %+v, want up to %d without %v", reply.Mark, refused[MaxMissing]-1, refused[:MaxMissing])
	}
	for _, m := range o.Messages {
		if got, want := reply.Mark.Covers(m.Seq), m.Seq < refused[0]; got != want {
			t.Errorf("message %d: receipted %v", m.Seq, got)
		}
	}
	if len(reply.Repeat) != 1 || !slices.Equal(reply.Repeat[0].Seqs, refused) {
		t.Fatalf("asked for %+v", reply.Repeat)
	}
	// Sent again as they are, nothing is delivered twice.
	if o := b.open(now, a.cell(now, b, items[:2]...)); len(o.Messages) != 0 {
		t.Errorf("came again: %+v", o)
	}
	settle(now, a, b)
	if x := b.session(t, a); len(x.Missing) != 0 {
		t.Errorf("missing after all were voided: %v", x.Missing)
	}
	wantTexts(t, "under another number", texts(b.open(now, a.say(now, b, "anew"))), "anew")
	if err := b.m.Refuse(now.Add(time.Hour), ID{1}, []uint64{1}); err == nil {
		t.Error("a session that does not exist refused a message")
	}
}
