package contact

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multiaddr"
	"rsc.io/qr"
)

func address(tb testing.TB, s string) []byte {
	tb.Helper()
	a, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		tb.Fatal(err)
	}
	return a.Bytes()
}

const relayID = "12D3KooWGRUVh7hBBDQYTRgYYTEE7ssQvVfHZqLqmNnGWYwDxtTT"

func invite(tb testing.TB, addresses ...string) Invite {
	tb.Helper()
	v := Invite{Person: [16]byte{1}, Transport: [32]byte{2}, Token: Token{3}, Expiry: 500_000}
	for _, a := range addresses {
		v.Addresses = append(v.Addresses, address(tb, a))
	}
	return v
}

// TestInviteForms: each kind of address goes there and back in both forms, and
// with one address the QR code is of version 6.
func TestInviteForms(t *testing.T) {
	relay := relayed32(t)
	for _, a := range []string{
		"/ip4/192.0.2.1/udp/4001/quic-v1",
		"/ip4/192.0.2.1/tcp/4001",
		"/ip6/2001:db8::1/udp/4001/quic-v1",
		"/dns4/kinloom.example.org/tcp/443/wss",
		"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/" + relay + "/p2p-circuit",
		"/ip4/192.0.2.1/tcp/4001/p2p/" + relay + "/p2p-circuit",
	} {
		for _, many := range []bool{false, true} {
			v := invite(t, a)
			v.Many, v.LAN = many, !many
			link, err := v.Link()
			if err != nil {
				t.Fatal(err)
			}
			code, err := v.QR()
			if err != nil {
				t.Errorf("%s: %v", a, err)
				continue
			}
			for _, form := range []string{link, code} {
				got, err := ParseInvite(form)
				if err != nil {
					t.Errorf("%s: %s: %v", a, form, err)
				}
				if d := cmp.Diff(v, got); d != "" {
					t.Errorf("%s: %s", form, d)
				}
			}
			if len(code) > 188 {
				t.Errorf("%s: QR text of %d characters, want 188 at most", a, len(code))
			}
			drawn, err := qr.Encode(code, qr.L)
			if err != nil {
				t.Fatal(err)
			}
			if columns, rows := drawn.Size+4, (drawn.Size+4+1)/2; columns > 45 || rows > 23 {
				t.Errorf("%s: QR code of %d columns x %d rows, want 45 x 23 at most", a, columns, rows)
			}
		}
	}
}

// relayed32 is a PeerID of an Ed25519 key, as text.
func relayed32(tb testing.TB) string {
	tb.Helper()
	if _, err := multiaddr.NewMultiaddr("/p2p/" + relayID); err != nil {
		tb.Fatal(err)
	}
	return relayID
}

func TestLongInvites(t *testing.T) {
	a := "/ip4/192.0.2.1/udp/4001/quic-v1"
	five := invite(t, a, "/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1",
		"/ip6/2001:db8::1/udp/1/quic-v1/p2p/"+relayed32(t)+"/p2p-circuit")
	link, err := five.Link()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseInvite(link)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(five, got); d != "" {
		t.Error(d)
	}
	if _, err := five.QR(); err == nil {
		t.Error("five addresses fit into a QR code")
	}
	for name, v := range map[string]Invite{
		"none":     invite(t),
		"six":      invite(t, a, a, a, a, a, a),
		"too long": {Addresses: [][]byte{make([]byte, MaxAddress+1)}},
		"empty":    {Addresses: [][]byte{{}}},
	} {
		if link, err := v.Link(); err == nil {
			t.Errorf("addresses: %s: %q", name, link)
		}
	}
}

// TestTruncatedInvite cuts both forms after every character.
func TestTruncatedInvite(t *testing.T) {
	for _, v := range []Invite{
		invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1"),
		invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1", "/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/1"),
	} {
		link, err := v.Link()
		if err != nil {
			t.Fatal(err)
		}
		forms := []string{link}
		if code, err := v.QR(); err == nil {
			forms = append(forms, code)
		}
		for _, form := range forms {
			for n := len("kinloom"); n < len(form); n++ {
				if _, err := ParseInvite(form[:n]); !errors.Is(err, ErrInviteTruncated) {
					t.Errorf("%d of %d characters of %s: %v, want ErrInviteTruncated", n, len(form), form, err)
				}
			}
		}
	}
}

