package store

import "time"

// Row is the row id of a stored object in its table. It never changes and is
// never used again for another one.
type Row int64

// migrations bring account.db from one schema to the next; the number of the
// schema is the count of those that ran.
var migrations = []func(*Tx) error{statements(schema1SQL), statements(schema2SQL)}

func statements(all []string) func(*Tx) error {
	return func(tx *Tx) error {
		for _, sql := range all {
			if err := tx.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	}
}

// schema1SQL: rowid tables throughout, as WITHOUT ROWID took three times the
// space. Times are Unix milliseconds, 0 for none. SPEC.md, Tables, has the
// reasons.
var schema1SQL = []string{
	`CREATE TABLE contact(
		row INTEGER PRIMARY KEY,
		person BLOB NOT NULL UNIQUE,
		petname TEXT NOT NULL,
		name TEXT NOT NULL,
		trust INTEGER NOT NULL,
		state INTEGER NOT NULL,
		words TEXT NOT NULL,
		words_at INTEGER NOT NULL,
		since INTEGER NOT NULL,
		changed INTEGER NOT NULL
	) STRICT`,
	`CREATE INDEX contact_changed ON contact(changed)`,

	`CREATE TABLE log_entry(
		row INTEGER PRIMARY KEY,
		contact INTEGER NOT NULL REFERENCES contact(row),
		number INTEGER NOT NULL,
		entry BLOB NOT NULL,
		UNIQUE(contact, number)
	) STRICT`,

	`CREATE TABLE device(
		row INTEGER PRIMARY KEY,
		id BLOB NOT NULL UNIQUE,
		contact INTEGER NOT NULL REFERENCES contact(row),
		record BLOB NOT NULL,
		static BLOB,
		transport BLOB,
		lan BLOB,
		addrs BLOB,
		seen INTEGER NOT NULL,
		changed INTEGER NOT NULL
	) STRICT`,
	`CREATE INDEX device_contact ON device(contact)`,
	`CREATE INDEX device_transport ON device(transport) WHERE transport IS NOT NULL`,
	`CREATE INDEX device_changed ON device(changed)`,

	`CREATE TABLE conversation(
		row INTEGER PRIMARY KEY,
		id BLOB NOT NULL UNIQUE,
		kind INTEGER NOT NULL,
		person BLOB,
		title TEXT NOT NULL,
		muted INTEGER NOT NULL,
		archived INTEGER NOT NULL,
		retention INTEGER NOT NULL,
		cleared_to INTEGER NOT NULL,
		clearing INTEGER NOT NULL,
		own_seq INTEGER NOT NULL,
		heads BLOB NOT NULL,
		clock INTEGER NOT NULL,
		unread INTEGER NOT NULL,
		last_at INTEGER NOT NULL,
		changed INTEGER NOT NULL
	) STRICT`,
	`CREATE INDEX conversation_changed ON conversation(changed)`,

	// The row id of an event is its first changed number, so that the stream of
	// changes needs no index over the million events that never change again.
	`CREATE TABLE event(
		row INTEGER PRIMARY KEY,
		conversation INTEGER NOT NULL,
		device INTEGER NOT NULL,
		seq INTEGER NOT NULL,
		id BLOB NOT NULL,
		clock INTEGER NOT NULL,
		lag INTEGER NOT NULL,
		flags INTEGER NOT NULL,
		changed INTEGER,
		raw BLOB NOT NULL
	) STRICT`,
	`CREATE UNIQUE INDEX event_key ON event(conversation, device, seq)`,
	`CREATE INDEX event_time ON event(conversation, clock) WHERE ` + shownEvent,
	`CREATE INDEX event_changed ON event(changed) WHERE changed IS NOT NULL`,
	`CREATE TABLE failure(event INTEGER PRIMARY KEY, reason TEXT NOT NULL) STRICT`,

	`CREATE TABLE control(
		row INTEGER PRIMARY KEY,
		conversation INTEGER NOT NULL,
		contact INTEGER NOT NULL,
		type INTEGER NOT NULL,
		key TEXT NOT NULL,
		clock INTEGER NOT NULL,
		id BLOB NOT NULL,
		body BLOB NOT NULL,
		UNIQUE(conversation, contact, type, key)
	) STRICT`,

	// row = device << 44 | event: the outbox of a device is one range in the order
	// of its events, and the rows of an event are found without an index.
	`CREATE TABLE outbox(
		row INTEGER PRIMARY KEY,
		conversation INTEGER NOT NULL,
		event_seq INTEGER NOT NULL,
		session BLOB,
		seq INTEGER NOT NULL,
		queued INTEGER NOT NULL,
		inner_cell BLOB
	) STRICT`,

	`CREATE TABLE delivery(
		row INTEGER PRIMARY KEY,
		conversation INTEGER NOT NULL,
		device INTEGER NOT NULL,
		first INTEGER NOT NULL,
		last INTEGER NOT NULL,
		sent INTEGER NOT NULL,
		at INTEGER NOT NULL,
		route INTEGER NOT NULL,
		changed INTEGER NOT NULL
	) STRICT`,
	`CREATE UNIQUE INDEX delivery_key ON delivery(conversation, device, first)`,
	`CREATE INDEX delivery_changed ON delivery(changed)`,

	`CREATE TABLE read_mark(
		row INTEGER PRIMARY KEY,
		conversation INTEGER NOT NULL,
		contact INTEGER NOT NULL REFERENCES contact(row),
		device INTEGER NOT NULL,
		upto INTEGER NOT NULL,
		at INTEGER NOT NULL,
		changed INTEGER NOT NULL,
		UNIQUE(conversation, contact, device)
	) STRICT`,
	`CREATE INDEX read_mark_changed ON read_mark(changed)`,

	// Rows of session_slot are never removed, and overwritten only by values of
	// the same length: session_rows.go says why. The others say whose they are.
	`CREATE TABLE session_row(slot INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE) STRICT`,
	`CREATE TABLE session_free(slot INTEGER PRIMARY KEY, size INTEGER NOT NULL) STRICT`,
	`CREATE TABLE session_slot(slot INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT`,
	`CREATE INDEX session_free_size ON session_free(size)`,

	`CREATE TABLE setting(
		row INTEGER PRIMARY KEY,
		key TEXT NOT NULL UNIQUE,
		sealed INTEGER NOT NULL,
		value BLOB NOT NULL
	) STRICT`,

	`CREATE TABLE idempotency(
		row INTEGER PRIMARY KEY,
		key TEXT NOT NULL UNIQUE,
		event INTEGER NOT NULL,
		at INTEGER NOT NULL
	) STRICT`,
	`CREATE INDEX idempotency_at ON idempotency(at)`,

	`CREATE TABLE invite(
		row INTEGER PRIMARY KEY,
		token BLOB NOT NULL UNIQUE,
		created INTEGER NOT NULL,
		expires INTEGER NOT NULL,
		many INTEGER NOT NULL,
		uses INTEGER NOT NULL,
		used_by BLOB,
		revoked INTEGER NOT NULL,
		changed INTEGER NOT NULL
	) STRICT`,
	`CREATE INDEX invite_changed ON invite(changed)`,
}

// schema2SQL: where a device is found when its addresses have changed, and by
// which ways a contact may be reached.
var schema2SQL = []string{
	`ALTER TABLE device ADD COLUMN secret BLOB`,
	`ALTER TABLE device ADD COLUMN told INTEGER NOT NULL DEFAULT 0`,
	`ALTER TABLE device ADD COLUMN records BLOB`,
	`ALTER TABLE device ADD COLUMN offers INTEGER NOT NULL DEFAULT 0`,
	`ALTER TABLE contact ADD COLUMN ways INTEGER NOT NULL DEFAULT 0`,
}

// millis is a time as it is stored; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the reverse of millis, in UTC.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
