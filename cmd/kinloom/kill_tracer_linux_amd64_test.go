package main

import "syscall"

// refuseCall has the kernel skip the call that a stopped thread enters.
func refuseCall(tid int) {
	var r syscall.PtraceRegs
	if syscall.PtraceGetRegs(tid, &r) == nil {
		r.Orig_rax = ^uint64(0)
		_ = syscall.PtraceSetRegs(tid, &r) // fails for a thread that was killed meanwhile
	}
}

// answerCall gives a thread that leaves a refused call its error.
func answerCall(tid int, errno syscall.Errno) {
	var r syscall.PtraceRegs
	if syscall.PtraceGetRegs(tid, &r) == nil {
		r.Rax = -uint64(errno)
		_ = syscall.PtraceSetRegs(tid, &r) // likewise
	}
}
