package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/node/store"
)

// need says what a command does when no node is running.
type need int

const (
	needHome    need = iota // open the home without network
	needNetwork             // open the home and go on the network
	needMade                // the same, and make the home if there is none
	needNode                // refuse
)

const (
	// lockWait is how long a command waits for another command that holds the home.
	lockWait = 20 * time.Second
	lockTry  = 20 * time.Millisecond
)

// with gives a command its node: the running one over the socket, or one opened for this command, through the same
// handlers.
func (a *app) with(ctx context.Context, n need, use func(context.Context, *client.Client) error) (err error) {
	where, err := a.places()
	if err != nil {
		return err
	}
	c, closeNode, err := a.connect(ctx, where, n)
	if err != nil {
		return err
	}
	defer func() {
		c.Close()
		err = errors.Join(err, closeNode())
	}()
	return use(ctx, c)
}

// connect tries the socket, then the home. A home that is held by another command is waited for; in the meantime a node
// may have opened its socket.
func (a *app) connect(ctx context.Context, where places, n need) (*client.Client, func() error, error) {
	var config *node.Config
	var waited time.Duration
	for {
		socket := client.SocketPath(where.home, where.socket)
		switch answers, err := reach(ctx, socket); {
		case err != nil:
			return nil, nil, err
		case answers:
			return client.Dial(socket), func() error { return nil }, nil
		case n == needNode:
			return nil, nil, &client.Problem{Code: client.CodeNotRunning, Detail: "no node is running for " + where.home, Next: "Start one: " + a.command("up")}
		}
		if config == nil {
			made, err := a.config(where)
			if err != nil {
				return nil, nil, err
			}
			config = &made
		}
		open := node.OpenOffline
		if n == needMade || n == needNetwork && made(where.home) {
			open = node.Open
		}
		opened, err := open(ctx, *config)
		if err == nil {
			return client.New(client.InProcess{Handler: api.New(opened, api.Options{Version: version})}), opened.Close, nil
		}
		if _, held := errors.AsType[*store.InUseError](err); !held || waited >= lockWait {
			return nil, nil, err
		}
		if err := pause(ctx, lockTry); err != nil {
			return nil, nil, err
		}
		waited += lockTry
	}
}

// made reports whether there is something in a home: only a command that answers an invite makes one.
func made(home string) bool {
	for _, name := range []string{"keys", "account.db"} {
		if _, err := os.Stat(filepath.Join(home, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// reach reports whether a node answers on the socket.
func reach(ctx context.Context, socket string) (bool, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return true, conn.Close()
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return false, fmt.Errorf("the node's socket belongs to another user: %w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EINVAL):
		return false, nil // none, a dead one, or a path too long for one
	}
	return false, fmt.Errorf("reach the node: %w", err)
}

// config is what a node of this command is told.
func (a *app) config(where places) (node.Config, error) {
	passphrase, err := a.passphrase(where.home)
	if err != nil {
		return node.Config{}, err
	}
	return node.Config{
		Dir: where.home, Passphrase: passphrase, Keychain: keychain{closed: where.own}, Version: version,
		Log: slog.New(slog.DiscardHandler),
	}, nil
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
