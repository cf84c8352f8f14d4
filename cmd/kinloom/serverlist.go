package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/client"
	"github.com/kinloom/kinloom/protocol/serverlist"
)

// listDays is how long a list is valid that was made here, unless --days says otherwise.
const listDays = 90

func (a *app) importServers() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE|-", Short: "Take the servers of a signed list, offline", Args: between(1, 1),
		Long: "Takes the servers of a list that those have signed whom you believe: kinloom bootstrap signer. A list is a text that you can read first. " +
			"It ends by itself; a newer one of its name takes its place, and an older one does not.",
		Example: "  kinloom bootstrap import servers.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readList(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), needMade, func(ctx context.Context, c *client.Client) error {
				l, err := c.ImportServers(ctx, string(text))
				if err != nil {
					return err
				}
				return show(a, l, func(w io.Writer, l client.ServerList) {
					what := "Imported"
					if !l.New {
						what = "You have it already"
					}
					fmt.Fprintf(w, "%s: %q, %s, valid until %s, signed by %s\n", what, clean(l.List, 64), count(l.Servers, "server"),
						l.Expires.Format("2006-01-02"), clean(strings.Join(l.Signers, ", "), 1024))
					if l.Skipped > 0 {
						fmt.Fprintf(w, "Passed over: %s that this version cannot dial\n", countAddresses(l.Skipped))
					}
				})
			})
		},
	}
}

func countAddresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return strconv.Itoa(n) + " addresses"
}

// readList reads a file, or stdin for "-".
func (a *app) readList(path string) ([]byte, error) {
	in := a.term.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usage("Give the path of a file that you can read, or - for the standard input.", "cannot open the list: %v", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, serverlist.MaxList+1))
	if err != nil {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	if len(b) > serverlist.MaxList {
		return nil, usage("Give a list as kinloom bootstrap sign writes it.", "%s is no list of servers: it is larger than %d KiB", path, serverlist.MaxList>>10)
	}
	return b, nil
}

func (a *app) signers() *cobra.Command {
	var called string
	add := &cobra.Command{
		Use: "add KEY", Short: "Believe lists of servers that a key has signed", Args: between(1, 1),
		Long: "Has lists of servers believed that a key has signed. Nobody is believed unless you say so. Take the key from somebody whom you trust, " +
			"by another way than the list itself. Who signs can name servers that withhold or watch when you connect; they learn no name, contact or message.",
		Example: "  kinloom bootstrap signer add 3f2a…c7 --name 'Ada of the club'",
	}
	add.Flags().StringVar(&called, "name", "", "what you call its owner")
	add.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), needMade, func(ctx context.Context, c *client.Client) error {
			s, err := c.AddSigner(ctx, client.Signer{Key: args[0], Name: called})
			if err != nil {
				return err
			}
			return show(a, s, func(w io.Writer, s client.Signer) { fmt.Fprintf(w, "Believed: %s\n", signerName(s)) })
		})
	}
	return group("", "signer", "Whose lists of servers you believe: add, list, remove, need",
		add,
		&cobra.Command{
			Use: "list", Short: "Whose lists are believed, and how many must agree", Args: between(0, 0), Example: "  kinloom bootstrap signer list",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					all, err := c.Signers(ctx)
					if err != nil {
						return err
					}
					return show(a, all, func(w io.Writer, all client.Signers) {
						if len(all.Signers) == 0 {
							fmt.Fprintf(w, "Nobody is believed. Believe somebody: %s\n", a.command("bootstrap signer add KEY"))
							return
						}
						for _, s := range all.Signers {
							fmt.Fprintln(w, signerName(s))
						}
						fmt.Fprintf(w, "%d of them must have signed a list\n", all.Need)
					})
				})
			},
		},
		&cobra.Command{
			Use: "remove KEY", Short: "Believe a key no longer, and forget the servers that rest on it", Args: between(1, 1), Example: "  kinloom bootstrap signer remove 3f2a…c7",
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					if err := c.RemoveSigner(ctx, args[0]); err != nil {
						return err
					}
					if a.json {
						return show(a, map[string]any{"key": args[0], "removed": true}, nil)
					}
					a.say("Believed no longer.")
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "need N", Short: "Say how many signers must agree on a list", Args: between(1, 1), Example: "  kinloom bootstrap signer need 2",
			RunE: func(cmd *cobra.Command, args []string) error {
				need, err := strconv.Atoi(args[0])
				if err != nil || need < 1 {
					return usage("Give a number from 1 on.", "%q is no number of signers", clean(args[0], 40))
				}
				return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
					if err := c.NeedSigners(ctx, need); err != nil {
						return err
					}
					if a.json {
						return show(a, client.SignersNeeded{Need: need}, nil)
					}
					a.say("A list is believed that %d have signed.", need)
					return nil
				})
			},
		},
	)
}

func signerName(s client.Signer) string {
	if s.Name == "" {
		return clean(s.Key, 64)
	}
	return clean(s.Key, 64) + "  " + name(s.Name)
}

