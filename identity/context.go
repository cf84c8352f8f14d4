package identity

// Context separates the purposes of signatures: what is signed is the context,
// one zero byte, and the message as received. A signature made in one context
// verifies in no other. No context contains a zero byte.
type Context string

// All signing contexts of kinloom. A new kind of signature gets a new one.
const (
	ContextLog          Context = "kinloom/idlog/1"         // log entry, by root or log key
	ContextDeviceRecord Context = "kinloom/device-record/1" // DeviceRecord, by its device key
	ContextDeviceProof  Context = "kinloom/device-proof/1"  // a device's consent to be added to a log
	ContextBundle       Context = "kinloom/bundle/1"        // session bundle, by a device key
	ContextContact      Context = "kinloom/contact/1"       // transcript of a contact exchange, by a device key
	ContextReach        Context = "kinloom/reach/1"         // a device's id, by the transport key that it uses
	ContextServerList   Context = "kinloom/server-list/1"   // list of servers, by a list key
)

// Prefixes of hashes, so that an id of one kind is never one of another.
const (
	deviceIDPrefix   = "kinloom/device-id/1"
	blindNoncePrefix = "kinloom/blind-nonce/1"
)

// Suite1 is the only suite: Olm within X-Wing/HKDF-SHA256/AES-256-GCM for
// sessions, Ed25519 for signatures. Any other number is ErrSuite.
const Suite1 uint16 = 1

// input is what a signature in this context is made over.
func (c Context) input(msg []byte) []byte {
	b := make([]byte, 0, len(c)+1+len(msg))
	b = append(b, c...)
	b = append(b, 0)
	return append(b, msg...)
}
