package main

import "golang.org/x/sys/unix"

// harden keeps what is in memory out of core dumps, and other processes of the
// same user from reading it. A system that refuses is used as it is.
func harden() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
