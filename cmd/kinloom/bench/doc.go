// Package bench measures a node on the machine that it runs on, next to the
// parts that it is made of, so that its figures hold on fast machines and slow
// ones.
//
// What a message costs is compared with a raw request over the same libp2p
// transport and with raw commits of the same event row and of its index row into
// the same store, measured in turns with it: a run of each, five times over. A figure is the median of
// its runs, and its verdict is withheld while other programs use the machine.
//
//	err := bench.Run(ctx, bench.Options{Cache: dir, Program: self}, func(f bench.Figure) error {
//		return json.NewEncoder(os.Stdout).Encode(f)
//	})
//
// Both ends of a conversation are whole nodes with homes on disk, encrypted and
// indexed; texts are those of node/corpus. One figure is not here, as it needs
// virtual time: from the dial to the first acknowledged message of a new contact
// over a round trip of 100 ms, which node's TestFirstMessage holds.
package bench
