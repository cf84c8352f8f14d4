package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestChildProcess is not a test of its own: started by the tests below as
// another process, it writes groups until it is killed.
func TestChildProcess(t *testing.T) {
	dir := os.Getenv("KINLOOM_STORE_CHILD")
	if dir == "" {
		return
	}
	first, err := strconv.Atoi(os.Getenv("KINLOOM_STORE_FIRST"))
	check(t, err)
	lock, err := AcquireLock(dir)
	check(t, err)
	defer lock.Release()
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	m := newModel(uint64(first))
	m.next = first
	fmt.Println("\nready")
	for {
		// What is tried is told first, so that a group that was durable but not
		// acknowledged can be told from a broken one.
		g := m.next
		if err := m.groupTold(t.Context(), s, func(rows int) { fmt.Println("\ntry", g, rows) }); err != nil {
			t.Fatal(err)
		}
		fmt.Println("\nack", g)
		if g%7 == 0 {
			check(t, s.account.checkpoint(t.Context()))
		}
	}
}

// child is a process that writes to a home.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startChild(t *testing.T, dir string, first int) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildProcess$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "KINLOOM_STORE_CHILD="+dir, fmt.Sprint("KINLOOM_STORE_FIRST=", first))
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	c := &child{cmd, bufio.NewScanner(out)}
	for c.lines.Scan() {
		if c.lines.Text() == "ready" {
			return c
		}
	}
	t.Fatalf("the child did not start: %v", cmd.Wait())
	return nil
}

// listen feeds the model until the child has acknowledged n groups, kills it,
// and takes in what it still had said.
func (c *child) listen(t *testing.T, m *model, n int, delay time.Duration) {
	t.Helper()
	acked := 0
	for c.lines.Scan() {
		f := strings.Fields(c.lines.Text())
		if len(f) < 2 {
			continue
		}
		g, err := strconv.Atoi(f[1])
		check(t, err)
		switch f[0] {
		case "try":
			m.sizes[g], err = strconv.Atoi(f[2])
			check(t, err)
			m.tried[g] = m.sizes[g]
			m.next = max(m.next, g+1)
		case "ack":
			delete(m.tried, g)
			m.acked = append(m.acked, g)
			if acked++; acked == n {
				time.AfterFunc(delay, func() { _ = c.cmd.Process.Kill() })
			}
		}
	}
	_ = c.cmd.Wait() // it was killed
	if acked < n {
		t.Fatalf("the child died after %d of %d groups", acked, n)
	}
}

// TestKill kills the writing process at random moments: every acknowledged row
// is there and right, no half group, the file is whole.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	m := newModel(1)
	r := rand.New(rand.NewPCG(3, 3))
	for round := range 5 * nightly {
		startChild(t, dir, m.next).listen(t, m, 1+r.IntN(40), time.Duration(r.IntN(3000))*time.Microsecond)
		begin := time.Now()
		s, err := openAccount(t, Options{Dir: dir})
		check(t, err)
		opened := time.Since(begin)
		if err := errors.Join(m.verify(t.Context(), s, false), wholeFile(t.Context(), s), m.settle(t.Context(), s)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		check(t, s.account.close())
		t.Logf("round %d: %d groups, opened in %v", round, len(m.acked), opened)
	}
}

// TestWrongKeyLeavesTheLog: after a kill the log holds acknowledged rows, which
// SQLite would delete under a wrong key. (H146)
func TestWrongKeyLeavesTheLog(t *testing.T) {
	dir := t.TempDir()
	m := newModel(2)
	startChild(t, dir, 0).listen(t, m, 6, 0)
	hash := func() [32]byte {
		b, err := os.ReadFile(filepath.Join(dir, AccountFile+"-wal"))
		check(t, err)
		return sha256.Sum256(b)
	}
	before := hash()
	for range 3 {
		_, err := Open(t.Context(), Options{Dir: dir, migrations: testSchema, Key: func(string) [32]byte { return [32]byte{1, 2, 3} }})
		if !errors.Is(err, ErrForeign) {
			t.Errorf("wrong key: %v, want %v", err, ErrForeign)
		}
		if hash() != before {
			t.Fatal("the log was touched")
		}
	}
	// The right key, but the key file says another database.
	_, err := Open(t.Context(), Options{Dir: dir, migrations: testSchema, Key: testKey, IDs: map[string][16]byte{AccountFile: {1}}})
	if !errors.Is(err, ErrForeign) || hash() != before {
		t.Errorf("another id: %v, want %v and the log untouched", err, ErrForeign)
	}
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	check(t, m.verify(t.Context(), s, false))
}

// TestSecondProcess: the home is refused within a second, by name, and free
// again as soon as its process is dead. (H103)
func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir, 0)
	begin := time.Now()
	_, err := AcquireLock(dir)
	inUse, ok := errors.AsType[*InUseError](err)
	if !ok || inUse.PID != c.cmd.Process.Pid || !errors.Is(err, ErrInUse) {
		t.Errorf("lock of a home in use: %v, want process %d", err, c.cmd.Process.Pid)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("refused after %v", d)
	}
	c.listen(t, newModel(0), 1, 0)
	lock, err := AcquireLock(dir)
	check(t, err)
	if b, err := os.ReadFile(filepath.Join(dir, "lock")); err != nil || !bytes.Equal(b, fmt.Appendln(nil, os.Getpid())) {
		t.Errorf("lock file: %q, %v", b, err)
	}
	check(t, lock.Release())
	check(t, lock.Release())
}
