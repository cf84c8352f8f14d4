package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/adrg/xdg"
)

// places says where the things of a node lie.
type places struct {
	home   string   // the node's folder
	logs   string   // folder of the log files
	socket string   // usual path of the API socket
	short  []string // folders for a socket whose usual path is too long
	own    bool     // everything is under one folder that the user named
}

// places finds them: --home, then KINLOOM_HOME, then the system's usual folders.
func (a *app) places() (places, error) {
	home := a.home
	if home == "" {
		home = a.env("KINLOOM_HOME")
	}
	short := []string{xdg.RuntimeDir, os.TempDir(), "/tmp"}
	if home == "" {
		return places{
			home: filepath.Join(xdg.DataHome, "kinloom"), logs: filepath.Join(xdg.StateHome, "kinloom"),
			socket: filepath.Join(xdg.RuntimeDir, "kinloom", "api.sock"), short: short,
		}, nil
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return places{}, fmt.Errorf("find the home: %w", err)
	}
	return places{home: home, logs: filepath.Join(home, "logs"), socket: filepath.Join(home, "api.sock"), short: short, own: true}, nil
}

// command gives a command line of this program for the same home, to be shown as a next step.
func (a *app) command(rest string) string {
	if a.home == "" {
		return "kinloom " + rest
	}
	return "kinloom --home " + quote(a.home) + " " + rest
}

// quote makes one word of the shell, whatever stands in it: names come from others.
func quote(s string) string {
	if s == "" {
		return "''"
	}
	for _, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '/' || r == '.' || r == '-' || r == '_'
		if !plain {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}
