package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
		own, err := os.UserHomeDir()
		if (err != nil || !filepath.IsAbs(own)) && (a.env("XDG_DATA_HOME") == "" || a.env("XDG_STATE_HOME") == "") {
			return places{}, usage("Name one with --home DIR or KINLOOM_HOME.", "your home directory is not known (HOME), so neither is the folder of the node")
		}
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

// offered matches a command that a text of the node offers.
var offered = regexp.MustCompile(`(: |, or )kinloom ([a-z])`)

// commands has the commands that a text offers name the home that this command was given: the node does not know how it
// was found.
func (a *app) commands(text string) string {
	if a.home == "" {
		return text
	}
	return offered.ReplaceAllStringFunc(text, func(found string) string {
		before, after, _ := strings.Cut(found, "kinloom ")
		return before + a.command(after)
	})
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