func (a *app) exportServers() *cobra.Command {
	var called string
	var days int
	cmd := &cobra.Command{
		Use: "export [ADDRESS ...]", Short: "Write an unsigned list of the servers that you named, to edit and sign", Args: between(0, serverlist.MaxServers),
		Long: "Writes an unsigned list of the servers that you named, and of further ones: a text to look through and to edit. Then sign it: kinloom bootstrap sign. " +
			"Servers that you know by contacts or invites are not in it.",
		Example: "  kinloom bootstrap export --name 'Gemeinschaft Köln' > servers.txt",
	}
	cmd.Flags().StringVar(&called, "name", "", "what the list is called; a newer one of this name takes its place")
	cmd.Flags().IntVar(&days, "days", listDays, "how long it is valid, up to 366")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if called == "" {
			return usage("Give it one with --name.", "a list needs a name")
		}
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			named, err := c.Bootstraps(ctx)
			if err != nil {
				return err
			}
			l := serverlist.List{Name: called}
			for _, b := range named {
				args = append(args, b.Addresses...)
			}
			for _, address := range args {
				l.Servers = append(l.Servers, serverlist.Server{Address: address})
			}
			if len(l.Servers) == 0 {
				return usage("Give addresses, or name servers first: "+a.command("bootstrap add ADDRESS"), "there is no server to write into a list")
			}
			text, err := dated(l, days).Append(nil)
			if err != nil {
				return notAList(err)
			}
			if a.json {
				return show(a, map[string]any{"list": called, "servers": len(l.Servers), "text": string(text)}, nil)
			}
			_, err = a.term.out.Write(text)
			return err
		})
	}
	return cmd
}

// dated gives a list today's date, and an end.
func dated(l serverlist.List, days int) serverlist.List {
	now := time.Now()
	l.Issued, l.Expires = now.Unix(), now.AddDate(0, 0, days).Unix()
	return l
}

func notAList(err error) error {
	return usage("It looks like what kinloom bootstrap export writes: no other lines, no blanks at their ends, and every server once.", "this is no list of servers: %v", err)
}

func (a *app) signServers() *cobra.Command {
	var keyFile string
	var days int
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Put your signature under a list of servers", Args: between(1, 1),
		Long: "Puts a signature under a list of servers, in its file, with a key of kinloom bootstrap key: never with your identity. Signatures of others stay if they still " +
			"fit. Read the list first: you stand for its servers. With --days it gets today's date and a new end, and all others have to sign anew.",
		Example: "  kinloom bootstrap sign servers.txt --key list.key\n  kinloom bootstrap sign servers.txt --key list.key --days 90",
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the key to sign with")
	cmd.Flags().IntVar(&days, "days", 0, "date it today, valid for so many days")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if keyFile == "" {
			return usage("Make one: kinloom bootstrap key FILE.", "a list is signed with a key of its own: --key FILE")
		}
		key, err := readListKey(keyFile)
		if err != nil {
			return err
		}
		text, err := a.readList(args[0])
		if err != nil {
			return err
		}
		l, err := serverlist.ParseList(text)
		if err != nil {
			return notAList(err)
		}
		if days != 0 {
			l = dated(l, days)
		}
		public := key.Public()
		others := func(l serverlist.List) (n int) {
			for _, s := range l.Signatures {
				if s.Key != public {
					n++
				}
			}
			return n
		}
		before := others(l)
		l = l.Sign(key)
		out, err := l.Append(nil)
		if err != nil {
			return notAList(err)
		}
		if err := rewrite(a, args[0], out); err != nil {
			return err
		}
		if dropped := before - others(l); dropped > 0 {
			a.say("%s of others no longer fits and was taken out.", count(dropped, "signature"))
		}
		if a.json && args[0] != "-" {
			return show(a, map[string]any{"list": l.Name, "key": hex.EncodeToString(public[:]), "signatures": len(l.Signatures)}, nil)
		}
		a.say("Signed %q by %x; it has %s and is valid until %s.", clean(l.Name, 64), public, count(len(l.Signatures), "signature"), time.Unix(l.Expires, 0).UTC().Format("2006-01-02"))
		return nil
	}
	return cmd
}

// rewrite replaces a file, or writes to the standard output for "-".
func rewrite(a *app, path string, b []byte) error {
	if path == "-" {
		_, err := a.term.out.Write(b)
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write the list: %w", err), os.Remove(tmp))
	}
	return nil
}

func (a *app) signerKey() *cobra.Command {
	return &cobra.Command{
		Use: "key FILE", Short: "Make a key to sign lists of servers with, or show whose it is", Args: between(1, 1),
		Long: "Makes a file with a key to sign lists of servers with, and prints the public half, which others believe with kinloom bootstrap signer add. " +
			"It is nobody's identity and has nothing to do with this home. Keep the file to yourself, and a copy of it: a new key has to be believed anew.",
		Example: "  kinloom bootstrap key list.key",
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := readListKey(args[0])
			made := errors.Is(err, fs.ErrNotExist)
			if made {
				key, err = newListKey(args[0])
			}
			if err != nil {
				return err
			}
			public := key.Public()
			return show(a, map[string]any{"key": hex.EncodeToString(public[:]), "made": made}, func(w io.Writer, _ map[string]any) { fmt.Fprintf(w, "%x\n", public) })
		},
	}
}

// listKeyHead is the first line of a key file; the second one is the seed in hex.
const listKeyHead = "kinloom server list key 1\n"

func readListKey(path string) (identity.ListKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return identity.ListKey{}, fmt.Errorf("open the key file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return identity.ListKey{}, fmt.Errorf("read the key file: %w", err)
	}
	text, ok := strings.CutPrefix(string(b), listKeyHead)
	seed, err := hex.DecodeString(strings.TrimSuffix(text, "\n"))
	if !ok || err != nil || len(seed) != 32 {
		return identity.ListKey{}, usage("Make one: kinloom bootstrap key FILE.", "%s holds no key for lists of servers", path)
	}
	return identity.NewListKey([32]byte(seed)), nil
}

func newListKey(path string) (identity.ListKey, error) {
	var seed [32]byte
	rand.Read(seed[:]) // never fails
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return identity.ListKey{}, fmt.Errorf("make the key file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s%x\n", listKeyHead, seed)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return identity.ListKey{}, fmt.Errorf("write the key file: %w", errors.Join(err, os.Remove(path)))
	}
	return identity.NewListKey(seed), nil
}
