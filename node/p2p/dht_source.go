package p2p

import (
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
)

// source is who brought a record, as far as shares of the store go: a /24 or /48, or
// a peer of this machine. It is kept in memory alone: who put what is nothing to have
// on a disk.
type source string

const (
	// before is the source of what lay there at the start.
	before source = ""
	// own is this node's.
	own source = "own"
)

// sourceOf is the source of somebody who comes from an address.
func sourceOf(p peer.ID, from ma.Multiaddr) source {
	if prefix, ok := subnetOf(from); ok {
		return source(prefix.String())
	}
	return source(p)
}

// sourceField is the number of the field in which a source goes through kad-dht, which
// tells its datastore nothing of who asks but passes on fields that it does not know.
const sourceField = 1000

// mark puts the source into what kad-dht wraps around a record, in place of all that
// somebody else has put there.
func (s source) mark(env *recpb.Record) {
	b := protowire.AppendTag(nil, sourceField, protowire.BytesType)
	env.ProtoReflect().SetUnknown(protowire.AppendString(b, string(s)))
}

// unmark takes the source out again.
func unmark(env *recpb.Record) source {
	b := env.ProtoReflect().GetUnknown()
	env.ProtoReflect().SetUnknown(nil)
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != sourceField || kind != protowire.BytesType {
		return before
	}
	s, n := protowire.ConsumeString(b[n:])
	if n < 0 {
		return before
	}
	return source(s)
}
