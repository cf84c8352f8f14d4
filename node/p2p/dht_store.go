package p2p

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/kinloom/kinloom/protocol/rv"
)

// maxRecords bounds the records that a server keeps for others: 45 MB on disk, of
// the 256 MB that net.db has for them. A network of S servers and D devices puts
// 2 x 40 x D/S on each, so this is enough for 400 devices a server.
const maxRecords = 32 << 10

var errDHTStore = errors.New("not a record, or one that this store does not want")

// records is what a server keeps: kad-dht's datastore, bounded in count and age.
// Of two records of one point it keeps the better one, whoever brings the other. If
// it is full, the source that has most of it makes room, so that none can push out
// those of others; of its records the one that lies farthest from this server in the
// key space goes: others are nearer to it, and more likely to be asked. Who has many
// subnets has as many shares.
type records struct {
	ds.Batching // under /dht; keys are /period/name, so that ages are known without reading
	self        [32]byte
	max         int
	now         func() time.Time

	mu    sync.Mutex // guards index and held, and what a Put decides
	index map[string]slot
	held  map[source]int // records of each source, none with 0
}

type slot struct {
	period rv.Period
	far    [32]byte // distance from this server
	from   source
}

// newRecords opens the store in data (nil: memory) and drops what is too old.
func newRecords(ctx context.Context, data ds.Batching, self peer.ID, now func() time.Time) (*records, error) {
	if data == nil {
		data = dssync.MutexWrap(ds.NewMapDatastore())
	}
	r := &records{
		Batching: namespace.Wrap(data, ds.NewKey("/dht")), self: sha256.Sum256([]byte(self)), max: maxRecords,
		now: now, index: make(map[string]slot), held: make(map[source]int),
	}
	found, err := r.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		return nil, fmt.Errorf("stored records: %w", err)
	}
	entries, err := found.Rest()
	if err != nil {
		return nil, fmt.Errorf("stored records: %w", err)
	}
	for _, e := range entries {
		day, name, _ := strings.Cut(strings.TrimPrefix(e.Key, "/"), "/")
		p, err := strconv.ParseUint(day, 10, 32)
		raw, rerr := rawName(name)
		if err != nil || rerr != nil {
			if err := r.Batching.Delete(ctx, ds.NewKey(e.Key)); err != nil {
				return nil, fmt.Errorf("stored records: %w", err)
			}
			continue
		}
		r.put(name, slot{rv.Period(p), distance(r.self, sha256.Sum256(raw)), before})
	}
	return r, r.expire(ctx)
}

// kadNames is how kad-dht writes a key.
var kadNames = base32.StdEncoding.WithPadding(base32.NoPadding)

// rawName undoes what kad-dht makes of a key.
func rawName(name string) ([]byte, error) { return kadNames.DecodeString(name) }

func nameOf(point rv.Point) string {
	return kadNames.EncodeToString([]byte(rv.DHTKey(point)))
}

func distance(a, b [32]byte) (d [32]byte) {
	for i := range d {
		d[i] = a[i] ^ b[i]
	}
	return d
}

func (r *records) key(name string, p rv.Period) ds.Key {
	return ds.NewKey(fmt.Sprintf("/%d/%s", p, name))
}

// Get implements [ds.Read]. What has ended is not there.
func (r *records) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	r.mu.Lock()
	s, ok := r.index[key.Name()]
	r.mu.Unlock()
	if !ok || !r.now().Before(s.period.NotAfter()) {
		return nil, ds.ErrNotFound
	}
	return r.Batching.Get(ctx, r.key(key.Name(), s.period))
}

// Delete implements [ds.Write].
func (r *records) Delete(ctx context.Context, key ds.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drop(ctx, key.Name())
}

// drop deletes a record. The caller holds mu.
func (r *records) drop(ctx context.Context, name string) error {
	s, ok := r.index[name]
	if !ok {
		return nil
	}
	delete(r.index, name)
	if r.held[s.from]--; r.held[s.from] == 0 {
		delete(r.held, s.from)
	}
	return r.Batching.Delete(ctx, r.key(name, s.period))
}

