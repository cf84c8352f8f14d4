package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// MaxLoad is the share of the machine's processors, from 0 to 1, that other
// programs may use before a verdict is withheld.
const MaxLoad = 0.1

// reading is how much processor time was used up to a moment.
type reading struct {
	at    time.Time
	busy  time.Duration // by everybody, on all processors
	own   time.Duration // by this process
	known bool
}

func readClock() reading {
	r := reading{at: time.Now(), own: ownTime()}
	r.busy, r.known = busyTime()
	return r
}

// others gives the share of the machine that other programs used up to a later
// reading.
func (r reading) others(later reading) (share float64, known bool) {
	span := later.at.Sub(r.at)
	if !r.known || !later.known || span <= 0 {
		return 0, false
	}
	used := later.busy - r.busy - (later.own - r.own)
	return max(0, used.Seconds()/span.Seconds()/float64(runtime.NumCPU())), true
}

// restingLoad is the share that others use while this process does nothing.
func restingLoad(ctx context.Context, d time.Duration) (share float64, known bool, err error) {
	begin := readClock()
	if err := rest(ctx, d); err != nil {
		return 0, false, err
	}
	share, known = begin.others(readClock())
	return share, known, nil
}

// machineNote describes the machine in a few words.
func machineNote() string {
	note := fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if average := loadAverage(); average != "" {
		note += ", load average " + average
	}
	return note
}
