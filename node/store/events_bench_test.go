package store

import (
	"fmt"
	"testing"

	"github.com/kinloom/kinloom/node/corpus"
	"github.com/kinloom/kinloom/protocol/session"
)

// BenchmarkBatch stores what a batch of the account loop stores: events, their
// outbox rows, receipts for the batch before, the session and the conversation.
// It is the raw part of the figures of `kinloom bench`; one op is one message.
func BenchmarkBatch(b *testing.B) {
	for _, group := range []int{1, 64, 256} {
		b.Run(fmt.Sprint("group=", group), func(b *testing.B) {
			w := newWorld(b, b.TempDir())
			text, inner, state := corpus.New(1).Text(1024), make([]byte, 1100), make([]byte, 600)
			events := make([]Event, group)
			rows := make([]Row, 0, group)
			seq := uint64(0)
			for b.Loop() {
				if seq++; seq%uint64(group) != 0 {
					continue // one op is one message
				}
				b.StopTimer()
				for i := range events {
					s := seq - uint64(group) + uint64(i) + 1
					events[i] = w.message(0, true, s, float64(s)/1000, text)
				}
				b.StartTimer()
				w.write(func(tx *Tx) error { return storeBatch(tx, w, events, &rows, inner, state) })
			}
		})
	}
}

func storeBatch(tx *Tx, w *world, events []Event, rows *[]Row, inner, state []byte) error {
	if n := len(*rows); n > 0 {
		if err := tx.DeleteOutbox(*rows); err != nil {
			return err
		}
		*rows = (*rows)[:0]
		first := events[0].Seq
		d := Delivery{Conversation: w.pairs[0].Row, Device: w.devices[0].Row, From: first - uint64(n), To: first - 1, Sent: events[0].At, At: events[0].At}
		if err := tx.AddDelivery(d); err != nil {
			return err
		}
	}
	for i := range events {
		e := &events[i]
		if _, err := tx.InsertEvent(e); err != nil {
			return err
		}
		o := Outbox{
			Device: w.devices[0].Row, Event: e.Row, Conversation: e.Conversation, EventSeq: e.Seq, Seq: e.Seq, Inner: inner, Queued: e.At,
		}
		if err := tx.InsertOutbox(&o); err != nil {
			return err
		}
		*rows = append(*rows, o.Row)
	}
	if err := tx.PutRecords([]session.Record{{Key: "s", Value: state}}); err != nil {
		return err
	}
	return tx.PutConversation(&w.pairs[0])
}
