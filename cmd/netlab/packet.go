package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Protocol numbers of IP that the wire knows.
const (
	protoTCP = 6
	protoUDP = 17
)

var errPacket = errors.New("not an IP packet")

// header is what the wire reads of a packet: where it goes, and where its damageable part begins.
type header struct {
	src, dst netip.Addr
	proto    byte // of the transport header; 0 where there is none, as in a later fragment
	start    int  // of the transport header
}

// parseHeader reads the header of an IPv4 or IPv6 packet. Extension headers of IPv6 are taken for payload.
func parseHeader(b []byte) (header, error) {
	if len(b) == 0 {
		return header{}, errPacket
	}
	switch b[0] >> 4 {
	case 4:
		start := int(b[0]&15) * 4
		if start < 20 || len(b) < start || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			return header{}, errPacket
		}
		h := header{src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), start: start}
		if binary.BigEndian.Uint16(b[6:])&0x3fff == 0 { // neither a fragment nor followed by one
			h.proto = b[9]
		}
		return h, nil
	case 6:
		if len(b) < 40 || int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 {
			return header{}, errPacket
		}
		return header{src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])), proto: b[6], start: 40}, nil
	}
	return header{}, errPacket
}

// damage flips one bit, chosen by dice, behind the headers of a packet. With mend it corrects the checksum of TCP or UDP
// too, so that the kernel of the receiver hands the damage up to the program; without, the kernel drops the packet. A
// packet that carries nothing behind its headers stays as it is, and damage reports false.
func damage(b []byte, dice uint64, mend bool) bool {
	h, err := parseHeader(b)
	if err != nil {
		return false
	}
	segment := b[h.start:]
	data, sum := 0, -1
	switch {
	case h.proto == protoUDP && len(segment) > 8:
		data, sum = 8, 6
	case h.proto == protoTCP && len(segment) >= 20:
		data, sum = int(segment[12]>>4)*4, 16
	case h.proto == protoUDP || h.proto == protoTCP:
		return false
	}
	if data >= len(segment) || sum >= 0 && data < sum+2 {
		return false
	}
	at := data + int(dice/8%uint64(len(segment)-data))
	before := wordAt(segment, at)
	segment[at] ^= 1 << (dice % 8)
	if !mend || sum < 0 {
		return true
	}
	field := segment[sum : sum+2]
	old := binary.BigEndian.Uint16(field)
	if h.proto == protoUDP && old == 0 { // sent without a checksum
		return true
	}
	mended := adjust(old, before, wordAt(segment, at))
	if h.proto == protoUDP && mended == 0 {
		mended = 0xffff
	}
	binary.BigEndian.PutUint16(field, mended)
	return true
}

// wordAt returns the 16-bit word that holds byte at, as the checksum sees it: the last one is filled up with zero.
func wordAt(b []byte, at int) uint16 {
	at &^= 1
	word := uint16(b[at]) << 8
	if at+1 < len(b) {
		word |= uint16(b[at+1])
	}
	return word
}

// adjust returns the Internet checksum after one word has changed (RFC 1624, equation 3).
func adjust(sum, before, after uint16) uint16 {
	s := uint32(^sum) + uint32(^before) + uint32(after)
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}
