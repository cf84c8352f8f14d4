// Package p2p is the only place where kinloom touches the network of other
// nodes: up to two libp2p hosts behind one router of protocols, and one more Net where
// somebody must not learn where the machine is.
//
//   - The main host has the device's transport key. It is reached by addresses
//     that somebody was given: an invite, a cached address, an address pushed
//     over an existing session.
//   - The LAN host has a key of its own that the node replaces every day and at
//     each change of network (RotateLAN). It alone is announced by mDNS as
//     _kinloom._udp, it talks to non-public addresses only, and nothing in what
//     it says links it to the main key or to the key of yesterday. It dials those
//     that it found, who are LAN hosts too. Neighbours that are contacts recognise
//     each other by the tags of /kinloom/hello/1, which is not done here.
//
// The main host also dials and answers at addresses of the LAN, as an invite for
// the LAN asks for: the handshake shows its key to the one who was meant, and to
// no neighbour.
//
// A Net is used like this:
//
//	n, err := p2p.New(p2p.Config{Key: key, LAN: true, MDNS: true, Handler: node})
//	n.Handle(wire.DM, p2p.Limits{Streams: 128, PerPeer: 2}, serveDM) // both hosts
//	err = n.Open(ctx)                                  // sockets; ErrPortTaken
//	err = n.Run(ctx)                                   // events, mDNS; until ctx ends
//	path, err := n.Dial(ctx, id, addrs)                // picks the host
//	s, err := n.NewStream(ctx, id, wire.DM)            // no round trip of its own
//
// New only assembles. Open binds the sockets and starts libp2p; stream handlers
// may be called from then on. Run delivers events to Config.Handler from one
// goroutine, announces and searches the LAN, and on return has removed the
// handlers, closed both hosts and waited for every stream handler. Close does the
// same for a Net that was opened and never run.
//
// # Lazy streams
//
// NewStream does not wait for identify nor for the answer of the protocol
// negotiation: the first Write carries the protocol header and the data in one
// packet, so the first answer is there after one round trip. If the other side
// does not speak the protocol, the first Read says so (ErrNotSupported). Dialling
// takes one round trip over QUIC and three over TCP.
//
// # What a stranger can use up
//
// Every bound is a named constant in limits.go with its reason. Connections are
// bounded in total, per address, per /24 and per /48, and in rate, before the
// handshake. Streams are bounded per peer and per protocol, and each peer and
// each /24 or /48 has a token bucket for opening them; who keeps running into it
// is disconnected and refused for BanTime. The loopback is one subnet, with wider bounds. Memory is bounded per protocol, per
// peer and in total. One resource manager counts for both hosts. Only Ed25519
// peer ids are spoken to.
//
// # Being reached
//
// Config.Profile says what the main host does for it; the LAN host does nothing. Net
// holds reservations on relays (circuit v2) while the node is not known to be public,
// lets others dial back (AutoNAT v1 and v2), opens ports in the router, and punches
// holes from a connection over a relay to one without (DCUtR), which is never waited
// for and tried again some times while the connection lasts. Reachability says what is known, and only that: an address on an interface is
// no promise, so BestAddr(Internet) returns one at which somebody dialled back, one
// of a server where somebody came in from outside, or one over a relay held.
// Handler.AddrsChanged tells when it changes; that this computer is in another network
// is seen within a second (ifaces.go), and every relay has to confirm.
//
// A path over a relay has the route Relayed and its PeerID: the relay sees both ends.
// Connections of others over a relay are let in only from relays that this node asked
// to be one, at most MaxCircuitsRelay each; their number is not counted against the
// relay's own address, nor their streams against its subnet. Strangers have half of the
// places while they do not say who they are and half after it, each until the next one
// needs it, and give way to those who are known, of whom each person has a quarter at
// most. The relays that lead to a peer are asked side by side, 5 s each (overrelay.go): one
// that has died shows late.
//
// A public home or server relays for others. Limits of circuit v2 are the same for
// everybody, so there are two relays behind the one protocol: strangers have libp2p's
// limits, and contacts (Config.Trusted) have slots of their own, 30 minutes a circuit
// and 1 GiB a day. Who holds the reservation decides, not who dials; but one other person
// or subnet uses a quarter of that GiB at most and those who are no contacts half, and
// who has used that up, as the contact's own devices may all of it, has circuits with the
// limits of strangers. A contact that is none any more gets no further circuit. To one
// peer there are more circuits than it takes, and strangers open them at a bounded rate:
// whom it has no place for, it decides itself.
//
// # The DHT
//
// Look-up records (protocol/rv) lie with the servers of a DHT of kinloom's own:
// /kinloom/kad/1.0.0, kad-dht's server side and routing table with records as the only
// values. A node with the profile server serves it, one at home while others can reach
// it, a client never; lan has none.
//
// Nobody asks the DHT in person. FindRecord and PublishRecord dial a random server
// from a host that exists for that one request (throwaway.go), and the server walks
// through the DHT for them (lookup.go). It asks and stores with the 40 servers nearest
// to a point, and ends early when three in different subnets agree on the best record.
// A server that lies can withhold: records are checked wherever they arrive.
//
// The address book (book.go) holds some 200 servers over restarts, of many networks.
// Whoever is named by AddBootstrap or the DHT gets into it: the owner, contacts, the
// relays of invites, signed lists, and names in DNS, each with its source; who is silent
// falls behind and out, and who named a server can take it back. The routing table is
// filled from it whenever it is thin. Neighbours on the LAN are no source: their LAN
// hosts serve no DHT, and what they would say of their main hosts would show whose those
// are. A neighbour who is a contact says it inside the session.
//
// A server keeps a bounded number of records for others, with a fair share for each
// subnet that brings some (dht_store.go).
//
// # Under a veil
//
// Who must not learn where this machine is, is spoken to by a Net of its own
// (Config.Veiled), which shares nothing with the one above but the book of whom it may
// use: another key, no listener, no address in identify, no AutoNAT, DCUtR or DHT. It
// dials the relays that its owner trusts, at the addresses that its owner has of them,
// and everybody else through these; its gater refuses all else, whatever libp2p was
// told. A relay that the other side names could be theirs, and so could the address that
// they give of a relay: neither is dialled. A relay at this machine's own
// place would show its address, too: Elsewhere leaves out those that are known to be, and
// before one is used, it has to say itself at which address it sees this machine, which
// a router may have changed (sight.go). FindRecordBy and PublishRecordBy keep what is
// looked up and published for them with servers of the owner's choice, because the one
// who knows a point may have a server that waits for it; each says first where it sees
// this machine, as a relay does, for it asks others from its own address. A veiled Net has
// a resource manager of its own: nobody tells by what is used up there that two are one.
//
// To the main host such a person is a stranger in all that a stranger can bring about.
// Config.Avoid keeps them out where this node chooses: whom it dials and asks to relay.
// It is asked by no gater and no filter of the DHT: libp2p dials back whoever asks for it,
// and the DHT asks every server, so the one host that did not would show whose it is. For
// the same reason records are looked up through servers of theirs that were met in the
// DHT, as through any other: these see an address and a point that means nothing to them.
// Only one that the owner or a contact told of is left out. To relay they are not asked,
// and who runs many relays may see that over days: to ask them and tell nobody of it would
// be seen, too, as nobody ever came, and to ask no stranger would leave other contacts with
// as few relays as the owner has.
//
// # Networks that block
//
// A server listens on port 443 only: QUIC, and TCP that wss shares (WebSocket over
// TLS, Noise inside). Its certificate is made at each start, names nobody and is
// checked by nobody: who is spoken to is proven inside. Addresses are IP with QUIC
// v1, TCP or /tcp/PORT/tls/ws; a plain WebSocket gets through nowhere that TCP does
// not, and a name would tell a resolver whom we look for.
//
// With Config.Proxy, TCP and wss go through an HTTP proxy by CONNECT and there is no
// QUIC. What the proxy refuses is not tried again for an hour; what is wrong with the
// proxy itself says ProxyTrouble. The local network is dialled without it. The
// operator of the proxy sees the addresses of those that we dial.
//
// What answers with something else than libp2p, a login page or a box that ends TLS, is
// ErrStrange and counted in Tried; nothing of it is parsed as a peer's.
//
// TCP prefers Noise to TLS, QUIC has TLS alone, whose certificates are valid from an
// hour before they were made: where a clock is off by more, TCP and wss still connect.
//
// # What this package does not do
//
// It knows no person, no device and no session. It does not decide whom to dial
// or when to try again, stores nothing but records and the address book, and takes no name where an IP belongs. A node
// that is public without anybody having dialled back does not know it.
package p2p
