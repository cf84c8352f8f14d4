package store

import (
	"time"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/enc"
	"github.com/ncruces/go-sqlite3"
)

// Device is a device of a contact. Events and deliveries name devices by Row;
// there, row 0 is this device.
type Device struct {
	Row       Row // 0: not stored yet
	ID        identity.DeviceID
	Person    identity.PersonID // a stored contact
	Record    []byte            // signed DeviceRecord
	Static    []byte            // the last bundle for a session start, nil if none
	Transport []byte            // libp2p peer id of the moment, nil if unknown
	LAN       []byte            // that of its LAN host
	Addrs     []Address
	Seen      time.Time
	Secret    [32]byte  // what its look-up records are made with, zero if unknown; sealed on disk
	Told      time.Time // when it said so itself, and with it Transport and Addrs
	Records   []byte    // what was seen of its look-up records; the node knows how to read it
	Offers    uint64    // bits of event.Whereabouts
	Changed   uint64
}

// Address is one way to reach a device.
type Address struct {
	Addr      []byte    // binary multiaddr
	Source    string    // who said so
	LastOK    time.Time // last success
	LastTry   time.Time
	LastError string // of the last try, empty after a success
}

// storedAddress is an Address on disk: CBOR, as nothing is ever looked up by it.
type storedAddress struct {
	Addr      []byte `cbor:"1,keyasint"`
	Source    string `cbor:"2,keyasint,omitempty"`
	LastOK    int64  `cbor:"3,keyasint,omitempty"`
	LastTry   int64  `cbor:"4,keyasint,omitempty"`
	LastError string `cbor:"5,keyasint,omitempty"`
}

const deviceColumns = "d.row, d.id, c.person, d.record, d.static, d.transport, d.lan, d.addrs, d.seen, d.changed, d.secret, d.told, d.records, d.offers"

const selectDevice = "SELECT " + deviceColumns + " FROM device d JOIN contact c ON c.row = d.contact "

func (tx *Tx) scanDevice(st *sqlite3.Stmt) (Device, error) {
	d := Device{
		Row:       Row(st.ColumnInt64(0)),
		Record:    blob(st, 3),
		Static:    blob(st, 4),
		Transport: blob(st, 5),
		LAN:       blob(st, 6),
		Seen:      fromMillis(st.ColumnInt64(8)),
		Changed:   uint64(st.ColumnInt64(9)),
		Told:      fromMillis(st.ColumnInt64(11)),
		Records:   blob(st, 12),
		Offers:    uint64(st.ColumnInt64(13)),
	}
	if err := fixed(d.ID[:], st, 1); err != nil {
		return d, err
	}
	if sealed := st.ColumnRawBlob(10); len(sealed) > 0 {
		a, err := tx.s.sealer()
		if err != nil {
			return d, err
		}
		secret, err := unseal(a, "device", d.ID.String(), sealed)
		if err != nil {
			return d, err
		}
		copy(d.Secret[:], secret)
	}
	if err := fixed(d.Person[:], st, 2); err != nil {
		return d, err
	}
	b := st.ColumnRawBlob(7)
	if len(b) == 0 {
		return d, nil
	}
	var stored []storedAddress
	if err := enc.Unmarshal(b, &stored); err != nil {
		return d, err
	}
	for _, a := range stored {
		d.Addrs = append(d.Addrs, Address{
			Addr: a.Addr, Source: a.Source, LastOK: fromMillis(a.LastOK), LastTry: fromMillis(a.LastTry), LastError: a.LastError,
		})
	}
	return d, nil
}

// PutDevice stores a device: a new one where the id is not known, else over the
// old one. Its person must be a contact, and stays the same for ever. It sets
// Row and Changed.
func (tx *Tx) PutDevice(d *Device) error {
	contact, err := tx.contactRow(d.Person)
	if err != nil {
		return err
	}
	var addrs []byte
	if len(d.Addrs) > 0 {
		stored := make([]storedAddress, len(d.Addrs))
		for i, a := range d.Addrs {
			stored[i] = storedAddress{
				Addr: a.Addr, Source: a.Source, LastOK: millis(a.LastOK), LastTry: millis(a.LastTry), LastError: a.LastError,
			}
		}
		if addrs, err = enc.Marshal(stored); err != nil {
			return wrap("store a device", err)
		}
	}
	d.Changed = tx.NextChanged()
	record := d.Record
	if record == nil {
		record = []byte{}
	}
	var secret []byte
	if d.Secret != [32]byte{} {
		a, err := tx.s.sealer()
		if err == nil {
			secret, err = seal(nil, a, "device", d.ID.String(), d.Secret[:])
		}
		if err != nil {
			return wrap("store a device", err)
		}
	}
	_, err = tx.one(`INSERT INTO device(id, contact, record, static, transport, lan, addrs, seen, changed, secret, told, records, offers)
		VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
		ON CONFLICT(id) DO UPDATE SET record = ?3, static = ?4, transport = ?5, lan = ?6, addrs = ?7, seen = ?8, changed = ?9,
			secret = ?10, told = ?11, records = ?12, offers = ?13
		RETURNING row`,
		func(st *sqlite3.Stmt) { d.Row = Row(st.ColumnInt64(0)) },
		d.ID[:], contact, record, notEmpty(d.Static), notEmpty(d.Transport), notEmpty(d.LAN), notEmpty(addrs), millis(d.Seen), d.Changed,
		notEmpty(secret), millis(d.Told), notEmpty(d.Records), int64(d.Offers))
	return wrap("store a device", err)
}

// DeviceByID gives a device, or ErrNotFound.
func (tx *Tx) DeviceByID(id identity.DeviceID) (Device, error) {
	return get(tx, "device", tx.scanDevice, selectDevice+"WHERE d.id = ?", id[:])
}

// DeviceByRow gives a device, or ErrNotFound.
func (tx *Tx) DeviceByRow(row Row) (Device, error) {
	return get(tx, "device", tx.scanDevice, selectDevice+"WHERE d.row = ?", row)
}

// DeviceByTransport gives the device that was last seen with a libp2p peer id,
// or ErrNotFound.
func (tx *Tx) DeviceByTransport(peer []byte) (Device, error) {
	return get(tx, "device", tx.scanDevice, selectDevice+"WHERE d.transport = ? AND d.transport IS NOT NULL ORDER BY d.seen DESC", peer)
}

// Devices gives the devices of a person, the oldest first.
func (tx *Tx) Devices(p identity.PersonID) ([]Device, error) {
	return list(tx, "devices", tx.scanDevice, selectDevice+"WHERE c.person = ? ORDER BY d.row", p[:])
}