// TestTypos changes every character into every other one: nothing passes, and
// what cannot have been cut is called broken, with few exceptions where the
// typo hits what says how long the invite is.
func TestTypos(t *testing.T) {
	v := invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1")
	link, err := v.Link()
	if err != nil {
		t.Fatal(err)
	}
	code, err := v.QR()
	if err != nil {
		t.Fatal(err)
	}
	for form, alphabet := range map[string]string{
		link: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/. ",
		code: base45 + "a~",
	} {
		broken, truncated := 0, 0
		for at := strings.IndexAny(form, "#:L") + 1; at < len(form); at++ {
			if strings.HasPrefix("kinloom:i#KINLOOM:", form[:at+1]) || at < len("KINLOOM:") {
				continue
			}
			for _, c := range alphabet {
				if byte(c) == form[at] {
					continue
				}
				typo := form[:at] + string(c) + form[at+1:]
				_, err := ParseInvite(typo)
				switch {
				case errors.Is(err, ErrInviteBroken):
					broken++
				case errors.Is(err, ErrInviteTruncated):
					truncated++
				case errors.Is(err, ErrInviteForeign) && at < len("kinloom:i#"):
				default:
					t.Errorf("typo %q: %v", typo, err)
				}
			}
		}
		if total := broken + truncated; truncated*20 > total {
			t.Errorf("%d of %d typos are taken for a cut, want 5 %% at most", truncated, total)
		}
	}
}

func TestInviteTexts(t *testing.T) {
	v := invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1")
	link, _ := v.Link()
	code, _ := v.QR()
	for _, text := range []string{
		link, " " + link + "\n", "<" + link + ">", "\"" + link + "\"", link[:40] + "\r\n " + link[40:], "\t" + link,
		code, code + "\n", " " + code, code[:30] + "\n" + code[30:], code + "  ",
	} {
		if got, err := ParseInvite(text); err != nil || got.Token != v.Token {
			t.Errorf("ParseInvite(%q): %v", text, err)
		}
	}
	for _, tc := range []struct {
		text string
		want error
		says string
	}{
		{"", ErrInviteForeign, "begins with kinloom:i#"},
		{"hello", ErrInviteForeign, "begins with kinloom:i#"},
		{"https://example.org/", ErrInviteForeign, "begins with kinloom:i#"},
		{"kinloom:d#AAAA", ErrInviteForeign, "linking a device"},
		{"KINLOOMD:AAAA", ErrInviteForeign, "linking a device"},
		{"kinloom:I#" + link[10:], ErrInviteForeign, ""},
		{"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", ErrInviteForeign, ""},
		{strings.Repeat("a", inviteTextSize+1), ErrInviteForeign, ""},
		{link + "A", ErrInviteBroken, "ask for a new one"},
		{link + link, ErrInviteBroken, ""},
		{link + "====", ErrInviteBroken, ""},
		{link + "!", ErrInviteBroken, ""},
		{"kinloom:i#", ErrInviteTruncated, "copy the whole link"},
		{"KINLOOM:", ErrInviteTruncated, ""},
	} {
		_, err := ParseInvite(tc.text)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("ParseInvite(%.80q) = %v, want %v that says %q", tc.text, err, tc.want, tc.says)
		}
	}
}

// resum puts the right checksum on a payload that was changed.
func resum(b []byte, change func([]byte) []byte) []byte {
	b = change(bytes.Clone(b[:len(b)-inviteSum]))
	return appendSum(b, 0)
}

