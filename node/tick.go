package node

import (
	"time"

	"github.com/kinloom/kinloom/node/store"
)

const (
	// sleepJump is how far wall clock and timer may part before the node takes
	// it that the machine slept, or that somebody set the clock.
	sleepJump = 30 * time.Second
	// housekeeping is how often retention and certificates are looked at.
	housekeeping = time.Hour
)

// tick looks up what is due: gaps that waited long enough, receipts that did
// not come, devices to try again, certificates to renew, messages to expire.
func (l *loop) tick(tx *store.Tx) error {
	now := l.now()
	l.jumped(now)
	if l.ticks++; l.ticks%knownEvery == 1 {
		l.tellKnown()
		if err := l.slip(tx); err != nil {
			return err
		}
	}
	if l.told.waits && l.told.take(now) {
		l.unplace()
	}
	if err := l.keepVeil(tx, now, false); err != nil {
		return err
	}
	for _, o := range l.acct.sessions.Tick(now) {
		if err := l.opened(tx, nil, o); err != nil {
			return err
		}
	}
	for _, d := range l.acct.devices {
		if !l.paused() {
			if err := l.tellPlace(tx, d); err != nil {
				return err
			}
		}
		l.due(d, now)
		l.shorten(d, now) // also where the connection came while it was being dialled
	}
	// The other side of a link that this one dialled may use it, and never may write
	// if another one became this side's way before a word was said there.
	for k := range l.links {
		if d, ok := l.acct.devices[k.device]; ok && k.known && k.quiet && k != d.queue.link {
			l.then(func() { l.speakFirst(k, d, now) })
		}
	}
	due := now.Sub(l.kept) >= housekeeping || now.Before(l.kept)
	if due || l.more && !l.paused() {
		if _, err := l.expire(tx); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	l.kept = now
	return l.renew(tx, now)
}

// expire deletes a step of what was cleared or is too old. If there may be more, the
// next tick goes on with it.
func (l *loop) expire(tx *store.Tx) (more bool, err error) {
	emptied, err := tx.Expire(l.now())
	l.more = emptied > 0
	return l.more, err
}

// due sends again what got no receipt, and tries again to reach a device.
func (l *loop) due(d *device, now time.Time) {
	q := &d.queue
	switch {
	case q.link == nil:
		if q.pending() && !now.Before(q.tryAt) {
			l.touch(d)
		}
	case q.sent > 0 && now.Sub(q.items[0].sent) >= max(q.wait, resendAfter):
		q.doubted(doubtTime)
		q.wait = min(max(q.wait, resendAfter)*2, resendMax)
		q.rewind()
		l.touch(d)
	case q.late(now):
		q.doubted(doubtTime)
		l.touch(d)
	default:
		l.rest(d, now)
		l.touch(d) // what waits for a bundle asks again when that is due
	}
}

// jumped notices that the machine slept or the clock was set: every wait is
// over then, and every device is tried at once.
func (l *loop) jumped(now time.Time) {
	timer := time.Now()
	if !l.lastTimer.IsZero() {
		drift := now.Sub(l.lastNow) - timer.Sub(l.lastTimer)
		slept := timer.Sub(l.lastTimer)
		if drift.Abs() > sleepJump || slept > sleepJump {
			l.log.Info("the clock jumped; trying every route again")
			l.tryAll()
		}
	}
	l.lastNow, l.lastTimer = now, timer
}

// tryAll has every device tried at once, and looked for: the network is another one,
// or the time.
func (l *loop) tryAll() {
	for _, d := range l.acct.devices {
		d.queue.tryAt, d.queue.fails = time.Time{}, 0
		d.queue.findAt, d.queue.finds = time.Time{}, min(d.queue.finds, findsMoved)
		d.queue.ring = true
		if d.queue.link != nil {
			d.queue.doubted(doubtMoved) // the way that it went may be gone, which QUIC notices late
		}
		l.touch(d)
	}
}
