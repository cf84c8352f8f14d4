package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/charmbracelet/x/term"
	"rsc.io/qr"
)

const (
	quietZone = 2  // modules of white around a QR code
	qrRows    = 24 // a terminal below this does not get one
)

// drawsQR reports whether stdout is a terminal that can show a QR code of an invite.
func (a *app) drawsQR() bool {
	if a.json || !term.IsTerminal(a.term.out.Fd()) || !a.utf8() {
		return false
	}
	_, rows, err := term.GetSize(a.term.out.Fd())
	return err == nil && rows >= qrRows
}

// utf8 reports whether the terminal is said to take UTF-8.
func (a *app) utf8() bool {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(a.env(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}

// drawQR draws text in half blocks, two modules a character, dark on light whatever the terminal's colours: black
// modules are blanks in reverse video's absence, so the light ones are drawn.
func drawQR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("draw the QR code: %w", err)
	}
	var b strings.Builder
	light := func(x, y int) bool { return !code.Black(x, y) }
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		for x := -quietZone; x < code.Size+quietZone; x++ {
			below := light(x, y+1) && y+1 < code.Size+quietZone
			switch {
			case light(x, y) && below:
				b.WriteRune('█')
			case light(x, y):
				b.WriteRune('▀')
			case below:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// isPipe reports whether f is something to read a message from.
func isPipe(f *os.File) bool { return !term.IsTerminal(f.Fd()) }
