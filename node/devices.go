package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
)

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
	// The news travels in the sessions of before: those that begin from now on
	// state the new head and record, which the contacts must know by then.
	if err := l.announceLog(tx); err != nil {
		return err
	}
	l.acct.sessions.SetRecord(record, hash)
	l.acct.sessions.SetHead(renewed.Head())
	return nil
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
	news := event.Entries{Entries: l.acct.logs[l.acct.me].Entries()}
	for _, d := range l.acct.devices {
		if state, ok := l.acct.logs[l.acct.me].Device(d.ID); ok && !state.Revoked && len(news.Records) < event.MaxEntries {
			news.Records = append(news.Records, d.Record)
		}
	}
	news.Entries = news.Entries[max(0, len(news.Entries)-event.MaxEntries):]
	body, err := news.Append()
	for errors.Is(err, event.ErrSize) && len(news.Entries) > 1 {
		news.Entries = news.Entries[len(news.Entries)/2:] // the newest matter: who needs more asks for it
		body, err = news.Append()
	}
	if err != nil {
		return err
	}
	_, err = l.speak(tx, c, event.Log, "", body)
	return err
}

// mergeLog takes over what a person tells of their devices, as far as it
// verifies. Entries may be the whole log, or the end of it that continues the
// known one.
func (l *loop) mergeLog(tx *store.Tx, p identity.PersonID, news event.Entries) error {
	known, ok := l.acct.logs[p]
	if !ok {
		return nil
	}
	offered, err := joinLog(known, news.Entries)
	if err != nil {
		l.log.Warn("refused a log that does not verify", "error", err)
		return nil
	}
	merged, err := known.Merge(offered)
	switch {
	case errors.Is(err, identity.ErrFork):
		l.notify(Notice{Kind: "contact", Who: p, Text: "Two versions of this person's device list exist. Nothing secret is sent to new devices until the owner resolves it."})
		return nil
	case err != nil:
		return nil // an older log than the known one
	}
	l.wrote = true
	l.acct.logs[p] = merged
	if err := tx.PutLog(p, merged.Entries()); err != nil {
		return err
	}
	for _, record := range news.Records {
		if err := l.putRecord(tx, p, merged, record); err != nil {
			return err
		}
	}
	for id, d := range l.acct.devices {
		if d.Person != p || id == l.acct.device {
			continue
		}
		if remote, ok := l.acct.remote(id); ok {
			if err := l.acct.sessions.SetRemote(remote); err != nil {
				return err
			}
		}
	}
	return nil
}

// joinLog verifies offered entries: as a log, or behind the part of the known
// one that they continue.
func joinLog(known *identity.Log, entries [][]byte) (*identity.Log, error) {
	log, err := identity.ParseLog(known.Person(), entries)
	if err == nil {
		return log, nil
	}
	have := known.Entries()
	for n := len(have); n > 0; n-- {
		joined, joinErr := identity.ParseLog(known.Person(), append(have[:n:n], entries...))
		if joinErr == nil {
			return joined, nil
		}
	}
	return nil, err
}

// putRecord stores a device record that the log certifies; others are ignored.
func (l *loop) putRecord(tx *store.Tx, p identity.PersonID, log *identity.Log, b []byte) error {
	record, hash, err := identity.ParseDeviceRecord(b)
	if err != nil || record.Person != p {
		return nil
	}
	if _, err := log.Certified(record, hash); err != nil || record.Device.ID() == l.acct.device {
		return nil
	}
	d := store.Device{ID: record.Device.ID(), Person: p}
	if known, ok := l.acct.devices[d.ID]; ok {
		d = known.Device
	}
	d.Record = b
	if err := tx.PutDevice(&d); err != nil {
		return err
	}
	l.acct.addDevice(d)
	return nil
}
