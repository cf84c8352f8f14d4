// Command netlab is a network laboratory in one Linux machine: hosts, routers with NAT, firewalls and a wire with
// delay, loss and cuts, in which real kinloom nodes talk to each other.
//
//	netlab test                      all scenarios, one line each: name, figure, bar, ok or FAIL, seconds
//	netlab test cone lossy           some of them
//	netlab test --long               the long forms: 40 tries, cuts of a minute, an hour of kills
//	netlab list                      what there is
//	netlab set 'ada bob loss=30%'    changes the wire of a running test, from another terminal
//	netlab clean                     removes what a killed run has left
//
// It needs root, the commands ip (iproute2) and nft (nftables), and /dev/net/tun. What is missing makes it fail and is
// named; nothing is ever skipped. Exit codes: 0 all passed, 1 something failed, 2 usage.
//
// A host is a network namespace. What stands for the Internet is the wire, a part of this program: each node on it has a
// TUN device that was made in the wire's namespace and then moved, and the wire carries what it reads there to the owner
// of the destination address. A LAN is a bridge, as multicast DNS needs one. NAT is nftables: a cone keeps the source port
// (masquerade), a symmetric one draws it for each destination (masquerade fully-random). Nothing leads outside.
//
// A run is a process with mount, process and network namespaces of its own, so whichever way it ends, killed or not, the
// kernel takes down what it made; only a temporary folder can stay behind. Chance comes from --seed, which is printed.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends the process
	os.Exit(run(ctx, os.Args[1:]))
}
