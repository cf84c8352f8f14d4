package node_test

import (
	"context"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	relayproto "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/mr-tron/base58"
	"google.golang.org/protobuf/proto"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/identity/keyfile"
	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/internal/testnet"
	"github.com/kinloom/kinloom/protocol/rv"
	"github.com/kinloom/kinloom/protocol/wire"
)

// kadID is the DHT's protocol on the wire.
const kadID = wire.DHTPrefix + "/kad/1.0.0"

// texts gives the other ways to write 32-byte keys: as a peer id, a content id and
// a did:key, in base58 and base32.
func (s secrets) texts() map[string]string {
	out := map[string]string{}
	for what, key := range s {
		if len(key) != 32 {
			continue
		}
		id := append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, key...)
		for form, b := range map[string][]byte{"key": key, "did:key": append([]byte{0xed, 0x01}, key...), "peer id": id, "content id": append([]byte{1, 0x72}, id...)} {
			upper := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
			out[what+", "+form+" in base58"] = base58.Encode(b)
			out[what+", "+form+" in base32"] = upper
			out[what+", "+form+" in lower base32"] = strings.ToLower(upper)
		}
	}
	return out
}

// person is one of the two whom the third looks at.
type person struct {
	name   string
	dir    string
	keys   *keyfile.Secrets
	main   map[peer.ID]bool         // transport keys that it had
	points map[rv.Point]publishedAs // by all secrets that it had, of all days there are
}

// publishedAs says whose record lies at a point, to those who may know.
type publishedAs struct {
	who    string
	secret rv.Secret
	period rv.Period
}

// note adds what a running node is found by.
func (p *person) note(ctx context.Context, t *testing.T, n *node.Node, first rv.Period, days int) {
	t.Helper()
	secret, transport, _, err := n.Placed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := n.PairSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all := []rv.Secret{rv.Secret(secret)}
	for _, pair := range pairs {
		all = append(all, pair)
	}
	key := identity.NewRendezvousKey(p.keys.Rendezvous).Public()
	for _, s := range all {
		for period := first - 2; period < first+rv.Period(days)+3; period++ {
			point, err := rv.PointOf(key, s, period)
			if err != nil {
				t.Fatal(err)
			}
			p.points[point] = publishedAs{p.name, s, period}
		}
	}
	pub, err := crypto.UnmarshalEd25519PublicKey(transport[:])
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	p.main[id] = true
}

// carriage is one record, or one question for one, as it passed the third.
type carriage struct {
	conn   int // number of the connection
	remote peer.ID
	addr   string
	at     time.Time
	point  rv.Point
	put    bool
	record []byte // nil: asked for, and not there
	proxy  bool   // for somebody who dialled, else from server to server
}

// carriages takes all look-ups out of a transcript, and fails the test for every
// message about records that has another size than all have.
func carriages(t *testing.T, conns []testnet.HeardConn) (out []carriage) {
	t.Helper()
	for i, c := range conns {
		for _, s := range c.Streams {
			in, back := s.Messages()
			if !s.Inbound {
				in, back = back, in
			}
			seen := carriage{conn: i, remote: c.Remote, addr: c.Addr.String(), at: s.At}
			switch s.Protocol {
			case wire.DHTProxy:
				if !s.Inbound || len(in) == 0 { // what it asks for itself
					continue
				}
				seen.proxy = true
				for _, b := range slices.Concat(in, back) {
					if len(b) != rv.ProxySize || len(in) > 1 || len(back) > 1 {
						t.Errorf("a look-up with %d B, in one of %d questions and %d answers", len(b), len(in), len(back))
					}
				}
				q, err := rv.ParseRequest(in[0])
				if err != nil {
					t.Errorf("request: %v", err)
					continue
				}
				seen.point, seen.put, seen.record = q.Point, q.Record != nil, q.Record
				if len(back) > 0 && !seen.put { // else it was closed meanwhile
					a, err := rv.ParseReply(back[0])
					if err != nil {
						t.Errorf("reply: %v", err)
					}
					seen.record = a.Record
				}
				out = append(out, seen)
			case kadID:
				for _, b := range slices.Concat(in, back) {
					m := kadMessage(t, b)
					point, err := rv.ParseDHTKey(string(m.GetKey()))
					if err != nil {
						continue
					}
					seen.point, seen.put, seen.record = point, m.GetType() == pb.Message_PUT_VALUE, m.GetRecord().GetValue()
					out = append(out, seen)
				}
			}
		}
	}
	for _, c := range out {
		if c.record != nil && len(c.record) != rv.RecordSize {
			t.Errorf("a record of %d bytes", len(c.record))
		}
	}
	return out
}