// put notes a record that is not there yet. The caller holds mu, or is alone.
func (r *records) put(name string, s slot) {
	r.index[name] = s
	r.held[s.from]++
}

// Put implements [ds.Write]. The value is what kad-dht wraps around a record, and the
// source that onRequest has put into it, which is not stored.
func (r *records) Put(ctx context.Context, key ds.Key, value []byte) error {
	env := new(recpb.Record)
	if err := proto.Unmarshal(value, env); err != nil {
		return fmt.Errorf("%w: %w", errDHTStore, err)
	}
	point, err := rv.ParseDHTKey(string(env.GetKey()))
	if err != nil || nameOf(point) != key.Name() {
		return fmt.Errorf("%w: key", errDHTStore)
	}
	stamp, err := rv.Verify(point, env.GetValue())
	if err != nil {
		return fmt.Errorf("%w: %w", errDHTStore, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name, mine := key.Name(), slot{stamp.Period, distance(r.self, sha256.Sum256(env.GetKey())), unmark(env)}
	if value, err = proto.Marshal(env); err != nil {
		return fmt.Errorf("%w: %w", errDHTStore, err)
	}
	if old, ok := r.index[name]; ok {
		if b, err := r.Batching.Get(ctx, r.key(name, old.period)); err == nil && better(point, b, env.GetValue()) {
			return nil
		}
		if err := r.drop(ctx, name); err != nil {
			return err
		}
	}
	if len(r.index) >= r.max && !r.makeRoom(ctx, mine) {
		return fmt.Errorf("%w: full", errDHTStore)
	}
	if err := r.Batching.Put(ctx, r.key(name, stamp.Period), value); err != nil {
		return err
	}
	r.put(name, mine)
	return nil
}

// better reports whether the stored envelope holds a better record than val.
func better(point rv.Point, stored, val []byte) bool {
	env := new(recpb.Record)
	if proto.Unmarshal(stored, env) != nil {
		return false
	}
	if _, err := rv.Verify(point, env.GetValue()); err != nil {
		return false
	}
	return rv.Select([][]byte{env.GetValue(), val}) == 0
}

// makeRoom drops a record so that s finds room, or reports that s has to stay out. The
// caller holds mu.
func (r *records) makeRoom(ctx context.Context, s slot) bool {
	most := 0
	for _, n := range r.held {
		most = max(most, n)
	}
	// Those with most pay. Who has as many as they have pays too, by the distance of the
	// new record; who has fewer does not.
	equal := r.held[s.from] >= most-1
	farthest, far := "", [32]byte{}
	if equal {
		far = s.far
	}
	for name, old := range r.index {
		if !r.now().Before(old.period.NotAfter()) {
			return r.drop(ctx, name) == nil
		}
		pays := r.held[old.from] == most || old.from == s.from && equal
		if pays && string(old.far[:]) > string(far[:]) {
			farthest, far = name, old.far
		}
	}
	return farthest != "" && r.drop(ctx, farthest) == nil
}

// expire deletes what has ended.
func (r *records) expire(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for name, s := range r.index {
		if !r.now().Before(s.period.NotAfter()) {
			errs = append(errs, r.drop(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (r *records) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.index)
}

// record returns the record of a point that is stored here, nil if there is none.
func (r *records) record(ctx context.Context, point rv.Point) []byte {
	b, err := r.Get(ctx, ds.NewKey(nameOf(point)))
	env := new(recpb.Record)
	if err != nil || proto.Unmarshal(b, env) != nil {
		return nil
	}
	return env.GetValue()
}

// add stores a record as if a source had put it.
func (r *records) add(ctx context.Context, point rv.Point, record []byte, from source) error {
	env := &recpb.Record{
		Key: []byte(rv.DHTKey(point)), Value: record, TimeReceived: r.now().UTC().Format(time.RFC3339Nano),
	}
	from.mark(env)
	b, err := proto.Marshal(env)
	if err != nil {
		return fmt.Errorf("wrap record: %w", err)
	}
	return r.Put(ctx, ds.NewKey(nameOf(point)), b)
}
