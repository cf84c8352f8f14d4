package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"testing"
)

// sample builds a packet with right checksums.
func sample(src, dst string, proto byte, payload string) []byte {
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	segment := make([]byte, 8)
	sumAt := 6
	if proto == protoTCP {
		segment, sumAt = make([]byte, 24), 16 // 4 bytes of options
		segment[12] = 6 << 4
	}
	segment = append(segment, payload...)
	if proto == protoUDP {
		binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)))
	}
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = append(pseudo, 0, 0, byte(len(segment)>>8), byte(len(segment)), 0, 0, 0, proto)
	binary.BigEndian.PutUint16(segment[sumAt:], ^sum16(append(pseudo, segment...)))
	if from.Is6() {
		b := make([]byte, 40)
		b[0], b[6] = 0x60, proto
		binary.BigEndian.PutUint16(b[4:], uint16(len(segment)))
		copy(b[8:], from.AsSlice())
		copy(b[24:], to.AsSlice())
		return append(b, segment...)
	}
	b := make([]byte, 24) // with 4 bytes of options
	b[0], b[9] = 0x46, proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(segment)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	return append(b, segment...)
}

// sum16 is the one's complement sum of RFC 1071.
func sum16(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(wordAt(b, i))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// wholesome reports whether the checksum of a packet's TCP or UDP is right.
func wholesome(t *testing.T, b []byte) bool {
	t.Helper()
	h, err := parseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	segment := b[h.start:]
	pseudo := append(h.src.AsSlice(), h.dst.AsSlice()...)
	pseudo = append(pseudo, 0, 0, byte(len(segment)>>8), byte(len(segment)), 0, 0, 0, h.proto)
	return sum16(append(pseudo, segment...)) == 0xffff
}

var samples = []struct {
	name, src, dst string
	proto          byte
	payload        string
}{
	{"udp over 4", "45.10.0.1", "45.20.0.1", protoUDP, "odd length"},
	{"udp over 6", "2a01:10::1", "2a01:20::1", protoUDP, "odd length!"},
	{"tcp over 4", "45.10.0.1", "45.20.0.1", protoTCP, "x"},
	{"tcp over 6", "2a01:10::1", "2a01:20::1", protoTCP, "a stream of bytes"},
}

func TestParseHeader(t *testing.T) {
	for _, s := range samples {
		b := sample(s.src, s.dst, s.proto, s.payload)
		h, err := parseHeader(b)
		if err != nil || h.src.String() != s.src || h.dst.String() != s.dst || h.proto != s.proto || !bytes.HasSuffix(b[h.start:], []byte(s.payload)) {
			t.Errorf("%s: got %+v, %v", s.name, h, err)
		}
		for n := range b {
			if h, err := parseHeader(b[:n]); err == nil {
				t.Fatalf("%s: the first %d bytes are taken for a packet: %+v", s.name, n, h)
			}
		}
	}
	fragment := sample("45.10.0.1", "45.20.0.1", protoUDP, "part of more")
	fragment[6] = 0x20
	if h, err := parseHeader(fragment); err != nil || h.proto != 0 {
		t.Errorf("a fragment: got %+v, %v, want no protocol, as its checksum covers more", h, err)
	}
	for _, b := range [][]byte{nil, {0x45}, {0x50, 0, 0, 1}, append([]byte{0x44}, make([]byte, 30)...)} {
		if _, err := parseHeader(b); err == nil {
			t.Errorf("%x is taken for a packet", b)
		}
	}
}

// TestDamage flips one bit of what is carried, and never one of the headers: a packet that goes astray is no test of
// anything.
func TestDamage(t *testing.T) {
	for _, s := range samples {
		for dice := range uint64(300) {
			for _, mend := range []bool{false, true} {
				whole := sample(s.src, s.dst, s.proto, s.payload)
				if !wholesome(t, whole) {
					t.Fatalf("%s: bug of the test: wrong checksum", s.name)
				}
				hurt := bytes.Clone(whole)
				if !damage(hurt, dice, mend) {
					t.Fatalf("%s: nothing was damaged", s.name)
				}
				data := len(whole) - len(s.payload)
				flipped := 0
				for i := data; i < len(whole); i++ {
					flipped += bits.OnesCount8(whole[i] ^ hurt[i])
				}
				if flipped != 1 {
					t.Fatalf("%s, dice %d: %d bits of the payload differ, want 1", s.name, dice, flipped)
				}
				if got := wholesome(t, hurt); got != mend {
					t.Fatalf("%s, dice %d: checksum right: %v, want %v", s.name, dice, got, mend)
				}
				if !mend && !bytes.Equal(whole[:data], hurt[:data]) {
					t.Fatalf("%s, dice %d: the headers were changed", s.name, dice)
				}
			}
		}
		if empty := sample(s.src, s.dst, s.proto, ""); damage(empty, 1, true) {
			t.Errorf("%s: damage in a packet without payload", s.name)
		}
	}
}

// TestDamageKeepsNoChecksum: UDP over IPv4 may go without, and zero has to stay zero.
func TestDamageKeepsNoChecksum(t *testing.T) {
	b := sample("45.10.0.1", "45.20.0.1", protoUDP, "payload")
	field := b[24+6 : 24+8]
	field[0], field[1] = 0, 0
	if !damage(b, 3, true) || field[0] != 0 || field[1] != 0 {
		t.Errorf("checksum is %x, want none", field)
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, s := range samples {
		f.Add(sample(s.src, s.dst, s.proto, s.payload), uint64(7), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, dice uint64, mend bool) {
		h, err := parseHeader(b)
		if err == nil && (!h.src.IsValid() || !h.dst.IsValid() || h.start > len(b)) {
			t.Errorf("parseHeader(%x) = %+v", b, h)
		}
		hurt := bytes.Clone(b)
		if damage(hurt, dice, mend) == bytes.Equal(hurt, b) {
			t.Errorf("damage tells the wrong thing of %x", b)
		}
	})
}
