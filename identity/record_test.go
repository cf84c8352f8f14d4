package identity

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kinloom/kinloom/identity/enc"
)

func TestRecordRoundTrip(t *testing.T) {
	p := testRoot(1).Person()
	for name, caps := range map[string][]string{"none": nil, "some": {"blob/1", "dm/1", "x-y.z"}} {
		want := testRecord(p, 1, day0())
		want.Capabilities = caps
		unset := want
		unset.Suite, unset.Version = 0, 0
		b, err := SignDeviceRecord(testDevice(1), unset)
		if err != nil {
			t.Fatal(err)
		}
		got, h, err := ParseDeviceRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		if h != RecordHash(hashEntry(b)) {
			t.Errorf("%s: hash %v is not the hash of the signed bytes", name, h)
		}
		if got.Can("dm/1") != (caps != nil) || got.Can("") || got.Can("dm") {
			t.Errorf("%s: Can is wrong for %v", name, got.Capabilities)
		}
		for n := range b {
			if _, _, err := ParseDeviceRecord(b[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are a record", name, n, len(b))
			}
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if _, _, err := ParseDeviceRecord(bad); err == nil {
				t.Errorf("%s: byte %d changed, still a record", name, i)
			}
		}
	}
}

func TestRecordRules(t *testing.T) {
	p, k := testRoot(1).Person(), testDevice(1)
	many := make([]string, MaxCapabilities+1)
	for i := range many {
		many[i] = string(rune('a' + i))
	}
	day := int64(24 * time.Hour / time.Second)
	for _, tt := range []struct {
		name   string
		change func(*DeviceRecord)
		want   error
	}{
		{"as it should be", func(*DeviceRecord) {}, nil},
		{"exactly 90 days", func(r *DeviceRecord) { r.Expiry = r.NotBefore + 90*day }, nil},
		{"one second", func(r *DeviceRecord) { r.Expiry = r.NotBefore + 1 }, nil},
		{"16 capabilities", func(r *DeviceRecord) { r.Capabilities = many[:MaxCapabilities] }, nil},
		{"32-byte capability", func(r *DeviceRecord) { r.Capabilities = []string{strings.Repeat("a", 32)} }, nil},
		{"suite 2", func(r *DeviceRecord) { r.Suite = 2 }, ErrSuite},
		{"version 2", func(r *DeviceRecord) { r.Version = 2 }, ErrVersion},
		{"suite before version", func(r *DeviceRecord) { r.Suite, r.Version = 2, 2 }, ErrSuite},
		{"other device key", func(r *DeviceRecord) { r.Device = testDevice(2).Public() }, ErrRecord},
		{"90 days and a second", func(r *DeviceRecord) { r.Expiry = r.NotBefore + 90*day + 1 }, ErrRecord},
		{"no time", func(r *DeviceRecord) { r.Expiry = r.NotBefore }, ErrRecord},
		{"backwards", func(r *DeviceRecord) { r.Expiry = r.NotBefore - 1 }, ErrRecord},
		{"before 1970", func(r *DeviceRecord) { r.NotBefore = -1; r.Expiry = 1 }, ErrRecord},
		{"after 9999", func(r *DeviceRecord) { r.NotBefore = maxTime; r.Expiry = maxTime + 1 }, ErrRecord},
		{"overflow", func(r *DeviceRecord) { r.NotBefore = -1 << 63; r.Expiry = 1<<63 - 1 }, ErrRecord},
		{"17 capabilities", func(r *DeviceRecord) { r.Capabilities = many }, ErrRecord},
		{"capabilities out of order", func(r *DeviceRecord) { r.Capabilities = []string{"b", "a"} }, ErrRecord},
		{"capability twice", func(r *DeviceRecord) { r.Capabilities = []string{"a", "a"} }, ErrRecord},
		{"empty capability", func(r *DeviceRecord) { r.Capabilities = []string{""} }, ErrRecord},
		{"long capability", func(r *DeviceRecord) { r.Capabilities = []string{strings.Repeat("a", 33)} }, ErrRecord},
		{"upper case", func(r *DeviceRecord) { r.Capabilities = []string{"DM"} }, ErrRecord},
		{"blank", func(r *DeviceRecord) { r.Capabilities = []string{"a b"} }, ErrRecord},
		{"not ASCII", func(r *DeviceRecord) { r.Capabilities = []string{"é"} }, ErrRecord},
	} {
		r := testRecord(p, 1, day0())
		tt.change(&r)
		_, err := SignDeviceRecord(k, r)
		wantErr(t, "sign "+tt.name, err, tt.want)
		// The same on the other side, from somebody who does not check.
		_, _, err = ParseDeviceRecord(signRaw(t, k.sign, ContextDeviceRecord, r))
		want := tt.want
		if tt.name == "other device key" {
			want = ErrSignature
		}
		wantErr(t, "parse "+tt.name, err, want)
	}
}

// signRaw signs the encoding of v without a look at it.
func signRaw(t testing.TB, sign func(Context, []byte) []byte, c Context, v any) []byte {
	t.Helper()
	b, err := enc.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return append(sign(c, b), b...)
}

func TestRecordUnknownKeysSurvive(t *testing.T) {
	k := testDevice(1)
	r := struct {
		DeviceRecord map[int]any
	}{}
	b, err := enc.Marshal(testRecord(testRoot(1).Person(), 1, day0()))
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Unmarshal(b, &r.DeviceRecord); err != nil {
		t.Fatal(err)
	}
	r.DeviceRecord[100] = "from a later version"
	b = signRaw(t, k.sign, ContextDeviceRecord, r.DeviceRecord)
	if _, h, err := ParseDeviceRecord(b); err != nil || h != RecordHash(hashEntry(b)) {
		t.Errorf("got %v, %v, want the hash with the unknown key in it", h, err)
	}
}

func TestRecordOfALaterVersion(t *testing.T) {
	// Everything behind suite and version may be different then.
	k := testDevice(1)
	for _, tt := range []struct {
		body map[int]any
		want error
	}{
		{map[int]any{1: 2, 2: 1}, ErrSuite},
		{map[int]any{1: 2, 2: 9, 3: true}, ErrSuite},
		{map[int]any{1: 1, 2: 2, 3: true}, ErrVersion},
		{map[int]any{1: 1, 2: 0, 3: true}, ErrVersion},
		{map[int]any{1: 1, 2: 1}, enc.ErrMissing},
		{map[int]any{1: 1, 2: 1, 3: true}, enc.ErrType},
		{map[int]any{2: 1}, enc.ErrMissing},
	} {
		_, _, err := ParseDeviceRecord(signRaw(t, k.sign, ContextDeviceRecord, tt.body))
		wantErr(t, "record", err, tt.want)
	}
}

func TestRecordSize(t *testing.T) {
	b := append(signedRecord(t, testRoot(1).Person(), 1, day0()), make([]byte, MaxRecord)...)
	if _, _, err := ParseDeviceRecord(b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	// The largest record that the other limits allow fits.
	r := testRecord(testRoot(1).Person(), 1, day0())
	r.Capabilities = nil
	for i := range MaxCapabilities {
		r.Capabilities = append(r.Capabilities, strings.Repeat(string(rune('a'+i)), MaxCapability))
	}
	big, err := SignDeviceRecord(testDevice(1), r)
	if err != nil || len(big) > MaxRecord {
		t.Errorf("largest record: %d bytes, %v", len(big), err)
	}
}

// TestRecordSignedForOthers: a log entry, a proof or a bundle is no record.
func TestRecordSignedForOthers(t *testing.T) {
	for _, c := range contexts() {
		b := signRaw(t, testDevice(1).sign, c, testRecord(testRoot(1).Person(), 1, day0()))
		want := ErrSignature
		if c == ContextDeviceRecord {
			want = nil
		}
		_, _, err := ParseDeviceRecord(b)
		wantErr(t, "record signed for "+string(c), err, want)
	}
}

// TestStanding is H16: what holds at which day.
func TestStanding(t *testing.T) {
	r := testRecord(testRoot(1).Person(), 1, day0())
	s := DeviceState{NotBefore: r.NotBefore, Expiry: r.Expiry}
	for _, tt := range []struct {
		at   time.Time
		want Standing
		live bool
	}{
		{day(-400), StandingEarly, false},
		{day(-2).Add(-time.Second), StandingEarly, false},
		{day(-2), StandingValid, true}, // a clock that is two days behind
		{day(-1), StandingValid, true},
		{day(0), StandingValid, true},
		{day(59), StandingValid, true},
		{day(60).Add(-time.Second), StandingValid, true},
		{day(60), StandingDue, true},
		{day(61), StandingDue, true},
		{day(90).Add(-time.Second), StandingDue, true},
		{day(90), StandingExpired, false},
		{day(91), StandingExpired, false},
		{day(40000), StandingExpired, false},
	} {
		if got := s.At(tt.at); got != tt.want || got.Live() != tt.live || r.At(tt.at) != tt.want {
			t.Errorf("at %v: %v, live %v, record %v, want %v, %v", tt.at, got, got.Live(), r.At(tt.at), tt.want, tt.live)
		}
		s := s
		s.Revoked = true
		if got := s.At(tt.at); got != StandingRevoked || got.Live() {
			t.Errorf("revoked at %v: %v", tt.at, got)
		}
	}
	short := DeviceState{NotBefore: 0, Expiry: 90}
	if short.At(time.Unix(59, 0)) != StandingValid || short.At(time.Unix(60, 0)) != StandingDue {
		t.Error("a short certificate is not due after two thirds of its time")
	}
	words := map[string]bool{}
	for i := range Standing(7) {
		words[i.String()] = true
	}
	if len(words) != 6 || !words["unknown"] {
		t.Errorf("standings are called %v, want five words and unknown", words)
	}
}

// FuzzParseDeviceRecord: what is accepted is what its device signed.
func FuzzParseDeviceRecord(f *testing.F) {
	for _, v := range readVectors(f, "device-record.json") {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, h, err := ParseDeviceRecord(b)
		if err != nil {
			return
		}
		if h != RecordHash(hashEntry(b)) || r.Device.Verify(ContextDeviceRecord, b[SignatureSize:], b[:SignatureSize]) != nil {
			t.Fatalf("accepted without a signature: %x", b)
		}
		again, err := SignDeviceRecord(testDevice(1), r)
		if err == nil && len(again) == len(b) && !bytes.Equal(again, b) {
			t.Fatalf("second spelling %x of %x", b, again)
		}
	})
}
