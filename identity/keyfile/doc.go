// Package keyfile seals the secrets of one node into one small file, and
// turns the root seed into 24 recovery words and back. SPEC.md has the format.
//
// The data key, from which every key for data at rest comes, is wrapped once
// for each way to open the file: a passphrase, a secret kept outside (by the
// operating system), and the backup key of the person's root, which the
// recovery words give. A file with neither passphrase nor outside secret is
// open: only its mode protects it, and Inspect says so.
//
//	b, err := keyfile.Seal(rand.Reader, secrets, keyfile.Lock{Passphrase: p})
//	secrets, err := keyfile.Open(b, keyfile.Lock{Passphrase: p})
//
// Everything is bytes in, bytes out. The package opens no file, asks nobody
// and keeps nothing; which writes must reach the disk in which order is told
// by Update.
package keyfile
