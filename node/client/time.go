package client

import (
	"encoding/json"
	"fmt"
	"time"
)

// timeFormat is RFC 3339 with milliseconds, always UTC.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Time is a time as the API writes it: RFC 3339, UTC, milliseconds. The zero time is "".
type Time struct{ time.Time }

// At makes a Time.
func At(t time.Time) Time { return Time{t} }

// String gives the time as the API writes it.
func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// MarshalText writes the time.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads any RFC 3339 time.
func (t *Time) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		t.Time = time.Time{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("read time: %w", err)
	}
	t.Time = parsed.UTC()
	return nil
}

// MarshalJSON writes the time as a string; without it the method of time.Time would be promoted.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads a string.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read time: %w", err)
	}
	return t.UnmarshalText([]byte(s))
}
