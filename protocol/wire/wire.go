package wire

// Prefix starts every protocol id of kinloom's own.
const Prefix = "/kinloom/"

// DHTPrefix stands before "/kad/1.0.0" in the protocol id of the DHT, which is
// kad-dht's own protocol in a network of its own.
const DHTPrefix = "/kinloom"

// The protocol ids. The number at the end changes only with a breaking change.
const (
	// Contact is the first contact between two persons (protocol/contact).
	Contact = Prefix + "contact/1"
	// Hello tells versions, limits and recognition tags (protocol/contact).
	Hello = Prefix + "hello/1"
	// DM carries cells between two devices on a live stream (protocol/dm).
	DM = Prefix + "dm/1"
	// DHTProxy puts and gets look-up records through another node (protocol/rv).
	DHTProxy = Prefix + "dhtproxy/1"
)

// Sizes in bytes that more than one protocol relies on.
const (
	// MaxFrame bounds the body of a frame on any stream.
	MaxFrame = 32768
	// CellSize is the size of a cell in mailboxes, LAN flood, bundle files and
	// carriers, and the largest anywhere.
	CellSize = 16384
	// MinCell is the smallest cell on a direct stream.
	MinCell = 256
	// CellHeader is what a cell has in front of its sealed part: version and id.
	CellHeader = 1 + 32
	// MaxText bounds the text of one message, counted in bytes of UTF-8. Larger
	// things are blobs.
	MaxText = 12288
)
