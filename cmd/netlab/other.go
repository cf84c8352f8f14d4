//go:build !linux

package main

import (
	"context"
	"fmt"
	"os"
)

// run says that there are no network namespaces here.
func run(context.Context, []string) int {
	fmt.Fprintln(os.Stderr, "netlab: it is made of Linux network namespaces; run it on Linux, as root")
	return 1
}
