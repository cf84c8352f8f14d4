package identity

import (
	"errors"
	"testing"

	"github.com/kinloom/kinloom/identity/enc"
)

// FuzzParseLog: whatever comes in, what comes out is the verified part, which
// verifies again, and merges with itself and with a sound log.
func FuzzParseLog(f *testing.F) {
	for _, v := range readVectors(f, "log.json") {
		f.Add(v.bytes(f))
	}
	sound := begin(f, testRoot(1), testLogKey(1)).add(1).log
	f.Fuzz(func(t *testing.T, b []byte) {
		var m logMessage
		if enc.Unmarshal(b, &m) != nil {
			return
		}
		l, err := ParseLog(m.Person, m.Entries)
		if l == nil {
			if _, ok := errors.AsType[*LogError](err); !ok && !errors.Is(err, ErrKey) {
				t.Fatalf("no log and no reason: %v", err)
			}
			return
		}
		again, err2 := ParseLog(l.Person(), l.Entries())
		if err2 != nil || again.Head() != l.Head() || (err == nil) != (len(m.Entries) == len(l.entries)) {
			t.Fatalf("verified part does not verify: %v, %v", err, err2)
		}
		if same, err := l.Merge(again); err != nil || same != l {
			t.Fatalf("merge with itself: %v", err)
		}
		if kept, _ := sound.Merge(l); kept == nil && l.Person() == sound.Person() {
			t.Fatal("merge lost the log")
		}
	})
}
