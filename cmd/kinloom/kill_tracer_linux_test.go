package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// trace says what is done to a traced process: from its n-th call of these on, count calls fail with errno, or the
// process is killed right before the n-th. strace injects the same, but counts each thread for itself, so that the
// n-th call of a Go program cannot be named.
type trace struct {
	Command []string
	Calls   []string
	N       int           // from 1; 0: nothing is done
	Count   int           // how many calls fail
	Errno   syscall.Errno // 0: killed
	Report  string        // file for the traced
}

// traced is what a tracer saw.
type traced struct {
	Total  int            // calls, up to the end or the kill
	ByCall map[string]int // the same by name
	Struck string         // name of the first call that was refused or not reached
	Error  string
}

// traceNumbers are the system calls with which a node changes its disk.
var traceNumbers = map[string]uint64{
	"fdatasync": syscall.SYS_FDATASYNC, "fsync": syscall.SYS_FSYNC, "pwrite64": syscall.SYS_PWRITE64, "write": syscall.SYS_WRITE,
	"ftruncate": syscall.SYS_FTRUNCATE, "unlinkat": syscall.SYS_UNLINKAT, "renameat": syscall.SYS_RENAMEAT,
}

// traceEnv hands a trace to the process that carries it out.
const traceEnv = "KINLOOM_TEST_TRACE"

// TestTracerProcess is not a test of its own: started as another process, it runs and traces a node.
func TestTracerProcess(t *testing.T) {
	text := os.Getenv(traceEnv)
	if text == "" {
		return
	}
	runtime.LockOSThread() // a process is traced by one thread
	var order trace
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		t.Fatal(err)
	}
	saw, err := order.run()
	if err != nil {
		saw.Error = err.Error()
	}
	b, err := json.Marshal(saw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(order.Report, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run starts the command and traces all of its threads until it has ended.
func (o trace) run() (saw traced, err error) {
	saw.ByCall = map[string]int{}
	names := map[uint64]string{}
	for _, call := range o.Calls {
		number, ok := traceNumbers[call]
		if !ok {
			return saw, fmt.Errorf("no number for the call %s", call)
		}
		names[number] = call
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, traceEnv+"=") })
	pid, err := syscall.ForkExec(o.Command[0], o.Command, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return saw, err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return saw, err
	}
	const sysGood, exitKill = 1, 1 << 20
	if err := syscall.PtraceSetOptions(pid, sysGood|exitKill|syscall.PTRACE_O_TRACECLONE); err != nil {
		return saw, err
	}
	known := map[int]bool{pid: true}
	refused := map[int]bool{} // threads inside a call that is refused
	if err := syscall.PtraceSyscall(pid, 0); err != nil {
		return saw, err
	}
	for {
		tid, err := syscall.Wait4(-1, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return saw, err
		case status.Exited() || status.Signaled():
			if tid == pid {
				return saw, nil
			}
			continue
		case !status.Stopped():
			continue
		}
		deliver := 0
		switch sig := status.StopSignal(); {
		case sig == syscall.SIGTRAP|0x80:
			enters, number, err := callOf(tid)
			if err != nil {
				break // it has just been killed
			}
			name, counted := names[number]
			switch {
			case !enters && refused[tid]:
				delete(refused, tid)
				answerCall(tid, o.Errno)
			case enters && counted && o.strikes(&saw, name):
				if o.Errno == 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it cannot be gone: it is stopped
					continue
				}
				refused[tid] = true
				refuseCall(tid)
			}
		case sig == syscall.SIGTRAP: // a thread was made, or the program began
		case sig == syscall.SIGSTOP && !known[tid]: // a new thread
			known[tid] = true
		default:
			deliver = int(sig)
		}
		_ = syscall.PtraceSyscall(tid, deliver) // a thread that was killed meanwhile is gone
	}
}

// strikes counts a call and says whether it is one of those that fail.
func (o trace) strikes(saw *traced, name string) bool {
	saw.Total++
	saw.ByCall[name]++
	if o.N == 0 || saw.Total < o.N || o.Errno != 0 && saw.Total >= o.N+o.Count {
		return false
	}
	if saw.Struck == "" {
		saw.Struck = name
	}
	return true
}

// callOf asks the kernel which call a stopped thread enters or leaves. The number is known on entry only.
func callOf(tid int) (enters bool, number uint64, err error) {
	const getSyscallInfo, entry, size = 0x420e, 1, 88
	var info [size]byte
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(tid), size, uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return false, 0, errno
	}
	return info[0] == entry, *(*uint64)(unsafe.Pointer(&info[24])), nil
}
