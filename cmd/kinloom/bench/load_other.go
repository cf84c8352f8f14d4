//go:build !linux

package bench

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// busyTime is not known without the C library.
func busyTime() (time.Duration, bool) { return 0, false }

func loadAverage() string { return "" }

// errNoMemory: this system does not tell the memory of a process.
var errNoMemory = errors.New("this system does not tell the memory of a process")

// resident is the memory of a process that lies in the machine's, in bytes.
func resident(pid int) (int64, error) {
	if runtime.GOOS == "windows" {
		return 0, errNoMemory
	}
	b, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0, fmt.Errorf("ask ps: %w", err)
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return kb << 10, err
}