func kadMessage(t *testing.T, b []byte) *pb.Message {
	t.Helper()
	m := new(pb.Message)
	if err := proto.Unmarshal(b, m); err != nil {
		t.Errorf("a message of the DHT that cannot be read: %v", err)
	}
	return m
}

// namesNobody fails the test where the third was asked by name for a transport key of
// somebody else than who asks, or is told of one where it has no business: outside of
// its own connection with that key, a transport key stands in the DHT's lists of
// servers, and in front of a circuit that the third relays, alone.
func namesNobody(t *testing.T, conns []testnet.HeardConn, people ...*person) {
	t.Helper()
	for i, c := range conns {
		for _, s := range c.Streams {
			in, out := s.Messages()
			rest := slices.Concat(s.In, s.Out)
			if s.Protocol == relayproto.ProtoIDv2Hop || s.Protocol == relayproto.ProtoIDv2Stop {
				rest = slices.Concat(slices.Concat(in[min(1, len(in)):]...), slices.Concat(out[min(1, len(out)):]...))
			}
			if s.Protocol == kadID {
				rest = nil
				for _, b := range slices.Concat(in, out) {
					m := kadMessage(t, b)
					m.CloserPeers = nil
					left, err := proto.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					rest = append(rest, left...)
				}
			}
			for _, p := range people {
				for id := range p.main {
					if id == c.Remote {
						continue
					}
					key := secrets{p.name + "'s transport key": []byte(id)[len(id)-32:], p.name + "'s peer id": []byte(id.String())}
					key.leaks(t, fmt.Sprintf("connection %d with %s, %s", i, c.Remote, s), rest)
				}
			}
		}
	}
}

// unlinked is the attempt of the third to tell which records of different days are of
// one device, from all that it has but the address: that is one's own, as long as one
// has it, so with a single server it shows who came back. It fails the test for each
// thing in common.
func unlinked(t *testing.T, conns []testnet.HeardConn, all []carriage, owners map[rv.Point]publishedAs) {
	t.Helper()
	// Of any two records: no key, no nonce, and no run of 8 bytes anywhere, the head
	// apart, which says the day and the minute and nothing else.
	const head, run = 13, 8
	records := map[string]rv.Point{}
	keys := map[rv.Point]bool{}
	for _, c := range all {
		keys[c.point] = true
		if c.record == nil {
			continue
		}
		if before, ok := records[string(c.record)]; ok && before != c.point {
			t.Errorf("one record lies at %x and at %x", before, c.point)
		}
		records[string(c.record)] = c.point
	}
	runs, nonces := map[string]string{}, map[string]bool{}
	note := func(what string, b []byte) {
		for i := range len(b) - run + 1 {
			if before, ok := runs[string(b[i:i+run])]; ok && before != what {
				t.Errorf("%s and %s have %x in common", before, what, b[i:i+run])
				return
			}
			runs[string(b[i:i+run])] = what
		}
	}
	for record, point := range records {
		b := []byte(record)
		stamp, err := rv.Verify(point, b)
		if err != nil {
			t.Errorf("a record that is none: %v", err)
			continue
		}
		if nonce := string(b[head : head+24]); nonces[nonce] {
			t.Errorf("a nonce twice: %x", nonce)
		} else {
			nonces[nonce] = true
		}
		if o := owners[point]; o.period != stamp.Period {
			t.Errorf("a record of period %d lies where that of %d should", stamp.Period, o.period)
		}
		note(fmt.Sprintf("a record of period %d, seq %d", stamp.Period, stamp.Seq), b[head:])
	}
	for point := range keys {
		note(fmt.Sprintf("the key %x", point[:4]), point[:])
	}
	// No connection, no peer id and no port of a look-up had to do with two points, and
	// none of them with a key that lasts.
	type place struct{ kind, value string }
	seen := map[place]rv.Point{}
	for _, c := range all {
		if !c.proxy {
			continue
		}
		for _, p := range []place{{"connection", fmt.Sprint(c.conn)}, {"peer id", c.remote.String()}, {"address", c.addr}} {
			if before, ok := seen[p]; ok && before != c.point {
				t.Errorf("%s %s asked for two records, of %+v and %+v", p.kind, p.value, owners[before], owners[c.point])
			}
			seen[p] = c.point
		}
	}
	sayTheSame(t, conns, all, owners)
	apart(t, all, owners)
}

