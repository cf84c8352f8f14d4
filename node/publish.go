package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/rv"
)

const (
	// pairsMax is how many contacts' devices get a record of their own: those that could
	// not be told the secret of this device. Each costs a look-up through the DHT twice
	// a day.
	pairsMax = 16
	// publishTime bounds one publication.
	publishTime = 40 * time.Second
	// publishPoll is how often the publisher looks at what there is to publish,
	// where nothing wakes it: whom it could tell what changes with every message.
	publishPoll = 10 * time.Minute
	// publishRest gathers what changes together, as addresses do.
	publishRest = 300 * time.Millisecond
)

// settingPublished begins the name under which it is kept what was published with
// a secret, which is named by a hash.
const settingPublished = "published "

// publication is a record to keep published: with which secret, and what it says.
type publication struct {
	secret rv.Secret
	hint   rv.Hint
	veiled bool // through the veil's servers alone
}

// publications lists the records to keep published. Whom this device has told its
// secret finds it by one record for all. A contact who may not know the secret, or
// only the one of before, finds it by a record for the two devices alone: it was
// away when the secret changed.
func (l *loop) publications(tx *store.Tx) ([]publication, error) {
	if l.acct.secret == [32]byte{} {
		return nil, nil
	}
	var pairs []*device
	known := 0
	for _, d := range l.acct.devices {
		c, ok := l.acct.contacts[d.Person]
		if !ok || d.Person == l.acct.me || c.State != store.Accepted || !l.acct.certifies(d) || l.refused(d) || c.Ways == store.LANOnly {
			continue
		}
		told, err := l.knowsSecret(tx, d)
		if err != nil {
			return nil, err
		}
		if told {
			known++
		} else {
			pairs = append(pairs, d)
		}
	}
	var out []publication
	if known > 0 && len(l.place.addrs) > 0 {
		out = append(out, publication{secret: rv.Secret(l.acct.secret), hint: l.hint(store.AnyWay)})
	}
	for _, d := range choosePairs(pairs) {
		hint := l.hint(l.waysOf(d))
		if secret, err := l.pairOf(d); err == nil && len(hint.Devices[0].Addrs) > 0 {
			out = append(out, publication{secret: secret, hint: hint, veiled: l.waysOf(d) == store.RelayOnly})
		}
	}
	return out, nil
}

// choosePairs gives those devices that get a record of their own: of each person the one
// heard of last, so that nobody's many devices keep out another one, then the rest; those
// heard of last come first.
func choosePairs(all []*device) []*device {
	slices.SortFunc(all, func(a, b *device) int { return cmp.Or(b.Seen.Compare(a.Seen), bytes.Compare(a.ID[:], b.ID[:])) })
	has := make(map[identity.PersonID]bool)
	var first, rest []*device
	for _, d := range all {
		if has[d.Person] {
			rest = append(rest, d)
		} else {
			first = append(first, d)
		}
		has[d.Person] = true
	}
	return append(first, rest...)[:min(len(all), pairsMax)]
}

// knowsSecret says whether a device was told the present secret: itself, by its own
// receipt, as another device of the same person may have heard it alone.
func (l *loop) knowsSecret(tx *store.Tx, d *device) (bool, error) {
	c, ok := l.acct.pair(d.Person)
	if !ok || l.waysOf(d) != store.AnyWay {
		return false, nil
	}
	last, err := tx.Control(c.Row, l.acct.me, event.Reach, l.acct.device.String())
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w, err := event.ParseWhereabouts(last.Body)
	if err != nil || w.Secret != l.acct.secret {
		return false, nil
	}
	said, err := tx.Setting(settingTold + c.ID.String())
	if isNotFound(err) || err == nil && len(said) != 8 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	heard, err := tx.DeliveryOf(c.Row, binary.BigEndian.Uint64(said))
	return slices.ContainsFunc(heard, func(h store.Delivery) bool { return h.Device == d.Row }), err
}

