package wire

import "strconv"

// Code says in a refusal why it was refused. It stands on the wire as a CBOR
// integer. A reader treats a code that it does not know as a refusal for good.
type Code uint16

// The codes. Numbers are never used again for something else.
const (
	// CodeMalformed: the bytes are not what the protocol says.
	CodeMalformed Code = 1
	// CodeVersion: a version or suite that this node does not speak.
	CodeVersion Code = 2
	// CodeTooLarge: above a size limit.
	CodeTooLarge Code = 3
	// CodeOrder: a sound message at the wrong moment.
	CodeOrder Code = 4
	// CodeBusy: a limit on rate or space is reached; try again later.
	CodeBusy Code = 5
	// CodeRefused: this node does not want it, and says no more. A blocked
	// contact is told the same as a stranger.
	CodeRefused Code = 6
	// CodeExpired: an invite, bundle or record is past its time.
	CodeExpired Code = 7
	// CodeUsed: a single-use token or key was used before.
	CodeUsed Code = 8
	// CodeProof: a signature, commitment or hash does not fit.
	CodeProof Code = 9
	// CodeUnopened: no session of this device opens the cell; send it anew in a
	// new session.
	CodeUnopened Code = 10
	// CodeStorage: it could not be stored; try again later.
	CodeStorage Code = 11
	// CodeClosing: the node is stopping.
	CodeClosing Code = 12
	// CodeClone: another cell came before under the same numbers; the sender
	// was copied, or set back to an older copy. Send it anew in a new session.
	CodeClone Code = 13
)

var codeNames = map[Code]string{
	CodeMalformed: "malformed",
	CodeVersion:   "version",
	CodeTooLarge:  "too-large",
	CodeOrder:     "order",
	CodeBusy:      "busy",
	CodeRefused:   "refused",
	CodeExpired:   "expired",
	CodeUsed:      "used",
	CodeProof:     "proof",
	CodeUnopened:  "unopened",
	CodeStorage:   "storage",
	CodeClosing:   "closing",
	CodeClone:     "clone",
}

// String returns the name of SPEC 5, or "code N" for one it does not list.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return "code " + strconv.Itoa(int(c))
}
