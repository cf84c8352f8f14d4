package testnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/protocol/rv"
)

// device is one that publishes records.
type device struct {
	key    identity.RendezvousKey
	secret rv.Secret
}

func newDevice(i int) device {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i)+1)
	return device{identity.NewRendezvousKey(seed), rv.Secret{'s', byte(i), byte(i >> 8)}}
}

// record returns the device's record for a period.
func (d device) record(t testing.TB, p rv.Period, seq uint64) (rv.Point, []byte) {
	t.Helper()
	point, err := rv.PointOf(d.key.Public(), d.secret, p)
	if err != nil {
		t.Fatal(err)
	}
	hint := rv.Hint{Devices: []rv.Place{{Transport: [32]byte{1}, Addrs: [][]byte{ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1").Bytes()}}}}
	b, err := rv.Seal(d.key, d.secret, p, seq, hint, rand.NewChaCha8([32]byte{byte(seq)}))
	if err != nil {
		t.Fatal(err)
	}
	return point, b
}

// now returns the record of the running period.
func (d device) now(t testing.TB, seq uint64) (rv.Point, []byte) {
	t.Helper()
	return d.record(t, rv.PeriodAt(time.Now()), seq)
}

func (u *up) info() peer.AddrInfo { return peer.AddrInfo{ID: u.id, Addrs: []ma.Multiaddr{u.addr}} }

// knowing returns cfg with one bootstrap server.
func knowing(cfg p2p.Config, who ...*up) p2p.Config {
	for _, u := range who {
		cfg.Bootstrap = append(cfg.Bootstrap, u.info())
	}
	return cfg
}

// servers starts n servers, each of which knows an earlier one, half a second apart.
func servers(t testing.TB, n *Net, count int) []*up {
	t.Helper()
	dice := rand.New(rand.NewPCG(n.seed, 1))
	cfg := p2p.Config{Profile: p2p.Server}
	if count > 200 { // some 45 KB for each end of a connection; a look-up dials more then
		cfg.ConnLow, cfg.ConnHigh = 40, 64
	}
	out := []*up{start(t, n, 0, cfg)}
	for i := 1; i < count; i++ {
		out = append(out, start(t, n, i, knowing(cfg, out[dice.IntN(i)])))
		time.Sleep(500 * time.Millisecond)
		if i%100 == 0 {
			t.Logf("%d of %d servers started, %d goroutines", i, count, runtime.NumGoroutine())
		}
	}
	time.Sleep(2 * time.Minute)
	return out
}

// find returns the first record that u finds at a point, nil if there is none.
func (u *up) find(ctx context.Context, point rv.Point) (found []byte, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	begin := time.Now()
	_, err = u.FindRecord(ctx, p2p.Point{ID: point}, func(record []byte, _ time.Time) {
		if record != nil && found == nil {
			found, after = record, time.Since(begin)
		}
	})
	return found, after, err
}

// quantile returns the share q of sorted times.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

// dhtSize returns how large a network the test makes: few, many by night, or a third
// of few in the short form.
func dhtSize(t testing.TB, few, many int) int {
	t.Helper()
	if s := os.Getenv("KINLOOM_DHT_NODES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if os.Getenv("KINLOOM_NIGHTLY") == "1" {
		return many
	}
	if testing.Short() { // beside the race detector
		return max(few/3, 6)
	}
	return few
}

// TestFoundByRecordAlone: a publisher and a finder that know one server each, and not
// of each other, meet by the record. With KINLOOM_NIGHTLY=1 or KINLOOM_DHT_NODES=N
// among more servers.
func TestFoundByRecordAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size := dhtSize(t, 30, 100)
		n := New(t, 1, Options{})
		all := servers(t, n, size)
		var tables []int
		for _, u := range all {
			tables = append(tables, u.DHTPeers())
		}
		slices.Sort(tables)
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		t.Logf("%d servers: routing tables %d to %d, %d goroutines, %d MiB heap",
			size, tables[0], tables[len(tables)-1], runtime.NumGoroutine(), mem.HeapAlloc>>20)
		if tables[0] < min(size-1, 8) {
			t.Errorf("a routing table has %d servers", tables[0])
		}
		pub := start(t, n, size, knowing(p2p.Config{}, all[1]))
		fin := start(t, n, size+1, knowing(p2p.Config{}, all[2]))
		time.Sleep(time.Minute)
		contacts := min(size, 100) / 3
		var puts, gets []time.Duration
		for i := range contacts {
			point, record := newDevice(i).now(t, 1)
			begin := time.Now()
			if err := pub.PublishRecord(t.Context(), point, record); err != nil {
				t.Error(i, err)
				continue
			}
			puts = append(puts, time.Since(begin))
			time.Sleep(2 * time.Second)
			found, after, err := fin.find(t.Context(), point)
			if err != nil || !bytes.Equal(found, record) {
				t.Errorf("contact %d: found %d bytes, %v", i, len(found), err)
				continue
			}
			gets = append(gets, after)
			time.Sleep(10 * time.Second)
		}
		t.Logf("%d servers: put p50 %v p95 %v; found %d of %d by record alone, p50 %v p95 %v", size,
			quantile(puts, 0.5), quantile(puts, 0.95), len(gets), contacts, quantile(gets, 0.5), quantile(gets, 0.95))
		bar50, bar95 := 1300*time.Millisecond, 2*time.Second
		if size > 100 { // one more hop
			bar50, bar95 = 2*time.Second, 3*time.Second
		}
		if p50, p95 := quantile(gets, 0.5), quantile(gets, 0.95); p50 > bar50 || p95 > bar95 {
			t.Errorf("found after p50 %v, p95 %v; want at most %v and %v", p50, p95, bar50, bar95)
		}
	})
}
