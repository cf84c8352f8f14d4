package store

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogIsEmptiedSoon: a second after the last commit, and under load every half minute; a reader who stays puts it
// off, and stops no writer.
func TestLogIsEmptiedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opened := time.Now()
		s := openTest(t, Options{Dir: dir})
		wal := func() int64 {
			fi, err := os.Stat(filepath.Join(dir, AccountFile+"-wal"))
			check(t, err)
			return fi.Size()
		}
		n := 0
		put := func() {
			n++
			check(t, s.Write(t.Context(), func(tx *Tx) error {
				return tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(?, x'', x'', 1)", n)
			}))
		}
		rest := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		put()
		rest(restCheckpoint / 2)
		if wal() == 0 {
			t.Error("emptied within an exchange")
		}
		rest(2 * restCheckpoint)
		if wal() > 0 {
			t.Errorf("%d bytes in the log at rest", wal())
		}
		// Under load: at no time holds it more than half a minute.
		longest, since := time.Duration(0), time.Now()
		last := wal()
		for begin := time.Now(); time.Since(begin) < 5*time.Minute; rest(restCheckpoint / 4) {
			put()
			if now := wal(); now < last {
				since, last = time.Now(), now
			} else {
				last = now
			}
			longest = max(longest, time.Since(since))
		}
		t.Logf("under load the log was emptied after %v at the latest", longest)
		if longest > busyCheckpoint+2*restCheckpoint || longest < busyCheckpoint/2 {
			t.Errorf("under load the log was emptied after %v, want about %v", longest, busyCheckpoint)
		}
		// A reader who stays.
		inside, leave := make(chan struct{}), make(chan struct{})
		left := make(chan error)
		go func() {
			left <- s.Read(t.Context(), func(tx *Tx) error {
				_, err := tx.one("SELECT n FROM row", nil)
				close(inside)
				<-leave
				return err
			})
		}()
		<-inside
		slowest := time.Duration(0)
		for range 20 {
			begin := time.Now()
			put()
			slowest = max(slowest, time.Since(begin))
			rest(3 * restCheckpoint)
		}
		if wal() == 0 {
			t.Error("the reader was not in the way: the test proves nothing")
		}
		if slowest > 0 {
			t.Errorf("a writer waited %v for a truncation that waited for a reader", slowest)
		}
		// Nor does the look at databases that rest.
		for range 20 {
			rest(2*idleCheckpoint - time.Since(opened)%idleCheckpoint + 500*time.Millisecond)
			begin := time.Now()
			put()
			slowest = max(slowest, time.Since(begin))
		}
		if slowest > readersLeave {
			t.Errorf("a writer waited %v when the database had rested, for a truncation that waited for a reader", slowest)
		}
		close(leave)
		check(t, <-left)
		rest(2 * restCheckpoint)
		if wal() > 0 {
			t.Errorf("%d bytes in the log after the reader has left", wal())
		}
		// A crash leaves a log to the next start.
		put()
		crashed := t.TempDir()
		copyHome(t, dir, crashed)
		next := openTest(t, Options{Dir: crashed})
		rest(2 * restCheckpoint)
		if fi, err := os.Stat(filepath.Join(crashed, AccountFile+"-wal")); err != nil || fi.Size() > 0 {
			t.Errorf("the log of a crashed home after a start: %v, %v", fi, err)
		}
		check(t, next.Close())
		if h := s.Health(); h.FailedCheckpoints > 0 {
			t.Errorf("%d checkpoints failed", h.FailedCheckpoints)
		}
		check(t, s.Close())
	})
}
