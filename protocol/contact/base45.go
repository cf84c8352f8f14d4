package contact

import "errors"

// base45 is the encoding of RFC 9285: two bytes become three characters of
// the QR alphanumeric alphabet, least significant first, and an odd last byte
// becomes two.
const base45 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

var (
	errBase45Length = errors.New("base45: cut in the middle of a group")
	errBase45Digit  = errors.New("base45: character or group that does not exist")
)

// appendBase45 appends the encoding of src to dst.
func appendBase45(dst, src []byte) []byte {
	for len(src) >= 2 {
		n := int(src[0])<<8 | int(src[1])
		dst = append(dst, base45[n%45], base45[n/45%45], base45[n/45/45])
		src = src[2:]
	}
	if len(src) == 1 {
		n := int(src[0])
		dst = append(dst, base45[n%45], base45[n/45])
	}
	return dst
}

// decodeBase45 returns the bytes of s and, on an error, those decoded before
// it. There is exactly one spelling of any bytes.
func decodeBase45(s string) ([]byte, error) {
	out := make([]byte, 0, len(s)/3*2+1)
	for len(s) > 0 {
		group := s[:min(3, len(s))]
		s = s[len(group):]
		n, weight := 0, 1
		for i := range len(group) {
			d := base45Digit(group[i])
			if d < 0 {
				return out, errBase45Digit
			}
			n += d * weight
			weight *= 45
		}
		switch {
		case len(group) == 1, len(group) == 2 && n > 0xff:
			return out, errBase45Length
		case len(group) == 2:
			out = append(out, byte(n))
		case n > 0xffff:
			return out, errBase45Digit
		default:
			out = append(out, byte(n>>8), byte(n))
		}
	}
	return out, nil
}

func base45Digit(c byte) int {
	for i := range len(base45) {
		if base45[i] == c {
			return i
		}
	}
	return -1
}
