// Package wire is what every protocol of kinloom shares on its way through a
// stream or a carrier: protocol ids, length-prefixed frames, size limits, wire
// error codes, and the cell, the one sealed container of all routes.
//
//	s.SetReadDeadline(…)
//	frame, err := wire.ReadFrame(bufio.NewReader(s), wire.MaxFrame)
//	id, sealed, err := wire.ParseCell(frame)
//
// It does no cryptography but the hash that names a cell, opens no streams and
// sets no deadlines. SPEC.md has the formats, the limits, and what each
// observer learns from them.
package wire
