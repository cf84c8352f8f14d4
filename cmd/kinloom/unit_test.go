package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"rsc.io/qr"

	"github.com/kinloom/kinloom/node/client"
)

func TestParseSpan(t *testing.T) {
	for _, test := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"30s", 30 * time.Second, true},
		{"1h30m", 90 * time.Minute, true},
		{"14d", 14 * 24 * time.Hour, true},
		{"2w", 14 * 24 * time.Hour, true},
		{"0d", 0, true},
		{"0", 0, true},
		{"", 0, false},
		{"d", 0, false},
		{"-1d", 0, false},
		{"-5s", 0, false},
		{"1.5d", 0, false},
		{"99999999999999d", 0, false},
		{"9223372036854775807w", 0, false},
		{"soon", 0, false},
	} {
		got, err := parseSpan(test.in)
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("parseSpan(%q) = %v, %v; want %v, ok %v", test.in, got, err, test.want, test.ok)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 3, 10, 15, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		in   string
		want time.Time
		ok   bool
	}{
		{"", time.Time{}, true},
		{"2026-01-31", time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), true},
		{"2026-01-31T12:00:00Z", time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), true},
		{"2d", time.Date(2026, 3, 8, 15, 4, 5, 0, time.UTC), true},
		{"2026-02-31", time.Time{}, false},
		{"yesterday", time.Time{}, false},
	} {
		got, err := parseSince(test.in, now)
		if !got.Equal(test.want) || (err == nil) != test.ok {
			t.Errorf("parseSince(%q) = %v, %v; want %v, ok %v", test.in, got, err, test.want, test.ok)
		}
	}
}

// TestDrawQR reads the drawing of the longest invite back, module by module, and holds it to a terminal of 80 x 24.
func TestDrawQR(t *testing.T) {
	text := "KINLOOM:" + strings.Repeat("A9", 90)
	drawn, err := drawQR(text)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	if columns := len([]rune(rows[0])); columns != 45 || len(rows) != 23 {
		t.Errorf("%d columns and %d rows, want 45 and 23", columns, len(rows))
	}
	for y, row := range rows {
		for x, r := range []rune(row) {
			for half, lights := range []string{"█▀", "█▄"} {
				mx, my := x-quietZone, 2*y+half-quietZone
				if my >= code.Size+quietZone {
					continue
				}
				if got, want := !strings.ContainsRune(lights, r), code.Black(mx, my); got != want {
					t.Fatalf("module %d,%d is dark %v, want %v", mx, my, got, want)
				}
			}
		}
	}
}

// TestLogRotates writes past the limit several times: three older files stay, the newest lines are in the newest file.
func TestLogRotates(t *testing.T) {
	l := &logFile{path: filepath.Join(t.TempDir(), "logs", "kinloom.log")}
	defer l.Close()
	line := bytes.Repeat([]byte("x"), logSize/2+1)
	for i := range 7 {
		line[0] = byte('0' + i)
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, name := range []string{"kinloom.log", "kinloom.log.1", "kinloom.log.2", "kinloom.log.3", "kinloom.log.4"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(l.path), name))
		if err != nil {
			got = append(got, "none")
			continue
		}
		got = append(got, string(b[0]))
	}
	if diff := cmp.Diff([]string{"6", "5", "4", "3", "none"}, got); diff != "" {
		t.Errorf("first lines of the files (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(l.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v, %v", info.Mode(), err)
	}
}

// TestLogIsPrivate logs what must never be readable there.
func TestLogIsPrivate(t *testing.T) {
	l := &logFile{path: filepath.Join(t.TempDir(), "kinloom.log")}
	log := logger(l)
	log.Info("dialled", "peer", "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH",
		"device", "d264dbf1cadb3575e69f6942d9fe4686fa2e43af967c3582e6202fd5b75baca8",
		slog.Group("who", "mail", "ada@example.org", "phone", "+49 151 23456789"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"z6MkpTHR8V", "d264dbf1cadb", "ada@", "example.org", "23456789"} {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("the log holds %s: %s", secret, b)
		}
	}
	if !bytes.Contains(b, []byte("peer=dwvktH")) && !bytes.Contains(b, []byte("sdvktH")) {
		t.Errorf("the end of the id that tells peers apart is gone: %s", b)
	}
}

