package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/node/store"
)

const (
	// doctorTime is how long a running node may take to look at itself.
	doctorTime = 100 * time.Second
	// doctorWait is how long another command may hold the home before it is taken for a node that does not answer.
	doctorWait = 2 * time.Second
)

func (a *app) doctor() *cobra.Command {
	var listen []string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check everything, and say what to do about what is wrong", GroupID: groupNode, Args: between(0, 0),
		Long: "Checks the home, its rights, the disk, the databases, the clock, the network and what the node knows of how it is reached. " +
			"One line a check: OK, WARN or FAIL, what was found, and what to do; where one fault hides another, the line says so. It works with a running node, without one, and where a " +
			"home cannot be opened. Exit code 1 if a check failed.",
		Example: "  kinloom doctor\n  kinloom doctor --json\n  kinloom doctor --listen /ip4/0.0.0.0/udp/4001/quic-v1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.examine(cmd.Context(), listen)
			if err != nil {
				return err
			}
			if err := showAll(a, all, a.listFindings); err != nil {
				return err
			}
			failed := 0
			for _, f := range all {
				if f.Verdict == string(node.Fail) {
					failed++
				}
			}
			if failed > 0 {
				return &client.Problem{Code: client.CodeError, Detail: count(failed, "check") + " failed", Next: "Begin with the first line that says FAIL."}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&listen, "listen", nil, "check that a node can listen at this address, a multiaddr; may be repeated")
	return cmd
}

// examine has the running node look at itself, or looks at the home without one. Nothing that is wrong there ends it.
func (a *app) examine(ctx context.Context, listen []string) ([]client.Finding, error) {
	where, err := a.places()
	if err != nil {
		return nil, err
	}
	path := client.SocketPath(where.home, where.socket)
	answers, refusal := reach(ctx, path)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	outside := node.Checkup{Socket: node.LookAtSocket(path, answers, refusal)}
	var inside []client.Finding
	var used []string
	if answers {
		inside, used, err = a.askNode(ctx, path)
		outside.Socket.Silent = err != nil
	}
	if !answers || err != nil {
		if inside, err = a.openHome(ctx, where, &outside); err != nil {
			return nil, err
		}
	}
	if len(listen) > 0 {
		if outside.Ports, err = node.LookAtPorts(ctx, listen, used); err != nil {
			return nil, err
		}
	}
	all := inside
	for _, f := range outside.Findings() {
		all = slices.DeleteFunc(all, func(other client.Finding) bool { return other.Check == f.Check })
		all = append(all, api.Finding(f))
	}
	slices.SortStableFunc(all, func(a, b client.Finding) int {
		return slices.Index(node.Checks, a.Check) - slices.Index(node.Checks, b.Check)
	})
	return all, nil
}

// askNode asks the running node for its findings, and where it listens.
func (a *app) askNode(ctx context.Context, path string) ([]client.Finding, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	c := client.Dial(path)
	defer c.Close()
	all, err := c.Doctor(ctx)
	if err != nil {
		return nil, nil, err
	}
	status, err := c.Status(ctx)
	return all, status.Listening, err
}

// openHome opens the home without network and has it look at itself. Where that cannot be done, what is seen from outside
// goes into outside.
func (a *app) openHome(ctx context.Context, where places, outside *node.Checkup) ([]client.Finding, error) {
	var config node.Config
	var err error
	if made(where.home) {
		config, err = a.config(where)
	} else {
		config, err = node.Config{}, fs.ErrNotExist
	}
	// Who is not let in by a node has no need to wait for it.
	if err == nil && !(outside.Socket.Denied && node.LookAtHolder(where.home).Held) {
		var n *node.Node
		if n, err = openShortly(ctx, config); err == nil {
			c := client.New(client.InProcess{Handler: api.New(n, api.Options{Version: version})})
			all, asked := c.Doctor(ctx)
			closed := n.Close()
			if asked == nil {
				whole := slices.ContainsFunc(all, func(f client.Finding) bool { return f.Check == "store" && f.Verdict == string(node.OK) })
				if closed != nil && whole {
					outside.Store = node.LookAtStore(ctx, config, closed)
				}
				return all, nil
			}
			err = errors.Join(asked, closed)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if wrong, ok := errors.AsType[*usageError](err); ok {
		return nil, wrong // of the passphrase file
	}
	outside.Home, outside.Holder = node.LookAtHome(where.home), node.LookAtHolder(where.home)
	outside.Machine, outside.Clock = node.LookAtMachine(), node.LookAtClock(where.home)
	_, held := errors.AsType[*store.InUseError](err)
	if err != nil && !held && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, node.ErrNoHome) {
		outside.Store = node.LookAtStore(ctx, config, err)
	}
	return nil, nil
}

// openShortly opens a home that another command may hold for a moment.
func openShortly(ctx context.Context, config node.Config) (*node.Node, error) {
	for waited := time.Duration(0); ; waited += lockTry {
		n, err := node.OpenOffline(ctx, config)
		if _, held := errors.AsType[*store.InUseError](err); !held || waited >= doctorWait {
			return n, err
		}
		if err := pause(ctx, lockTry); err != nil {
			return nil, err
		}
	}
}

func (a *app) listFindings(w io.Writer, all []client.Finding) {
	table(w, func(w io.Writer) {
		for _, f := range all {
			line := clean(f.Found, 1000)
			if f.Fix != "" {
				line += ". " + clean(a.commands(f.Fix), 1000)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Check, f.Verdict, line)
		}
	})
}
