//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readme gives the README and its code blocks of one language.
func readme(t *testing.T, language string) (string, []string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		blocks = append(blocks, found[1])
	}
	return string(b), blocks
}

// TestReadmeSession runs the README's conversation word for word, over all interfaces, on the LAN only, and on loopback
// only: two nodes in two terminals, the commands in a third, in less than a minute.
func TestReadmeSession(t *testing.T) {
	_, blocks := readme(t, "sh")
	if len(blocks) != 4 {
		t.Fatalf("README has %d shell blocks, want set-up and three terminals", len(blocks))
	}
	for name, flags := range map[string]string{
		"as written": "", "lan only": " --lan-only", "loopback": " --listen /ip4/127.0.0.1/udp/0/quic-v1",
	} {
		if testing.Short() && flags == "" { // beside the race detector: the same with less of the network
			continue
		}
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			folder := t.TempDir()
			var ends []func() string
			for _, block := range blocks[1:3] {
				ends = append(ends, terminalOf(t, folder, strings.TrimSpace(block)+flags))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			third := exec.CommandContext(ctx, "bash", "-e", "-c", blocks[3])
			third.Dir = folder
			out, err := third.CombinedOutput()
			for _, end := range ends {
				if text := end(); strings.Contains(text, "panic") || !strings.Contains(text, "kinloom:i#") {
					t.Errorf("a node printed:\n%s", text)
				}
			}
			if err != nil {
				t.Fatalf("terminal 3: %v\n%s", err, out)
			}
			for _, want := range []string{"Check words: ", "Ada added", "delivered", "Bob: Hi Ada!", "you: Hi Bob!", "Stopped."} {
				if !strings.Contains(string(out), want) {
					t.Errorf("terminal 3 shows no %q:\n%s", want, out)
				}
			}
			t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
		})
	}
}

// terminalOf runs a command that stays, and returns once it has shown its invite. The function that it gives waits for
// the command's end and returns what it printed.
func terminalOf(t *testing.T, folder, line string) func() string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", "-c", line)
	command.Dir = folder
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = write, write
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	lines := bufio.NewReader(io.TeeReader(read, &text))
	for {
		shown, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%s ended before its invite:\n%s", line, text.String())
		}
		if strings.Contains(shown, "kinloom:i#") {
			break
		}
	}
	return func() string {
		_, _ = io.Copy(io.Discard, lines) // ends with the command
		if err := command.Wait(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		_ = read.Close()
		return text.String()
	}
}

// TestReadmeExample holds the README's program to the one that the compiler sees.
func TestReadmeExample(t *testing.T) {
	_, blocks := readme(t, "go")
	b, err := os.ReadFile("../../node/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var plain strings.Builder
	for line := range strings.Lines(string(b)) {
		plain.WriteString(strings.TrimPrefix(line, "\t"))
	}
	if len(blocks) != 1 || !strings.Contains(plain.String(), blocks[0]) {
		t.Errorf("the README's example is not that of node/example_test.go")
	}
}

// TestReadmeSetUp keeps set-up at two commands.
func TestReadmeSetUp(t *testing.T) {
	text, blocks := readme(t, "sh")
	if blocks[0] != "go run ./cmd/kinloom up\ngo test ./...\n" {
		t.Errorf("set-up is:\n%s", blocks[0])
	}
	for _, word := range []string{"takes minutes", "PATH", "audited", "not post-quantum", "no anonymity", "`status`, `stop`, `invite`, `peers`, `ping` and `events --follow`", "LAN only so far"} {
		if !strings.Contains(text, word) {
			t.Errorf("README does not say %q", word)
		}
	}
}