// hint is what a record says of this device: by a relay first, then what is
// reached from everywhere.
func (l *loop) hint(rule store.Ways) rv.Hint {
	head := l.acct.logs[l.acct.me].Head()
	if rule == store.RelayOnly {
		p := rv.Place{Transport: l.acct.veil, Proof: l.acct.veilProof}
		for _, b := range l.place.veiled {
			if len(p.Addrs) < rv.MaxAddresses && len(b) <= rv.MaxAddress {
				p.Addrs = append(p.Addrs, b)
			}
		}
		return rv.Hint{Devices: []rv.Place{p}, Head: head}
	}
	p := rv.Place{Transport: l.acct.transport, Proof: l.acct.proof}
	if l.place.offers&event.OffersAlways != 0 {
		p.Caps |= rv.CapAlwaysOn
	}
	if l.place.offers&event.OffersRelay != 0 {
		p.Caps |= rv.CapRelay
	}
	type ranked struct {
		addr []byte
		rank int
	}
	var all []ranked
	for _, b := range l.place.addrs {
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil || !allows(rule, a) || len(b) > rv.MaxAddress {
			continue
		}
		r := ranked{addr: b}
		switch {
		case isRelayed(a):
		case allows(store.LANOnly, a):
			r.rank = 2
		default:
			r.rank = 1
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	for _, r := range all[:min(len(all), rv.MaxAddresses)] {
		p.Addrs = append(p.Addrs, r.addr)
	}
	return rv.Hint{Devices: []rv.Place{p}, Head: head}
}

// publisher keeps this device's records published until ctx ends.
func (e *edge) publisher(ctx context.Context) error {
	if e.n.cfg.NoDHT || e.n.cfg.LANOnly {
		<-ctx.Done()
		return nil
	}
	machines := map[rv.Secret]*rv.Machine{}
	if err := e.forgetPublished(ctx); err != nil && ctx.Err() == nil {
		e.n.cfg.Log.Warn("what was published long ago could not be forgotten", "error", err)
	}
	for {
		next, err := e.publishDue(ctx, machines)
		if err != nil && ctx.Err() == nil {
			e.n.cfg.Log.Warn("the look-up records could not be looked after", "error", err)
		}
		wait := time.NewTimer(min(max(next.Sub(e.n.cfg.Now()), time.Second), publishPoll))
		select {
		case <-wait.C:
		case <-e.publish:
			wait.Stop()
			select {
			case <-time.After(publishRest):
			case <-ctx.Done():
				return nil
			}
			for _, m := range machines {
				m.Retry()
			}
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
	}
}

// wake has the publisher look at once: the addresses changed, or a way into the
// network was found.
func (e *edge) wake() {
	select {
	case e.publish <- struct{}{}:
	default:
	}
}

// publishDue publishes what is due and says when there is more.
func (e *edge) publishDue(ctx context.Context, machines map[rv.Secret]*rv.Machine) (next time.Time, err error) {
	next = e.n.cfg.Now().Add(publishPoll)
	var all []publication
	err = e.n.change(ctx, func(l *loop, tx *store.Tx) error {
		all, err = l.publications(tx)
		return err
	})
	if err != nil {
		return next, err
	}
	for secret := range machines {
		if !slices.ContainsFunc(all, func(p publication) bool { return p.secret == secret }) {
			delete(machines, secret) // what it has done stays on disk: the secret may be wanted again
		}
	}
	for _, p := range all {
		m := machines[p.secret]
		if m == nil {
			if m, err = e.recallPublished(ctx, p.secret); err != nil {
				return next, err
			}
			machines[p.secret] = m
		}
		at, err := e.publishOne(ctx, m, p)
		if err != nil {
			return next, err
		}
		if at.Before(next) {
			next = at
		}
	}
	return next, nil
}

// publishOne publishes the record of a secret that is due, if one is.
func (e *edge) publishOne(ctx context.Context, m *rv.Machine, p publication) (next time.Time, err error) {
	hash, err := p.hint.Hash()
	if err != nil {
		return next, err
	}
	for {
		job, next, err := m.Due(e.clock(), hash)
		if err != nil || job == nil {
			return next, err
		}
		if err := e.keepPublished(ctx, p.secret, m); err != nil {
			return next, errors.Join(err, m.Finished(e.clock(), *job, false))
		}
		err = e.sendRecord(ctx, p, job)
		if err != nil && ctx.Err() == nil {
			e.n.cfg.Log.Debug("a look-up record was not published; trying again later", "error", err)
		}
		if err := errors.Join(m.Finished(e.clock(), *job, err == nil), e.keepPublished(ctx, p.secret, m)); err != nil {
			return next, err
		}
	}
}

func (e *edge) sendRecord(ctx context.Context, p publication, job *rv.Job) error {
	key := identity.NewRendezvousKey(e.n.home.secrets.Rendezvous)
	p.hint.Made = uint32(e.n.cfg.Now().Unix())
	record, err := rv.Seal(key, p.secret, job.Period, job.Seq, p.hint, e.n.cfg.Random)
	if err != nil {
		return err
	}
	point, err := rv.PointOf(key.Public(), p.secret, job.Period)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	if p.veiled {
		return e.n.net.PublishRecordBy(ctx, e.veilRelays(), point, record)
	}
	return e.n.net.PublishRecord(ctx, point, record)
}

// clock is the own clock, with what others say of it.
func (e *edge) clock() rv.Clock { return rv.Clock{Now: e.n.cfg.Now(), Offset: e.n.net.Skew()} }

func publishedName(s rv.Secret) string {
	sum := sha256.Sum256(s[:])
	return settingPublished + hex.EncodeToString(sum[:8])
}

// keepPublished stores what a machine must not forget before its record leaves.
func (e *edge) keepPublished(ctx context.Context, s rv.Secret, m *rv.Machine) error {
	b, err := enc.Marshal(m.State())
	if err != nil {
		return err
	}
	return e.n.change(ctx, func(l *loop, tx *store.Tx) error {
		l.wrote = true
		return tx.PutSetting(publishedName(s), b, false)
	})
}

// recallPublished gives the machine of a secret as it was when the node ended.
func (e *edge) recallPublished(ctx context.Context, s rv.Secret) (*rv.Machine, error) {
	var done []rv.Published
	err := e.n.read(ctx, func(v *view) error {
		b, err := v.tx.Setting(publishedName(s))
		if err != nil {
			return err
		}
		return enc.Unmarshal(b, &done)
	})
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	return rv.NewMachine(e.n.cfg.Random, done), nil
}

// forgetPublished drops what was done with secrets whose last record has ended.
func (e *edge) forgetPublished(ctx context.Context) error {
	return e.n.change(ctx, func(l *loop, tx *store.Tx) error {
		all, err := tx.SettingsUnder(settingPublished)
		if err != nil {
			return err
		}
		for name, b := range all {
			var done []rv.Published
			live := func(p rv.Published) bool { return !p.Period.NotAfter().Before(l.now().Add(-rv.Ahead)) }
			if err := enc.Unmarshal(b, &done); err == nil && slices.ContainsFunc(done, live) {
				continue
			}
			l.wrote = true
			if err := tx.PutSetting(settingPublished+name, nil, false); err != nil {
				return err
			}
		}
		return nil
	})
}
