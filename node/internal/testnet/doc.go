// Package testnet is a network for whole nodes in one test: in virtual time, with
// loss, delay, duplicates, cuts and restarts, from a seed. It is imported by
// tests only, inside testing/synctest:
//
//	synctest.Test(t, func(t *testing.T) {
//		net := testnet.New(t, 1, testnet.Options{Latency: 50 * time.Millisecond, Loss: 0.05})
//		ada, bob := net.Host(0), net.Host(1)
//		cfg := p2p.Config{Key: key}
//		ada.Configure(&cfg) // listen address, transports, neighbours
//		... open a node with cfg, talk to bob ...
//		net.Cut([]int{0}, []int{1})
//		time.Sleep(time.Hour) // virtual
//		net.Heal()
//	})
//
// Packets run over marcopolo/simnet (bandwidth, queues, latency) under real QUIC
// and TLS. What simnet does not have is done here, where a host hands over a
// packet: loss, duplicates, cuts, firewalls, byte counters and taps. Loss and delay are drawn
// from a generator per direction, seeded by New; QUIC draws its own randomness, so
// a run is repeatable in what happens to the network and not to the byte. A host
// that opens its options a second time is the same machine after a restart.
//
// Each host has a public address in a /24 of its own, and a private one on one
// LAN for the second host of p2p, where hosts of one neighbourhood find each other
// instead of by mDNS.
//
// synctest makes a test fail if a goroutine is left behind: stop every node before
// the test function returns. New closes the network itself.
package testnet
