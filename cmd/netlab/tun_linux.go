package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"
)

const tunDevice = "/dev/net/tun"

// Of linux/if_tun.h; the standard library has only some of them.
const (
	tunSetIff = 0x400454ca
	iffTun    = 0x0001
	iffNoPI   = 0x1000
)

// openTUN makes a TUN device in the network namespace of this process. It gives and takes one IP packet a call, wherever
// the device is moved, and the device goes when it is closed.
func openTUN(name string) (io.ReadWriteCloser, error) {
	// Non-blocking from the start, or the runtime would not wait for it with epoll, and Close would not end a Read.
	fd, err := syscall.Open(tunDevice, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:syscall.IFNAMSIZ-1], name)
	request.flags = iffTun | iffNoPI
	if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&request))); no != 0 {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, no)
	}
	return os.NewFile(uintptr(fd), name), nil
}
