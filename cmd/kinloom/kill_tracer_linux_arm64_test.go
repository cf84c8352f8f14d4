package main

import (
	"syscall"
	"unsafe"
)

// refuseCall has the kernel skip the call that a stopped thread enters: its number has a register set of its own.
func refuseCall(tid int) {
	const setRegSet, systemCall = 0x4205, 0x404
	skip := int32(-1)
	part := syscall.Iovec{Base: (*byte)(unsafe.Pointer(&skip)), Len: 4}
	_, _, _ = syscall.Syscall6(syscall.SYS_PTRACE, setRegSet, uintptr(tid), systemCall, uintptr(unsafe.Pointer(&part)), 0, 0)
}

// answerCall gives a thread that leaves a refused call its error.
func answerCall(tid int, errno syscall.Errno) {
	var r syscall.PtraceRegs
	if syscall.PtraceGetRegs(tid, &r) == nil {
		r.Regs[0] = -uint64(errno)
		_ = syscall.PtraceSetRegs(tid, &r) // fails for a thread that was killed meanwhile
	}
}
