package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/contact"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/session"
)

// renewSteps is how many certificates in a row are made at once, two years of them.
const renewSteps = 12

// renew renews this device's certificate from day 60 on, while the log key is
// here, and tells the contacts. A certificate, and its entry, begins when the one
// before was due and not when it is made: a home that was set back to an older copy
// then makes the very same ones again, and no second log beside the known one.
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
	var steps []session.Self
	next := l.acct.self
	for range renewSteps {
		var err error
		if log, next, err = l.renewOnce(log, next, now, len(steps) == renewSteps-1); err != nil {
			return fmt.Errorf("renew the device certificate: %w", err)
		}
		steps = append(steps, next)
		if next.Record.At(now) == identity.StandingValid {
			break
		}
	}
	if err := tx.PutLog(l.acct.me, log.Entries()); err != nil {
		return err
	}
	if err := tx.PutDevice(&own.Device); err != nil {
		return err
	}
	l.wrote = true
	l.acct.logs[l.acct.me], l.acct.self = log, next
	// The news travels in the sessions of before: those that begin from now on
	// state the new head and record, which the contacts must know by then.
	if err := l.announceLog(tx); err != nil {
		return err
	}
	for _, s := range steps {
		l.acct.sessions.SetRecord(s.Record, s.RecordHash)
		l.acct.sessions.SetHead(s.Head)
	}
	return nil
}

// renewOnce adds the next certificate to the log, the last of many with as much
// time as the steps before it left out.
func (l *loop) renewOnce(log *identity.Log, self session.Self, now time.Time, last bool) (*identity.Log, session.Self, error) {
	due := self.Record.NotBefore + int64(identity.RenewAfter/time.Second)
	if last {
		due = max(due, now.Unix())
	}
	record := self.Record
	record.NotBefore, record.Expiry = due, due+int64(identity.Lifetime/time.Second)
	signed, err := identity.SignDeviceRecord(self.Key, record)
	if err != nil {
		return nil, self, err
	}
	if log, err = log.RenewDevice(identity.NewLogKey(*l.secrets.Log), signed, time.Unix(due, 0)); err != nil {
		return nil, self, err
	}
	l.acct.devices[l.acct.device].Record = signed
	self.Record, self.RecordHash, err = identity.ParseDeviceRecord(signed)
	self.Head = log.Head()
	return log, self, err
}

// announceLog tells every contact and own device of the own log's new entries.
func (l *loop) announceLog(tx *store.Tx) error {
	for _, c := range l.acct.convs {
		if l.maySay(c) != nil {
			continue
		}
		switch err := l.announceLogIn(tx, c); {
		case inputError(err): // no number is left there, say: that must keep no other from hearing it
			l.log.Error("a contact cannot be told of the renewed certificate", "error", err)
		case err != nil:
			return err
		}
	}
	return nil
}

// announceLogIn tells the persons of one conversation of the own log.
func (l *loop) announceLogIn(tx *store.Tx, c *conversation) error {
	news, err := l.news()
	if err != nil {
		return err
	}
	_, err = l.speak(tx, c, event.Log, "", news)
	return err
}

// news is what others have to know of this person's devices: the log, or the end
// of it that fits into one body, and the records that it certifies.
func (l *loop) news() ([]byte, error) {
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
	return body, err
}

