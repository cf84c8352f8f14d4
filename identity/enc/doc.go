// Package enc is the one CBOR mode of kinloom: deterministic when it writes,
// strict when it reads. Every value has exactly one spelling, so bytes can be
// signed, hashed and compared as they were received.
//
// Structs use integer keys and must be written like this:
//
//	type Offer struct {
//		Suite uint16   `cbor:"1,keyasint"`
//		Nonce [32]byte `cbor:"2,keyasint"`
//		Name  string   `cbor:"3,keyasint,omitempty"`
//		Place *Place   `cbor:"4,keyasint,omitempty"`
//	}
//
// The rules are those of core deterministic encoding (RFC 8949, 4.2.1) with
// less in it. Allowed are integers from -2^63 to 2^64-1, byte strings, text in
// valid UTF-8, arrays, maps, true and false. Refused are floats, tags, null,
// undefined and other simple values, indefinite lengths, integers and lengths
// that are not as short as they can be, map keys that are neither integers nor
// text, are not in bytewise order or stand twice, nesting deeper than
// [MaxDepth], and bytes behind the value. An absent optional field is left
// out; null would be a second spelling of it. Unknown keys of a map are passed
// over, so that a later version may add some; who stores, hashes or forwards a
// value keeps the received bytes, and unknown keys survive.
//
// A Go type is met exactly: a byte array takes a byte string of its own length
// and no other, and a byte slice takes no array of integers. Every field must
// be there (ErrMissing) unless it is marked omitempty or, for byte arrays,
// omitzero; an optional struct is a pointer. An optional field that is there
// must not be empty. So a value that came in encodes to the
// bytes it came in, unknown keys apart. A field that a later version adds has
// to be optional.
//
// Structs embed no others, and a type does not contain itself.
//
// The size of the input is the caller's to bound; every count and length
// inside it is checked against the bytes that are there before anything is
// allocated. The package does not do streams, floats, or times: a time is an
// integer whose unit the format states.
package enc
