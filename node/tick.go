package node

import (
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
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
	for _, o := range l.acct.sessions.Tick(now) {
		if err := l.opened(tx, nil, o); err != nil {
			return err
		}
	}
	for _, d := range l.acct.devices {
		l.due(d, now)
	}
	if now.Sub(l.kept) < housekeeping && !now.Before(l.kept) {
		return nil
	}
	l.kept = now
	if _, err := tx.Expire(now); err != nil {
		return err
	}
	return l.renew(tx, now)
}

// due sends again what got no receipt, and tries again to reach a device.
func (l *loop) due(d *device, now time.Time) {
	q := &d.queue
	switch {
	case q.link == nil:
		if q.pending() && !now.Before(q.tryAt) {
			l.touch(d)
		}
	case q.sent > 0 && now.Sub(q.oldest) >= max(q.wait, resendAfter):
		q.wait = min(max(q.wait, resendAfter)*2, resendMax)
		q.rewind()
		l.touch(d)
	default:
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
			for _, d := range l.acct.devices {
				d.queue.tryAt, d.queue.fails = time.Time{}, 0
				l.touch(d)
			}
		}
	}
	l.lastNow, l.lastTimer = now, timer
}

// renew renews this device's certificate from day 60 on, while the log key is
// here, and tells the contacts.
func (l *loop) renew(tx *store.Tx, now time.Time) error {
	l.warnings = nil
	own, ok := l.acct.devices[l.acct.device]
	if !ok {
		return nil
	}
	log := l.acct.logs[l.acct.me]
	state, ok := log.Device(l.acct.device)
	if !ok || state.At(now) != identity.StandingDue && state.At(now) != identity.StandingExpired {
		return nil
	}
	if l.secrets.Log == nil {
		l.warnings = append(l.warnings, fmt.Sprintf("This device's certificate ends on %s and the key that renews it is not here.", time.Unix(state.Expiry, 0).UTC().Format(time.DateOnly)))
		return nil
	}
	key, record := identity.NewDeviceKey(l.secrets.Device), l.acct.self.Record
	record.NotBefore, record.Expiry = now.Unix(), now.Add(identity.Lifetime).Unix()
	signed, err := identity.SignDeviceRecord(key, record)
	if err != nil {
		return err
	}
	renewed, err := log.RenewDevice(identity.NewLogKey(*l.secrets.Log), signed, now)
	if err != nil {
		return fmt.Errorf("renew the device certificate: %w", err)
	}
	if err := tx.PutLog(l.acct.me, renewed.Entries()); err != nil {
		return err
	}
	own.Record = signed
	if err := tx.PutDevice(&own.Device); err != nil {
		return err
	}
	record, hash, err := identity.ParseDeviceRecord(signed)
	if err != nil {
		return err
	}
	l.acct.logs[l.acct.me] = renewed
	l.acct.self.Record, l.acct.self.RecordHash, l.acct.self.Head = record, hash, renewed.Head()
	l.acct.sessions.SetRecord(record, hash)
	l.acct.sessions.SetHead(renewed.Head())
	return l.announceLog(tx)
}

// announceLog tells every contact and own device of the own log's new entries.
func (l *loop) announceLog(tx *store.Tx) error {
	for _, c := range l.acct.convs {
		if l.maySay(c) != nil {
			continue
		}
		if err := l.announceLogIn(tx, c); err != nil {
			return err
		}
	}
	return nil
}

// announceLogIn tells the persons of one conversation of the own log.
func (l *loop) announceLogIn(tx *store.Tx, c *conversation) error {
	body, err := event.Entries{Entries: l.acct.logs[l.acct.me].Entries()}.Append()
	if err != nil {
		return err
	}
	_, err = l.speak(tx, c, event.Log, "", body)
	return err
}
