package client

import (
	"os"
	"path/filepath"
	"strings"
)

// socketNote is the file in a home that says where its socket lies, when that is not the usual place.
const socketNote = "api.path"

// SocketPath gives the path of the socket of the node with this home: the one that the home has on record, else usual.
func SocketPath(home, usual string) string {
	b, err := os.ReadFile(filepath.Join(home, socketNote))
	if err != nil {
		return usual
	}
	if path := strings.TrimSpace(string(b)); filepath.IsAbs(path) {
		return path
	}
	return usual
}

// SocketNote gives the path of that record, for the node that writes it.
func SocketNote(home string) string { return filepath.Join(home, socketNote) }