// TestPayloads: what carries a right checksum and still breaks a rule.
func TestPayloads(t *testing.T) {
	v := invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1")
	good, err := AppendInvite(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	flags := inviteHead - 1
	full := invite(t, "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/"+relayed32(t)+"/p2p-circuit").Addresses[0]
	for _, tc := range []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"nothing", func(b []byte) []byte { return b }, nil},
		{"version 2", func(b []byte) []byte { b[0] = 2; return b }, ErrInviteVersion},
		{"version 2, other length", func(b []byte) []byte { b[0] = 2; return b[:20] }, ErrInviteVersion},
		{"flag that must be understood", func(b []byte) []byte { b[flags] |= flagCritical; return b }, ErrInviteVersion},
		{"flag that informs", func(b []byte) []byte { b[flags] |= 0x08; return b }, nil},
		{"no address", func(b []byte) []byte { b[flags] &= 0x0f; return b[:flags+1] }, ErrInviteBroken},
		{"six addresses", func(b []byte) []byte {
			b[flags] = 6 << flagCount
			return append(b, bytes.Repeat([]byte{1, 0}, 5)...)
		}, ErrInviteBroken},
		{"two announced", func(b []byte) []byte { b[flags] = 2 << flagCount; return b }, ErrInviteTruncated},
		{"bytes behind", func(b []byte) []byte { return append(b, 0) }, ErrInviteBroken},
		{"empty address", func(b []byte) []byte { return append(b[:flags+1], 0) }, ErrInviteBroken},
		{"relayed address of 32 bytes", func(b []byte) []byte {
			return append(append(b[:flags+1], relayed|32), make([]byte, 32)...)
		}, ErrInviteBroken},
		{"long form of a relayed address", func(b []byte) []byte {
			return append(append(b[:flags+1], byte(len(full))), full...)
		}, ErrInviteBroken},
	} {
		if _, err := ParsePayload(resum(good, tc.change)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	wrong := bytes.Clone(good)
	wrong[0] = 2
	if _, err := ParsePayload(wrong); !errors.Is(err, ErrInviteBroken) {
		t.Errorf("damaged version byte: %v, want ErrInviteBroken", err)
	}
}

func TestExpiry(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 30, 0, 0, time.UTC)
	v := Invite{Expiry: ExpiryHours(at)}
	if got, ok := v.Expires(); !ok || got != time.Date(2026, 11, 21, 11, 0, 0, 0, time.UTC) {
		t.Errorf("Expires = %v, %v; want the next full hour", got, ok)
	}
	for _, tc := range []struct {
		v    Invite
		now  time.Time
		want bool
	}{
		{v, at, false},
		{v, at.Add(30*time.Minute - 1), false},
		{v, at.Add(30 * time.Minute), true},
		{Invite{}, at.AddDate(100, 0, 0), false},
		{Invite{Expiry: ExpiryHours(time.Unix(-5, 0))}, at, true},
		{Invite{Expiry: ExpiryHours(time.Unix(1<<62, 0))}, at.AddDate(1000, 0, 0), false},
	} {
		if got := tc.v.Expired(tc.now); got != tc.want {
			t.Errorf("Expiry %d, Expired(%v) = %v, want %v", tc.v.Expiry, tc.now, got, tc.want)
		}
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	v := invite(t, "/ip4/192.0.2.1/tcp/1")
	v.Token = Token{0xab, 0xcd, 0xef}
	p := Pair{Secret: [32]byte{0xab, 0xcd, 0xef}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{v.Token, v, p, []Pair{p}} {
			s := strings.ToLower(fmt.Sprintf(format, x))
			if strings.Contains(s, "abcdef") || strings.Contains(s, "171") || strings.Contains(s, "0xab") {
				t.Errorf("%s of %T shows the secret: %s", format, x, s)
			}
		}
	}
}

// TestBase45 has the examples of RFC 9285, sections 4.3 and 4.4.
func TestBase45(t *testing.T) {
	for plain, want := range map[string]string{
		"AB": "BB8", "Hello!!": "%69 VD92EX0", "base-45": "UJCLQE7W581", "ietf!": "QED8WEX0", "": "",
	} {
		if got := string(appendBase45(nil, []byte(plain))); got != want {
			t.Errorf("encode %q = %q, want %q", plain, got, want)
		}
		if got, err := decodeBase45(want); err != nil || string(got) != plain {
			t.Errorf("decode %q = %q, %v; want %q", want, got, err, plain)
		}
	}
	for _, tc := range []struct {
		text string
		want error
	}{
		{"GGW", errBase45Digit}, // 65,536
		{"::", errBase45Length}, // the beginning of a longer group
		{"BB8:", errBase45Length},
		{"bb8", errBase45Digit},
		{"BB8\n", errBase45Digit},
		{"é", errBase45Digit},
	} {
		if _, err := decodeBase45(tc.text); !errors.Is(err, tc.want) {
			t.Errorf("decode %q: %v, want %v", tc.text, err, tc.want)
		}
	}
	all := make([]byte, 0, 1<<17)
	for n := range 1 << 16 {
		all = append(all, byte(n>>8), byte(n))
	}
	if got, err := decodeBase45(string(appendBase45(nil, all))); err != nil || !bytes.Equal(got, all) {
		t.Errorf("65,536 pairs there and back: %v", err)
	}
}
