// Package serverlist is the list of servers by which a node gets into the network, as a
// community hands it around: a text that people can read and edit, with a date, an end,
// and the signatures of those who stand for it.
//
//	list, err := serverlist.Verify(time.Now(), believed, need, file)
//	...
//	for _, s := range list.Servers {
//		dial(s.Address)
//	}
//
// Whom to believe, and how many of them must agree, is the reader's to say: there is no
// signer that everybody believes, and no place that lists come from. SPEC.md has the
// format. The package opens no file and dials nothing, and knows of an address only that
// it looks like one.
package serverlist
