package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// span is a duration as people write it: what Go reads, and days and weeks such as 14d or 2w.
type span time.Duration

// String shows it in days where it is whole days.
func (s *span) String() string {
	if *s == 0 {
		return "" // so that help shows no default
	}
	if d := time.Duration(*s); d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	return time.Duration(*s).String()
}

// Set reads it.
func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil {
		return errors.New("write one like 30s, 12h, 14d or 2w")
	}
	*s = span(d)
	return nil
}

// Type names it in help.
func (s *span) Type() string { return "duration" }

func parseSpan(text string) (time.Duration, error) {
	days := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	var d time.Duration
	var err error
	if unit, ok := days[lastByte(text)]; ok {
		var n int64
		n, err = strconv.ParseInt(text[:len(text)-1], 10, 64)
		if n > int64(100*365*24*time.Hour/unit) {
			n = -1
		}
		d = time.Duration(n) * unit
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < 0 {
		return 0, usage("Write one like 30s, 12h, 14d or 2w.", "%q is not a duration", clean(text, 40))
	}
	return d, nil
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// parseSince reads a moment: a date, a time, or how long ago.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := parseSpan(strings.ToLower(text))
	if err != nil {
		return time.Time{}, usage("Write a date like 2026-01-31, a time like 2026-01-31T12:00:00Z, or how long ago, like 30d.", "%q is not a time", clean(text, 40))
	}
	return now.Add(-d), nil
}
