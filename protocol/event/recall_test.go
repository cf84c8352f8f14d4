package event

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kinloom/kinloom/identity"
)

// TestRecall: a machine that lacks the newest events, and is told of them again,
// is where the one is that saw them come.
func TestRecall(t *testing.T) {
	self := Context{Conversation: PairID(ann, bob), Author: ann, Device: annPhone}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		now := noon
		type stored struct {
			at  time.Time
			dev identity.DeviceID
			id  ID
			e   Event
		}
		var all []stored
		live := NewMachine(self)
		devices := []identity.DeviceID{annDesk, bobPhone}
		next := map[identity.DeviceID]uint64{}
		var skipped []stored
		for range 1 + r.IntN(60) {
			now = now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			if r.IntN(3) == 0 {
				made, err := live.Next(now, Message, "", must(Text{Text: "hi"}.Append()))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, stored{now, self.Device, made.ID, made.Event})
				continue
			}
			dev := devices[r.IntN(len(devices))]
			next[dev]++
			e := Event{Seq: next[dev], Clock: clockAt(now.Add(time.Duration(r.IntN(60)-30) * time.Hour)), Type: Message}
			if len(all) > 0 && r.IntN(2) == 0 {
				e.Parents = []ID{all[r.IntN(len(all))].id}
			}
			var id ID
			id[0], id[1], id[2] = dev[0], byte(e.Seq), 1
			s := stored{now, dev, id, e}
			if r.IntN(5) == 0 {
				skipped = append(skipped, s) // it comes late
				continue
			}
			come := []stored{s}
			if len(skipped) > 0 && r.IntN(2) == 0 {
				late := skipped[0]
				late.at = now
				come, skipped = append(come, late), skipped[1:]
			}
			for _, s := range come {
				live.Observe(s.at, s.dev, s.id, s.e, ID{})
				all = append(all, s)
			}
		}
		// Load as of any moment, then recall the rest.
		cut := r.IntN(len(all) + 1)
		early := NewMachine(self)
		latest := map[identity.DeviceID]Latest{}
		for _, s := range all[:cut] {
			early.Recall(s.at, s.dev, s.id, s.e)
			if s.e.Seq > latest[s.dev].Seq {
				latest[s.dev] = Latest{Device: s.dev, Seq: s.e.Seq, ID: s.id, Clock: s.e.Clock}
			}
		}
		loaded := LoadMachine(self, early.Clock(), early.Heads(), slices.Collect(maps.Values(latest)))
		for _, s := range all[cut:] {
			loaded.Recall(s.at, s.dev, s.id, s.e)
		}
		if !slices.Equal(loaded.Heads(), live.Heads()) || loaded.Clock() != live.Clock() || loaded.Seq() != live.Seq() {
			t.Fatalf("seed %d: recalled from %d of %d: clock %d, seq %d, heads %x; want %d, %d, %x", seed, cut, len(all),
				loaded.Clock(), loaded.Seq(), loaded.Heads(), live.Clock(), live.Seq(), live.Heads())
		}
	}
}
