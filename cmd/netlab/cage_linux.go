package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// folderPattern is the name of a run's folder, below the folder for temporary files.
const folderPattern = "netlab-*"

// errFailed is the end of a run with failures, which were printed.
var errFailed = errors.New("a scenario failed")

// kinloomPackage is what is built where no program is given.
const kinloomPackage = "github.com/kinloom/kinloom/cmd/kinloom"

// testCommand runs itself once more as the first process of its own namespaces. All processes and networks of the run
// end with that one, and that one ends with this.
func testCommand(ctx context.Context, args []string) (err error) {
	var o testOptions
	if err := o.parse(args); err != nil {
		return err
	}
	if err := checkMachine(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	folder, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() {
		if o.keep {
			fmt.Fprintln(os.Stderr, "kept:", folder)
			return
		}
		err = errors.Join(err, os.RemoveAll(folder))
	}()
	if err := os.WriteFile(filepath.Join(folder, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if o.kinloom, err = program(ctx, folder, o.kinloom); err != nil {
		return err
	}
	if o.seed == 0 {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		o.seed = uint64(binary.BigEndian.Uint32(b[:])) + 1
	}
	fmt.Fprintf(os.Stderr, "netlab: seed %d\n", o.seed)
	return inside(ctx, self, append([]string{"inside", folder}, o.args()...))
}

// inside runs this program in new namespaces and waits for its end.
func inside(ctx context.Context, self string, args []string) error {
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces (is this container allowed to, with CAP_SYS_ADMIN?): %w", err)
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 && ctx.Err() == nil {
		return errFailed
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// checkMachine names all that is missing.
func checkMachine() error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("it needs root, for network namespaces"))
	}
	for _, need := range []struct{ command, from string }{{"ip", "iproute2"}, {"nft", "nftables"}} {
		if _, err := exec.LookPath(need.command); err != nil {
			missing = append(missing, fmt.Errorf("the command %s is missing: install %s", need.command, need.from))
		}
	}
	if f, err := os.OpenFile(tunDevice, os.O_RDWR, 0); err != nil {
		missing = append(missing, fmt.Errorf("the wire needs TUN devices: %w", err))
	} else if err := f.Close(); err != nil {
		missing = append(missing, err)
	}
	return errors.Join(missing...)
}

// program gives the path of the kinloom to test, which it builds if none is given.
func program(ctx context.Context, folder, given string) (string, error) {
	if given != "" {
		path, err := filepath.Abs(given)
		if err == nil {
			_, err = exec.LookPath(path)
		}
		if err != nil {
			return "", fmt.Errorf("the program to test: %w", err)
		}
		return path, nil
	}
	path := filepath.Join(folder, "kinloom")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, kinloomPackage).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kinloom: %w\n%s", err, out)
	}
	return path, nil
}

// insideCommand is the first process of the namespaces.
func insideCommand(ctx context.Context, args []string) error {
	if len(args) == 0 || os.Getpid() != 1 {
		return fmt.Errorf("inside is how test calls itself: %w", errUsage)
	}
	var o testOptions
	if err := o.parse(args[1:]); err != nil {
		return err
	}
	if err := furnish(); err != nil {
		return err
	}
	return runScenarios(ctx, args[0], o)
}

// netnsFolder is where ip keeps the names of namespaces.
const netnsFolder = "/var/run/netns"

// furnish makes the mounts that the namespaces of this run need: names and processes of its own.
func furnish() error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := os.MkdirAll(netnsFolder, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("netlab", netnsFolder, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", netnsFolder, err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// cleanCommand removes the folders of runs whose process has ended. Nothing else can be left.
func cleanCommand(_ context.Context, args []string) error {
	if err := parseFlags(flags("clean"), args); err != nil {
		return err
	}
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern))
	for _, folder := range folders {
		if runs(folder) {
			fmt.Println("runs:", folder)
			continue
		}
		fmt.Println("removed:", folder)
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

// runs reports whether the process that made a folder still is one of this program.
func runs(folder string) bool {
	pid, err := os.ReadFile(filepath.Join(folder, "pid"))
	if err != nil {
		return false
	}
	name, err := os.ReadFile(filepath.Join("/proc", string(pid), "comm"))
	return err == nil && strings.HasPrefix(string(name), "netlab")
}
