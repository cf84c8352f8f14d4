// Package identity says who says it: persons and their devices, the keys that
// sign for them, and the hash-chained log in which a person says which devices
// are theirs. SPEC.md has the formats and the rules.
//
//	root := identity.NewRootKey(seed)
//	logKey := identity.NewLogKey(logSeed)
//	l, err := identity.NewLog(root, logKey.Public(), now)
//	record, err := identity.SignDeviceRecord(device, identity.DeviceRecord{ … })
//	l, err = l.AddDevice(logKey, record, device, now)
//	l.Live(now) // the devices that may be sent to
//
// Everything is a value or a pure function: there is no network, no disk, no
// clock and no source of randomness in here. Seeds and times are arguments.
// The package knows no names, addresses or accounts of anybody; these are
// never part of a log, as whoever may read a log would learn them.
package identity
