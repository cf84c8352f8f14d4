// Package rv is how somebody who was told a secret finds a device again, by a
// table that anybody may serve and nobody can read.
//
// Each device has one record for each day (UTC). Where it lies is a point that
// only those can compute who have the device's rendezvous key and its contact
// secret; it is encrypted for them, padded to one size, and signed by a key
// that belongs to that point, so that everybody can check it and nobody can
// tell whose it is, or that two days' records are of one device. SPEC.md is the
// authority; section numbers in comments are its.
//
//	record, err := rv.Seal(key, secret, rv.PeriodAt(now), seq, hint, random)
//
//	for _, p := range rv.Periods(rv.Clock{Now: now}) {
//		point, err := rv.PointOf(public, secret, p)
//		record := … // by Get, from a node that looks it up
//		hint, stamp, err := rv.Open(public, secret, p, record)
//	}
//
// It holds the record, the Validator of a DHT, the schedule of a publisher (a
// Machine), the memory of a reader (Seen), and /kinloom/dhtproxy/1, by which
// records are put and fetched through another node. It keeps nothing, dials
// nobody, and takes no hint for the truth.
package rv
