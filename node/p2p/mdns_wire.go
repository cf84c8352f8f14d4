package p2p

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/dns/dnsmessage"
)

// The names of our service in multicast DNS (RFC 6762, RFC 6763). The TXT strings
// have the form of libp2p's own mDNS discovery.
const (
	mdnsService = "_kinloom._udp.local."
	mdnsTXT     = "dnsaddr="
	// mdnsPacket is the most that fits a packet of an Ethernet with IPv6; longer ones
	// are cut off and refused.
	mdnsPacket = 1452
	// mdnsRecords bounds the records that are looked at in one packet.
	mdnsRecords = 64
	// mdnsTTL is how long an announcement holds, in seconds.
	mdnsTTL = 120
)

var errMDNS = errors.New("not an mDNS packet of ours")

// heard is what one packet says.
type heard struct {
	asks  bool            // somebody wants us to announce ourselves
	peers []peer.AddrInfo // who announces itself, at most 4, each with at most MaxAddrs addresses
}

// appendQuery appends the question for our service.
func appendQuery(dst []byte) ([]byte, error) {
	name, err := dnsmessage.NewName(mdnsService)
	if err != nil {
		return nil, fmt.Errorf("service name: %w", err)
	}
	b := dnsmessage.NewBuilder(dst, dnsmessage.Header{})
	if err := b.StartQuestions(); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	if err := b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	out, err := b.Finish()
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return out, nil
}

// appendAnnounce appends the announcement of the addresses of self that have the
// given IP, under a random instance name. ttl 0 takes it back. Nothing else about
// the machine is in it: the host name is the instance name.
func appendAnnounce(dst []byte, instance string, self peer.AddrInfo, ip netip.Addr, ttl uint32) ([]byte, error) {
	var txt []string
	size := 300 // names and fixed parts
	for _, a := range self.Addrs {
		if got, ok := ipOf(a); !ok || got != ip {
			continue
		}
		s := mdnsTXT + a.String() + "/p2p/" + self.ID.String()
		if size += len(s) + 1; len(s) > 255 || size > mdnsPacket {
			break
		}
		txt = append(txt, s)
	}
	if len(txt) == 0 || !ip.Is4() {
		return nil, ErrNoAddress
	}
	service, err := dnsmessage.NewName(mdnsService)
	if err != nil {
		return nil, fmt.Errorf("service name: %w", err)
	}
	full, err := dnsmessage.NewName(instance + "." + mdnsService)
	if err != nil {
		return nil, fmt.Errorf("instance name: %w", err)
	}
	host, err := dnsmessage.NewName(instance + ".local.")
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	b := dnsmessage.NewBuilder(dst, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	head := func(n dnsmessage.Name, shared bool) dnsmessage.ResourceHeader {
		class := dnsmessage.ClassINET
		if !shared {
			class |= 1 << 15 // cache flush: this record is ours alone
		}
		return dnsmessage.ResourceHeader{Name: n, Class: class, TTL: ttl}
	}
	err = errors.Join(
		b.StartAnswers(),
		b.PTRResource(head(service, true), dnsmessage.PTRResource{PTR: full}),
		b.TXTResource(head(full, false), dnsmessage.TXTResource{TXT: txt}),
		b.SRVResource(head(full, false), dnsmessage.SRVResource{Target: host, Port: 9}), // the TXT says where
		b.AResource(head(host, false), dnsmessage.AResource{A: ip.As4()}),
	)
	if err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	out, err := b.Finish()
	if err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	return out, nil
}

// parseMDNS reads a packet from src. Only addresses with the IP of src count, so
// that nobody can make a LAN full of nodes dial a victim.
func parseMDNS(b []byte, src netip.Addr) (heard, error) {
	if len(b) > mdnsPacket {
		return heard{}, errMDNS
	}
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.OpCode != 0 || h.RCode != dnsmessage.RCodeSuccess {
		return heard{}, errMDNS
	}
	if !h.Response {
		return parseQuestions(&p)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return heard{}, errMDNS
	}
	var out heard
	for range mdnsRecords {
		rh, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return out, nil
		}
		if err != nil {
			return heard{}, errMDNS
		}
		name := strings.ToLower(rh.Name.String())
		if rh.Type != dnsmessage.TypeTXT || rh.TTL == 0 || !strings.HasSuffix(name, "."+mdnsService) {
			if err := p.SkipAnswer(); err != nil {
				return heard{}, errMDNS
			}
			continue
		}
		txt, err := p.TXTResource()
		if err != nil {
			return heard{}, errMDNS
		}
		out.add(txt.TXT, src)
	}
	return heard{}, errMDNS
}

func parseQuestions(p *dnsmessage.Parser) (heard, error) {
	for range mdnsRecords {
		q, err := p.Question()
		if err == dnsmessage.ErrSectionDone {
			return heard{}, nil
		}
		if err != nil {
			return heard{}, errMDNS
		}
		if strings.EqualFold(q.Name.String(), mdnsService) && (q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL) {
			return heard{asks: true}, nil
		}
	}
	return heard{}, errMDNS
}

// add takes the addresses of one TXT record.
func (h *heard) add(txt []string, src netip.Addr) {
	for _, s := range txt {
		s, ok := strings.CutPrefix(s, mdnsTXT)
		if !ok {
			continue
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		a, id := peer.SplitAddr(a)
		if a == nil || !isEd25519(id) {
			continue
		}
		if a, ok = usable(a); ok {
			ok = !isCircuit(a)
		}
		if !ok {
			continue
		}
		if ip, ok := ipOf(a); !ok || ip != src || ip.IsLoopback() {
			continue
		}
		h.addPeer(id, a)
	}
}

func (h *heard) addPeer(id peer.ID, a ma.Multiaddr) {
	for i := range h.peers {
		if p := &h.peers[i]; p.ID == id {
			if len(p.Addrs) < MaxAddrs && !ma.Contains(p.Addrs, a) {
				p.Addrs = append(p.Addrs, a)
			}
			return
		}
	}
	if len(h.peers) < 4 {
		h.peers = append(h.peers, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{a}})
	}
}
