package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/node/store"
)

// startSettled is how long after its start a node has done what a start needs.
const startSettled = time.Second

// nodeOptions are the flags of the commands that start a node.
type nodeOptions struct {
	name     string
	listen   []string
	lanOnly  bool
	profile  string
	announce []string
	noDHT    bool
	proxy    string
	login    string // file
}

func (o *nodeOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.name, "name", "", "name that contacts see, for a new home")
	cmd.Flags().StringArrayVar(&o.listen, "listen", nil, "address to listen on, as a multiaddr; may be repeated")
	cmd.Flags().BoolVar(&o.lanOnly, "lan-only", false, "talk on the local network only")
	cmd.Flags().StringVar(&o.profile, "profile", "home", "home, server (a rented machine), client (on battery), or lan")
	cmd.Flags().StringArrayVar(&o.announce, "announce", nil, "public IP address that the provider translates to this machine; may be repeated")
	cmd.Flags().BoolVar(&o.noDHT, "no-dht", false, "neither publish look-up records nor look others up")
	cmd.Flags().StringVar(&o.proxy, "proxy", "", "HTTP proxy to leave by, as http://HOST:PORT, or env for that of the environment")
	cmd.Flags().StringVar(&o.login, "proxy-login-file", "", "file with user:password for the proxy")
}

// apply puts the flags into the configuration of a node.
func (o *nodeOptions) apply(c *node.Config) error {
	c.Name, c.Listen, c.Announce, c.LANOnly, c.Profile, c.NoDHT, c.Proxy = o.name, o.listen, o.announce, o.lanOnly, o.profile, o.noDHT, o.proxy
	if o.proxy == "env" {
		if c.Proxy = proxyOfEnvironment(); c.Proxy == "" {
			return usage("Set HTTPS_PROXY, or give the proxy's address.", "the environment names no proxy")
		}
	}
	if o.login == "" {
		return nil
	}
	if o.proxy == "" {
		return usage("Name the proxy too: --proxy http://HOST:PORT.", "--proxy-login-file is for a proxy")
	}
	b, err := os.ReadFile(o.login)
	if err != nil {
		return fmt.Errorf("read the proxy's login: %w", err)
	}
	c.ProxyLogin = strings.TrimRight(string(b), "\r\n")
	if !strings.Contains(c.ProxyLogin, ":") {
		return usage("Write user:password into it, on one line.", "the file %s holds no login", o.login)
	}
	return nil
}

func proxyOfEnvironment() string {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

func (a *app) runNode() *cobra.Command {
	var o nodeOptions
	cmd := &cobra.Command{
		Use: "run", Short: "Start the node here and print nothing, for a service", GroupID: groupNode, Args: between(0, 0),
		Long:    "Starts the node in the foreground like up, with no invite and no lines about what happens. SIGTERM or Ctrl-C ends it.",
		Example: "  kinloom run\n  kinloom --home /srv/kinloom run --listen /ip4/0.0.0.0/udp/4001/quic-v1",
	}
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.serve(cmd.Context(), o, func(ctx context.Context, _ *node.Node) error {
			<-ctx.Done()
			return nil
		})
	}
	return cmd
}

// serve opens the node and its socket and keeps them until ctx ends, the API is told to stop, or meanwhile returns an
// error. Then it takes no more requests, lets those under way finish, and closes the node.
func (a *app) serve(ctx context.Context, o nodeOptions, meanwhile func(context.Context, *node.Node) error) (err error) {
	where, err := a.places()
	if err != nil {
		return err
	}
	config, err := a.config(where)
	if err != nil {
		return err
	}
	log := &logFile{path: filepath.Join(where.logs, "kinloom.log")}
	defer func() { err = errors.Join(err, log.Close()) }()
	config.Log = logger(log)
	if err := o.apply(&config); err != nil {
		return err
	}

	fresh := !made(where.home)
	n, err := openFree(ctx, where, config)
	if err != nil {
		if fresh && made(where.home) {
			a.say("A new identity was made in %s; it is kept, and the next start uses it.", where.home)
		}
		return err
	}
	defer func() {
		if closed := n.Close(); closed != nil && !errors.Is(err, closed) { // it may be what ended all this
			err = errors.Join(err, closed)
		}
	}()
	crash, err := a.watchCrashes(where.home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, crash.Close()) }()
	listener, err := api.Listen(where.home, where.socket, where.short)
	if err != nil {
		return err
	}
	if err := a.tellName(ctx, n, o.name); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serveUntil(ctx, n, listener, meanwhile)
}

// tellName says that a home has a name already, where another one was given for it.
func (a *app) tellName(ctx context.Context, n *node.Node, given string) error {
	if given == "" {
		return nil
	}
	s, err := n.Status(ctx)
	if err == nil && s.Name != given {
		a.say("This home is called %s already. Change it: %s", name(s.Name), a.command("id name "+quote(given)))
	}
	return err
}

// openFree opens the node. A short command that holds the home is waited for; a node that serves it is an error.
func openFree(ctx context.Context, where places, config node.Config) (*node.Node, error) {
	for waited := time.Duration(0); ; waited += lockTry {
		n, err := node.Open(ctx, config)
		if _, held := errors.AsType[*store.InUseError](err); !held || waited >= lockWait {
			return n, err
		}
		if answers, reached := reach(ctx, client.SocketPath(where.home, where.socket)); answers || reached != nil {
			return nil, err
		}
		if err := pause(ctx, lockTry); err != nil {
			return nil, err
		}
	}
}

// serveUntil answers requests while meanwhile runs and the node does not fail.
func serveUntil(ctx context.Context, n *node.Node, listener net.Listener, meanwhile func(context.Context, *node.Node) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	handler := api.New(n, api.Options{Stop: api.After(stop), Version: version})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return api.Serve(ctx, listener, handler) })
	group.Go(func() error { return meanwhile(ctx, n) })
	group.Go(func() error {
		// A start needs more memory than a node that rests. Left to itself, the runtime
		// keeps it for minutes.
		if pause(ctx, startSettled) == nil {
			debug.FreeOSMemory()
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-n.Done(): // by itself: its disk fails, and an answer would be a promise that it cannot keep
			defer stop()
			return n.Close()
		}
	})
	return group.Wait()
}

// watchCrashes has a crash of the process written to a file of the home. What the last run left there is told once and
// put aside.
func (a *app) watchCrashes(home string) (*os.File, error) {
	path := filepath.Join(home, "crash.log")
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		aside := filepath.Join(home, "crash.old.log")
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("put the crash log aside: %w", err)
		}
		a.say("The last run of this node crashed. What it left is in %s; nothing was sent anywhere.", aside)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the crash log: %w", err)
	}
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return nil, errors.Join(fmt.Errorf("use the crash log: %w", err), f.Close())
	}
	return f, nil
}
