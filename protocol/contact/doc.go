// Package contact is how two persons who have never met become contacts.
//
// It holds the invite that one hands to the other, the exchange of four
// messages that proves both sides to each other and yields three check words
// (/kinloom/contact/1), and hello, by which devices that know each other find
// that out under changing transport keys (/kinloom/hello/1). SPEC.md is the
// authority; section numbers in comments are its.
//
//	i, _ := contact.NewInitiator(self, invite, random)
//	result, err := contact.Exchange(ctx, stream, i, nil)
//	fmt.Println(result.Words)
//
// It stores nothing, dials nobody and never looks into a bundle: those are
// passed through as signed bytes for the caller to verify.
package contact
