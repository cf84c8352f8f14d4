package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

const (
	logSize = 10 << 20 // bytes of one log file
	logKept = 3        // older ones
)

// logFile is a log that is put aside at logSize. It is opened by the first line, so a home that cannot be used is not
// touched. Its lock guards all fields.
type logFile struct {
	mu   sync.Mutex
	path string
	file *os.File // nil: not open
	size int64
}

func (l *logFile) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("make the log folder: %w", err)
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write adds one line, in a new file if the old one is full.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	if l.size > 0 && l.size+int64(len(b)) > logSize {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *logFile) rotate() error {
	full := l.file
	l.file = nil
	if err := full.Close(); err != nil {
		return fmt.Errorf("close the full log: %w", err)
	}
	for i := logKept; i > 0; i-- {
		from := l.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(from, l.path+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put the full log aside: %w", err)
		}
	}
	return l.open()
}

// Close ends the log.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// private matches what no log holds above debug level: identities, keys, and addresses of people and of machines.
var private = regexp.MustCompile(`did:key:[A-Za-z0-9]+|\b[0-9a-fA-F]{24,}\b|[\w.+-]+@[\w-]+\.[\w.-]+|\+[0-9][0-9 ()-]{6,}[0-9]|/ip[46]/[^/\s]+|\b\d{1,3}(?:\.\d{1,3}){3}\b|\[[0-9a-fA-F:]{4,}(?:%\w+)?\]`)

// logger writes to the log, with ids shortened and addresses of people left out.
func logger(l *logFile) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			if attr.Key == slog.TimeKey && attr.Value.Kind() == slog.KindTime {
				return attr
			}
			if text := attr.Value.String(); private.MatchString(text) {
				attr.Value = slog.StringValue(private.ReplaceAllStringFunc(text, shorten))
			}
			return attr
		},
	}))
}

func shorten(s string) string {
	const kept = 8
	if len(s) > 24 && s[0] != '+' {
		return s[len(s)-kept:]
	}
	return "[left out]"
}
