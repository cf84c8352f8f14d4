package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/kinloom/kinloom/node/client"
)

// maxSocketPath is the longest path of a unix socket, in bytes, its closing zero left out: 103 on macOS and the BSDs,
// 107 on Linux and Windows.
func maxSocketPath() int {
	switch runtime.GOOS {
	case "linux", "windows":
		return 107
	}
	return 103
}

// Listen opens the node's unix socket at path, for its owner alone: folder 0700, socket 0600, whatever the umask. The
// caller holds the home's lock, so a socket that lies there is a dead one and is replaced. A path that the system cannot
// take is replaced by a short folder under one of bases, which is noted in the home, where client.SocketPath finds it;
// both go when the listener is closed.
func Listen(home, path string, bases []string) (net.Listener, error) {
	if len(path) > maxSocketPath() {
		return listenShort(home, bases)
	}
	if err := os.Remove(client.SocketNote(home)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("forget the old socket's place: %w", err)
	}
	return open(path)
}

// open makes the socket.
func open(path string) (net.Listener, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return nil, fmt.Errorf("close the socket's folder to others: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // nobody else was in the folder in between
		return nil, errors.Join(fmt.Errorf("close the socket to others: %w", err), listener.Close())
	}
	return listener, nil
}

// shortFolder makes a folder of a short and unforeseeable name, for the owner alone.
func shortFolder(bases []string) (string, error) {
	for _, base := range bases {
		if base == "" || len(base) > maxSocketPath()-40 {
			continue
		}
		if folder, err := os.MkdirTemp(base, "kinloom-"); err == nil {
			return folder, nil
		}
	}
	return "", errors.New("the path of the socket is too long for the system, and there is no short folder for it: set TMPDIR to one")
}

// shortListener is a socket in a short folder that it takes away when it is closed.
type shortListener struct {
	net.Listener
	folder, note string
}

func listenShort(home string, bases []string) (net.Listener, error) {
	folder, err := shortFolder(bases)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "api.sock")
	short := shortListener{folder: folder, note: client.SocketNote(home)}
	if err := os.WriteFile(short.note, []byte(path+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("note the socket's place: %w", err), os.Remove(folder))
	}
	if short.Listener, err = open(path); err != nil {
		return nil, errors.Join(err, os.Remove(short.note), os.Remove(folder))
	}
	return short, nil
}

// Close ends the listener.
func (l shortListener) Close() error {
	err := l.Listener.Close()
	if removed := os.Remove(l.note); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed, os.Remove(l.folder))
	}
	return err
}

// Serve answers on the listener until ctx ends, then lets replies under way finish for a moment. It closes the listener,
// which removes the socket.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTime, ReadTimeout: replyTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the local API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-ended
	return err
}

// After calls stop once the reply that asked for it has had time to leave.
func After(stop func()) func() {
	return func() { time.AfterFunc(graceTime, stop) }
}