// mergeLog takes over what a person tells of their devices, as far as it
// verifies. Entries may be the whole log, or the end of it that continues the
// known one.
func (l *loop) mergeLog(tx *store.Tx, from *device, news event.Entries) error {
	p := from.Person
	known, ok := l.acct.logs[p]
	if !ok {
		return nil
	}
	offered, err := joinLog(known, news.Entries)
	if err != nil {
		l.complain(from, "a log does not verify, or not to its end", err)
	}
	if offered == nil {
		return nil
	}
	merged, err := known.Merge(offered)
	if err != nil && !errors.Is(err, identity.ErrFork) {
		return nil // an older log than the known one
	}
	l.wrote = true
	if merged != known {
		if err := l.keepLog(tx, p, merged); err != nil {
			return err
		}
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

// keepLog stores a person's log, with the other side of a fork beside it, and
// tells the owner of a fork that is new.
func (l *loop) keepLog(tx *store.Tx, p identity.PersonID, log *identity.Log) error {
	var other []byte
	rival, seq := log.Fork()
	if rival != nil {
		b, err := enc.Marshal(rival.Entries())
		if err != nil {
			return err
		}
		other = b
		if known, ok := l.acct.logs[p]; ok {
			if before, _ := known.Fork(); before == nil {
				l.notify(Notice{Kind: "contact", Who: p, Text: fmt.Sprintf("Two different device lists of %s exist from entry %d on: a key of theirs may be stolen. Nothing is sent to them until they resolve it with their recovery words; ask them over another way.", l.acct.shown(p), seq)})
			}
		}
	}
	l.acct.logs[p] = log
	if err := tx.PutLog(p, log.Entries()); err != nil {
		return err
	}
	if err := tx.PutSetting(settingRival+p.String(), other, false); err != nil {
		return err
	}
	for id, d := range l.acct.devices {
		if d.Person != p || id == l.acct.device || l.acct.certifies(d) {
			continue
		}
		l.acct.sessions.Forget(id)
		if err := l.forgetDevice(tx, d, "the device that it was for was revoked"); err != nil {
			return err
		}
	}
	return nil
}

// certifies says whether a device stands in its person's log: not when it was
// revoked, nor when the root has voided what added it. Such a device is not heard.
func (a *account) certifies(d *device) bool {
	log, ok := a.logs[d.Person]
	if !ok {
		return false
	}
	state, ok := log.Device(d.ID)
	return ok && !state.Revoked
}

// shutOut says that nothing of a device is to be taken.
func (l *loop) shutOut(d *device) bool { return l.refused(d) || !l.acct.certifies(d) }

// standing gives the log of a person that an exchange has proved, with what is
// known of it here. An older log can still name a device that is no longer theirs:
// that one is refused, as it must not speak for them again.
func (l *loop) standing(tx *store.Tx, p contact.Peer) (*identity.Log, error) {
	known, ok := l.acct.logs[p.Person()]
	if !ok {
		return p.Log, nil
	}
	merged, err := known.Merge(p.Log)
	if errors.Is(err, identity.ErrFork) {
		if err := l.keepLog(tx, p.Person(), merged); err != nil {
			return nil, err
		}
		return nil, refused("Ask them over another way which devices are theirs.", "two versions of this person's device list exist")
	}
	if state, ok := merged.Device(p.Device()); !ok || state.Revoked {
		l.log.Warn("refused a device that is no longer its person's", "device", p.Device().Short())
		return nil, refused("Ask them for an invite of a device that they still use.", "the device that answered is no longer this person's")
	}
	if d, ok := l.acct.devices[p.Device()]; ok && !l.mayLeave(&d.Device, p.Transport.PeerID()) {
		l.complain(d, keysOften, nil)
		return nil, refused("Ask them what is wrong with their node.", "the device that answered has changed its transport key too often")
	}
	return merged, nil
}

// settingRival begins the name under which the other side of a forked log lies.
const settingRival = "rival log "

// loadLog reads a person's log, with the other side of a fork if there is one.
func loadLog(tx *store.Tx, p identity.PersonID) (*identity.Log, error) {
	entries, err := tx.Log(p)
	if err != nil {
		return nil, err
	}
	log, err := identity.KnownLog(p, entries)
	if err != nil {
		return nil, fmt.Errorf("log of a contact: %w", err)
	}
	other, err := tx.Setting(settingRival + p.String())
	if isNotFound(err) || err == nil && len(other) == 0 {
		return log, nil
	}
	if err != nil {
		return nil, err
	}
	if err := enc.Unmarshal(other, &entries); err != nil {
		return nil, fmt.Errorf("other side of a forked log: %w", err)
	}
	rival, err := identity.KnownLog(p, entries)
	if err != nil {
		return nil, fmt.Errorf("other side of a forked log: %w", err)
	}
	log, err = log.Merge(rival)
	if err != nil && !errors.Is(err, identity.ErrFork) {
		return nil, err
	}
	return log, nil
}

// joinLog verifies offered entries: as a log, or behind the part of the known
// one that they continue. With an error, what stands before the entry that does
// not hold is given all the same (SPEC 4.2 of identity): a revocation counts,
// whatever a later version has written behind it. Nil if nothing holds.
func joinLog(known *identity.Log, entries [][]byte) (*identity.Log, error) {
	if log, err := identity.ParseLog(known.Person(), entries); log != nil {
		return log, err
	}
	return known.Extend(entries)
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