// TestPlaces finds a home by flag, then variable, then the system's folders.
func TestPlaces(t *testing.T) {
	env := map[string]string{"KINLOOM_HOME": "/from/env"}
	a := &app{env: func(name string) string { return env[name] }, home: "/from/flag"}
	for _, want := range []struct {
		home string
		own  bool
	}{{"/from/flag", true}, {"/from/env", true}, {"", false}} {
		got, err := a.places()
		if err != nil {
			t.Fatal(err)
		}
		if want.home != "" && got.home != want.home || got.own != want.own {
			t.Errorf("got home %s, own %v; want %+v", got.home, got.own, want)
		}
		if got.own && (got.socket != got.home+"/api.sock" || got.logs != got.home+"/logs") {
			t.Errorf("not everything is under the home: %+v", got)
		}
		if a.home == "" {
			env = nil
		}
		a.home = ""
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"ada": "ada", "./my-home_2": "./my-home_2", "my home": "'my home'", "a$b": "'a$b'", "": "''", "'; rm -rf ~; '": `''\''; rm -rf ~; '\'''`} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

// TestInterruptedQuestion: Ctrl-C ends a question that nobody has answered.
func TestInterruptedQuestion(t *testing.T) {
	done := make(chan struct{})
	a := &app{term: terminal{err: os.Stderr}, done: done}
	never := make(chan string)
	defer close(never)
	close(done)
	if got, err := answer(a, func() (string, error) { return <-never, nil }); !errors.Is(err, errInterrupted) {
		t.Errorf("got %q, %v; want %v", got, err, errInterrupted)
	}
}

// TestAsksHelp: only help is styled, as styling asks the terminal and would take what is typed.
func TestAsksHelp(t *testing.T) {
	for line, want := range map[string]bool{
		"": true, "help": true, "help send": true, "send --help": true, "id -h": true,
		"id": false, "send me hi": false, "nosuch": false, "--home x inbox": false,
	} {
		if got := asksHelp(strings.Fields(line)); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	for _, test := range []struct {
		left time.Duration
		want string
	}{
		{14 * 24 * time.Hour, "valid 14 days"},
		{14*24*time.Hour - time.Second, "valid 14 days"},
		{48*time.Hour - time.Second, "valid 2 days"},
		{47 * time.Hour, "valid 47 hours"},
		{time.Hour, "valid 1 hour"},
		{time.Hour - time.Second, "valid 1 hour"},
		{59 * time.Minute, "valid 59 minutes"},
		{time.Minute, "valid 1 minute"},
		{time.Second, "valid 1 minute"},
	} {
		now := time.Unix(1_000_000, 0)
		if got := until(now.Add(test.left), now); got != test.want {
			t.Errorf("%v: %q, want %q", test.left, got, test.want)
		}
	}
}

// TestWatchView: rates are those of each second, a node that was started anew shows none of its past, and the screen fits.
func TestWatchView(t *testing.T) {
	started := client.At(time.Date(2026, 3, 10, 15, 4, 5, 0, time.UTC))
	v := view{}
	for i, sent := range []uint64{10, 10, 13, 20, 20} {
		v.add(client.Status{Started: started, Sent: sent, Received: uint64(i), Reach: "lan", Name: "Ada"})
	}
	if diff := cmp.Diff([]uint64{0, 3, 7, 0}, v.sent); diff != "" {
		t.Errorf("sent a second (-want +got):\n%s", diff)
	}
	if got, want := spark(v.sent, false), strings.Repeat("_", 57)+"=#_"; got != want {
		t.Errorf("drawn %q, want %q", got, want)
	}
	if got := []rune(spark(v.sent, true)); len(got) != watchPast || got[58] != '█' || got[59] != '▁' {
		t.Errorf("drawn %q", string(got))
	}
	v.add(client.Status{Started: client.At(started.Add(time.Hour)), Sent: 1, Reach: "internet"})
	if len(v.sent) != 4 {
		t.Errorf("a node that was started anew is taken for the one before: %v", v.sent)
	}
	for range 2 * watchPast {
		v.add(v.now)
	}
	if len(v.sent) != watchPast {
		t.Errorf("%d seconds are kept, want %d", len(v.sent), watchPast)
	}
	for _, line := range v.lines() {
		if got := len([]rune(cut(line, 40))); got > 40 {
			t.Errorf("%q is wider than 40 columns", cut(line, 40))
		}
	}
}