// sayTheSame compares what the hosts of a moment said of themselves, around the
// look-ups of one device on two days: what these have in common, those of another
// device must have as well, or it would tell the one from the other.
func sayTheSame(t *testing.T, conns []testnet.HeardConn, all []carriage, owners map[rv.Point]publishedAs) {
	t.Helper()
	const run = 8
	type asked struct {
		who    string
		period rv.Period
	}
	said := map[asked][][]byte{}
	for _, c := range all {
		if o, ok := owners[c.point]; ok && c.proxy && c.put { // who puts a record is its owner
			for _, s := range conns[c.conn].Streams {
				said[asked{o.who, o.period}] = append(said[asked{o.who, o.period}], s.In)
			}
		}
	}
	own := map[string]map[string]rv.Period{} // runs that only one of them said
	for a, streams := range said {
		everybody := map[string]bool{}
		for b, theirs := range said {
			for _, s := range theirs {
				for i := range len(s) - run + 1 {
					if b.who != a.who {
						everybody[string(s[i:i+run])] = true
					}
				}
			}
		}
		if own[a.who] == nil {
			own[a.who] = map[string]rv.Period{}
		}
		for _, s := range streams {
			common := make([]bool, len(s))
			for i := range len(s) - run + 1 {
				for j := range run {
					common[i+j] = common[i+j] || everybody[string(s[i:i+run])]
				}
			}
			for i := range len(s) - run + 1 {
				w := string(s[i : i+run])
				if slices.Contains(common[i:i+run], true) {
					continue
				}
				if before, ok := own[a.who][w]; ok && before != a.period {
					t.Errorf("%s says %q on days %d and %d, and nobody else does", a.who, w, before, a.period)
				}
				own[a.who][w] = a.period
			}
		}
	}
	if len(said) < 3 { // what did not come by the third came by one of the two
		t.Errorf("two devices were heard on %d days", len(said))
	}
}

// apart looks at the minutes in which records came. That those of one device share a
// minute, or come at one minute of each day, may be chance once, and no more.
func apart(t *testing.T, all []carriage, owners map[rv.Point]publishedAs) {
	t.Helper()
	type day struct {
		who    string
		secret rv.Secret
		period rv.Period
	}
	minutes := map[day][]time.Time{}
	for _, c := range all {
		if o, ok := owners[c.point]; ok && c.put && c.proxy {
			d := day(o)
			minutes[d] = append(minutes[d], c.at)
		}
	}
	pairs, together, daily := 0, 0, 0
	for a, first := range minutes {
		for b, second := range minutes {
			if a.who != b.who || a.secret != b.secret || a.period >= b.period {
				continue
			}
			pairs++
			clock := func(at time.Time) int { return int(at.Sub(rv.PeriodAt(at).Start()) / time.Minute) }
			daily += map[bool]int{true: 1}[clock(first[0]) == clock(second[0])]
			for _, x := range first {
				if slices.ContainsFunc(second, func(y time.Time) bool { return x.Sub(y).Abs() < time.Minute }) {
					together++
				}
			}
		}
	}
	t.Logf("%d pairs of days of one device: %d times within a minute, %d times at the same minute of the day", pairs, together, daily)
	if pairs < 1 || together > 1 || daily > 1 {
		t.Errorf("%d pairs of days of one device: %d times within a minute, %d times at the same minute of the day", pairs, together, daily)
	}
}
