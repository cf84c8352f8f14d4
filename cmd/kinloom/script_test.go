package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kinloom": main, "kinloom-watched": watchedMain, "kinloom-hostile": hostileMain})
}

// TestScripts runs the user's view of the program: one story a file. Scripts have, besides the usual commands:
//
//	exits CODE COMMAND ...   the command ends with that exit code; stdout and stderr can be looked at
//	up NAME [ARG ...]        a node with the home $WORK/NAME runs in the background, ready; its invite is in $INVITE_NAME
//	down NAME                ends it with SIGINT
//	keep NAME REGEXP         the first group of the last stdout's match goes to $NAME
//	[!] holds FOLDER TEXT    a file below the folder, or its name, has the text: as it is, in hex, in base64, or what it is the hex of
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Deadline: time.Now().Add(5 * time.Minute),
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"DATA", "CONFIG", "STATE", "CACHE"} {
				env.Setenv("XDG_"+name+"_HOME", filepath.Join(env.WorkDir, "xdg", strings.ToLower(name)))
			}
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "xdg", "run"))
			env.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
			env.Values[nodes{}] = map[string]*background{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "up": scriptUp, "down": scriptDown, "keep": scriptKeep, "holds": scriptHolds,
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ended, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = ended.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func scriptKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME REGEXP")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("stdout has no match for %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

func scriptHolds(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || len(args[1]) < 8 {
		ts.Fatalf("usage: [!] holds FOLDER TEXT, of 8 bytes at least")
	}
	spelled := []string{args[1], hex.EncodeToString([]byte(args[1])), strings.ToUpper(hex.EncodeToString([]byte(args[1])))}
	for before := range 3 { // in longer base64 texts, wherever it begins
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), args[1]...))
		spelled = append(spelled, text[(before*8+5)/6:(before+len(args[1]))*8/6])
	}
	if raw, err := hex.DecodeString(args[1]); err == nil {
		spelled = append(spelled, string(raw)) // an id
	}
	files, found := 0, ""
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
		var b []byte
		if err == nil && e.Type().IsRegular() {
			files++
			b, err = os.ReadFile(path)
		}
		if slices.ContainsFunc(spelled, func(s string) bool { return strings.Contains(string(b), s) || strings.Contains(e.Name(), s) }) {
			found = path
		}
		return err
	}))
	switch {
	case files == 0:
		ts.Fatalf("no file below %s", args[0])
	case neg && found != "":
		ts.Fatalf("%s has %q", found, args[1])
	case !neg && found == "":
		ts.Fatalf("none of %d files has %q", files, args[1])
	}
}

// nodes is the key of a script's running nodes.
type nodes struct{}

// background is a node that a script started.
type background struct {
	command *exec.Cmd
	drained chan struct{} // closed when its output has ended
}

func running(ts *testscript.TestScript) map[string]*background {
	return ts.Value(nodes{}).(map[string]*background)
}

func scriptUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: up NAME [ARG ...]")
	}
	name := args[0]
	log, err := os.OpenFile(ts.MkAbs(name+".up"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	ts.Check(err)
	command := exec.Command("kinloom", append([]string{"--home", ts.MkAbs(name), "--json", "up"}, args[1:]...)...)
	command.Path, err = exec.LookPath("kinloom")
	ts.Check(err)
	command.Dir, command.Stderr = ts.MkAbs("."), log
	command.Env = append(os.Environ(), "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true", "KINLOOM_PASSPHRASE_FILE="+ts.Getenv("KINLOOM_PASSPHRASE_FILE"))
	out, err := command.StdoutPipe()
	ts.Check(err)
	ts.Check(command.Start())
	b := &background{command: command, drained: make(chan struct{})}
	ts.Defer(func() {
		if running(ts)[name] == b {
			_ = command.Process.Kill() // it may have ended by itself
			<-b.drained
			_ = command.Wait()
		}
	})
	running(ts)[name] = b

	lines := bufio.NewReader(io.TeeReader(out, log))
	var invite struct{ Type, Link string }
	for invite.Type != "invite" {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			close(b.drained)
			ts.Fatalf("node %s ended before its invite: %s", name, ts.ReadFile(name+".up"))
		}
		ts.Check(json.Unmarshal(line, &invite))
	}
	ts.Setenv("INVITE_"+name, invite.Link)
	go func() {
		defer close(b.drained)
		_, _ = io.Copy(io.Discard, lines) // ends with the process
	}()
}

func scriptDown(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: down NAME")
	}
	b, ok := running(ts)[args[0]]
	if !ok {
		ts.Fatalf("node %s does not run", args[0])
	}
	delete(running(ts), args[0])
	ts.Check(b.command.Process.Signal(os.Interrupt))
	<-b.drained
	if err := b.command.Wait(); err != nil {
		ts.Fatalf("node %s: %v\n%s", args[0], err, ts.ReadFile(args[0]+".up"))
	}
}

// walk visits every command below root that people see.
func walk(root *cobra.Command, visit func(path, example string)) {
	for _, cmd := range root.Commands() {
		if cmd.Hidden {
			continue
		}
		visit(cmd.CommandPath(), cmd.Example)
		walk(cmd, visit)
	}
}

// TestExamples holds every command to an example in its help, and every example to commands and flags that exist.
func TestExamples(t *testing.T) {
	root := (&app{term: terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}, env: os.Getenv}).root()
	count := 0
	walk(root, func(path, example string) {
		count++
		if example == "" {
			t.Errorf("%s has no example in its help", path)
		}
		for line := range strings.Lines(example) {
			_, line, ok := strings.Cut(line, "kinloom ")
			if !ok {
				t.Errorf("%s: example %q does not call kinloom", path, line)
				continue
			}
			words := strings.Fields(line)
			for len(words) > 1 && words[0] == "--home" {
				words = words[2:]
			}
			cmd, rest, err := root.Find(words)
			if err != nil || cmd == root {
				t.Errorf("%s: example %q: no such command (%v)", path, line, err)
				continue
			}
			for _, word := range rest {
				if name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "="); strings.HasPrefix(word, "--") && cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: example %q: no such flag --%s", path, line, name)
				}
			}
		}
	})
	if count < 30 {
		t.Errorf("looked at %d commands, want at least 30", count)
	}
}

// TestLaterCommands keeps out of help what a later change brings.
func TestLaterCommands(t *testing.T) {
	root := (&app{term: terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}, env: os.Getenv}).root()
	var all []string
	walk(root, func(path, _ string) { all = append(all, path) })
	for _, later := range []string{
		"id backup", "id restore", "id rotate", "device", "contact merge", "contact split", "group", "room", "file",
		"exposure", "link", "bridge", "import", "mailbox", "bundle", "chat", "web", "api",
	} {
		for _, path := range all {
			if strings.HasPrefix(path+" ", "kinloom "+later+" ") {
				t.Errorf("%s exists", path)
			}
		}
	}
	for _, flag := range []struct{ command, flag string }{{"up", "web"}, {"send", "file"}, {"send", "via"}} {
		cmd, _, err := root.Find([]string{flag.command})
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Flag(flag.flag) != nil {
			t.Errorf("%s --%s exists", flag.command, flag.flag)
		}
	}
}

// TestMainIsShort keeps the program's entry readable.
func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 100 {
		t.Errorf("main.go has %d lines, at most 100", n)
	}
}
