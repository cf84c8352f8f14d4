package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/client"
)

func (a *app) contact() *cobra.Command {
	return group(groupPeople, "contact", "People you talk to: add, list, verify, rename, block",
		a.contactAdd(), a.contactList(), a.contactShow(), a.contactVerify(), a.contactRename(), a.contactRemove(), a.contactWays(),
		a.contactChange("block WHO", "Take nothing more from a contact; they are told nothing", "  kinloom contact block bob", "is blocked", (*client.Client).Block),
		a.contactChange("unblock WHO", "End a block", "  kinloom contact unblock bob", "is unblocked, and not verified", (*client.Client).Unblock),
	)
}

func (a *app) contactAdd() *cobra.Command {
	var petname string
	cmd := &cobra.Command{
		Use: "add LINK", Short: "Answer an invite", Args: between(1, 1),
		Long: "Answers an invite: reaches its maker, who becomes your contact as you become theirs. On a terminal it asks whether both " +
			"screens show the same check words; elsewhere the contact is added unverified, and kinloom contact verify does it later.",
		Example: "  kinloom contact add 'kinloom:i#…'\n  kinloom contact add 'kinloom:i#…' --name \"Ada from work\" --json",
	}
	cmd.Flags().StringVar(&petname, "name", "", "your own name for this person")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		where, err := a.places()
		if err != nil {
			return err
		}
		link := strings.TrimSpace(args[0])
		if err := node.CheckInvite(link, node.AddOptions{Name: petname}, time.Now()); err != nil {
			return err // before a home is made for it
		}
		fresh := !made(where.home)
		return a.with(cmd.Context(), needMade, func(ctx context.Context, c *client.Client) error {
			if fresh {
				a.say("There was no home, so a new identity was made in %s. Say what contacts see: %s", where.home, a.command("id name NAME"))
			}
			added, err := c.AddContact(ctx, client.AddContact{Link: link, Name: petname})
			if err != nil {
				return err
			}
			if err := a.compareWords(ctx, c, &added); err != nil {
				a.say("%s is added, %s. Verify later:  %s", name(added.Name), trustWords(added.Trust), a.command("contact verify "+quote(name(added.Name))))
				return err
			}
			return show(a, added, func(w io.Writer, added client.Added) {
				fmt.Fprintf(w, "%s added, %s.\n", name(added.Name), trustWords(added.Trust))
				if added.Request {
					fmt.Fprintf(w, "%s has to accept you first; what you send waits for that.\n", name(added.Name))
				}
				if added.Trust != "verified" {
					fmt.Fprintf(w, "Verify later:  %s\n", a.command("contact verify "+quote(name(added.Name))))
				}
			})
		})
	}
	return cmd
}

// compareWords tells the check words and, on a terminal, asks about them.
func (a *app) compareWords(ctx context.Context, c *client.Client, added *client.Added) error {
	if a.json {
		return nil
	}
	a.say("Found %s via %s in %.2f s. Check words: %s", name(added.Name), strings.ToUpper(added.Via), float64(added.Took)/1000, strings.Join(added.Words, " "))
	if !a.talks() || len(added.Words) == 0 {
		return nil
	}
	same, err := a.confirm(fmt.Sprintf("The same words on %s's screen?", name(added.Name)))
	if err != nil || !same {
		return err
	}
	verified, err := c.Verify(ctx, added.ID, true)
	if err != nil {
		return err
	}
	added.Trust = verified.Trust
	return nil
}

func trustWords(trust string) string {
	switch trust {
	case "verified":
		return "verified"
	case "blocked":
		return "blocked"
	}
	return "not verified yet"
}

func (a *app) contactList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Your contacts", Args: between(0, 0), Example: "  kinloom contact list\n  kinloom contact list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				all, err := c.Contacts(ctx)
				if err != nil {
					return err
				}
				return showAll(a, all, func(w io.Writer, all []client.Contact) {
					if len(all) == 0 {
						fmt.Fprintln(w, "No contacts yet. Make an invite: "+a.command("invite")+", or answer one: "+a.command("contact add LINK"))
					}
					listContacts(w, all)
				})
			})
		},
	}
}

func listContacts(w io.Writer, all []client.Contact) {
	table(w, func(w io.Writer) {
		for _, c := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\tseen %s\n", name(c.Name), trustWords(c.Trust), c.ID, clock(c.LastSeen.Time))
		}
	})
}

func (a *app) contactShow() *cobra.Command {
	return &cobra.Command{
		Use: "show WHO", Short: "All about one contact", Args: between(1, 1), Example: "  kinloom contact show ada",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				one, err := c.Contact(ctx, args[0])
				if err != nil {
					return err
				}
				return show(a, one, showContact)
			})
		},
	}
}

func showContact(w io.Writer, c client.Contact) {
	table(w, func(w io.Writer) {
		fmt.Fprintf(w, "Name\t%s\n", name(c.Name))
		if c.Petname != "" && c.Profile != "" && c.Profile != c.Petname {
			fmt.Fprintf(w, "Calls themselves\t%s\n", name(c.Profile))
		}
		fmt.Fprintf(w, "Identity\t%s\n", c.ID)
		fmt.Fprintf(w, "Trust\t%s\n", trustWords(c.Trust))
		fmt.Fprintf(w, "Since\t%s\n", clock(c.Since.Time))
		fmt.Fprintf(w, "Devices\t%d, last seen %s\n", c.Devices, clock(c.LastSeen.Time))
		fmt.Fprintf(w, "Reached\t%s\n", waysWords(c.Ways))
		if c.Unreached != "" {
			fmt.Fprintf(w, "\tnot now: %s\n", clean(c.Unreached, 600))
		}
		fmt.Fprintf(w, "Conversation\t%s\n", c.Conversation)
	})
}

func (a *app) contactVerify() *cobra.Command {
	var yes, no bool
	cmd := &cobra.Command{
		Use: "verify WHO", Short: "Compare check words or numbers, so that no stranger sits in between", Args: between(1, 1),
		Long: "Shows what both of you compare: three words while the first exchange is less than 10 minutes old, and always a long number. " +
			"Compare over a call or face to face. On a terminal it asks for your answer; elsewhere give --yes or --no.",
		Example: "  kinloom contact verify bob\n  kinloom contact verify bob --yes",
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "both showed the same")
	cmd.Flags().BoolVar(&no, "no", false, "they differed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if yes && no {
			return usage("Give one of them.", "--yes and --no cannot both be meant")
		}
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			seen, err := c.Fingerprint(ctx, args[0])
			if err != nil {
				return err
			}
			if !yes && !no && a.talks() {
				if err := a.showFingerprint(seen); err != nil {
					return err
				}
				if yes, err = a.confirm(fmt.Sprintf("The same on %s's screen?", name(seen.Name))); err != nil {
					return err
				}
				if !yes {
					a.say("Nothing changed. If they differ, somebody may sit in between: %s", a.command("contact verify "+quote(args[0])+" --no"))
					return nil
				}
			}
			if yes || no {
				changed, err := c.Verify(ctx, seen.ID, yes)
				if err != nil {
					return err
				}
				return show(a, changed, func(w io.Writer, c client.Contact) { fmt.Fprintf(w, "%s is %s.\n", name(c.Name), trustWords(c.Trust)) })
			}
			return a.showFingerprint(seen)
		})
	}
	return cmd
}

func (a *app) showFingerprint(seen client.Fingerprint) error {
	drawn := ""
	if a.drawsQR() {
		var err error
		if drawn, err = drawQR(seen.QR); err != nil {
			return err
		}
	}
	return show(a, seen, func(w io.Writer, seen client.Fingerprint) {
		if len(seen.Words) > 0 {
			fmt.Fprintf(w, "Check words with %s:  %s\n", name(seen.Name), strings.Join(seen.Words, " "))
		}
		fmt.Fprintf(w, "%sNumber with %s:\n  %s\n", drawn, name(seen.Name), lines(seen.Digits, "  "))
	})
}

func (a *app) contactRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename WHO NAME", Short: "Give a contact your own name; \"\" takes it away", Args: between(1, 2),
		Example: "  kinloom contact rename bob \"Bob from work\"\n  kinloom contact rename bob \"\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(`Give one, or "" to take the old one away.`, "the new name is missing")
			}
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				changed, err := c.RenameContact(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return show(a, changed, showContact)
			})
		},
	}
}

func (a *app) contactWays() *cobra.Command {
	return &cobra.Command{
		Use: "ways WHO any|relay|lan", Short: "Say by which routes a contact's devices are reached", Args: between(2, 2),
		Long: "any: by whatever works. " +
			"relay: over relays only, for somebody who must not learn this node's IP address. The relays are servers that you named " +
			"(kinloom bootstrap add) and those of contacts with \"any\", never one that the contact names; without one that both sides can use " +
			"there is no way, and no other is taken. The operators of these relays see the address. What this contact learned before, " +
			"as from an invite, stays learned: its keys are replaced, your other contacts are told, and open invites end. " +
			"lan: on the local network only. From then on they are told nothing by which this node is found elsewhere, and what they knew is of no use: its key changes, and open invites end.",
		Example: "  kinloom contact ways bob relay\n  kinloom contact ways bob any",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				changed, err := c.SetWays(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return show(a, changed, showContact)
			})
		},
	}
}

func waysWords(ways string) string {
	switch ways {
	case node.WaysRelay:
		return "over relays only, without learning this node's address"
	case node.WaysLAN:
		return "on the local network only"
	}
	return "by whatever works"
}

func (a *app) contactRemove() *cobra.Command {
	var history bool
	cmd := &cobra.Command{
		Use: "remove WHO", Short: "Forget a contact; --history deletes what was said, too", Args: between(1, 1),
		Long:    "Ends the exchange with a person. What they knew of how to find this node is replaced, and your other contacts are told; open invites end, as they name what is replaced.",
		Example: "  kinloom contact remove bob\n  kinloom contact remove bob --history",
	}
	cmd.Flags().BoolVar(&history, "history", false, "delete the conversation on this device")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
			one, err := c.Contact(ctx, args[0])
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("history") && a.talks() {
				if history, err = a.confirm("Delete what was said, too?"); err != nil {
					return err
				}
			}
			if err := c.RemoveContact(ctx, one.ID, history); err != nil {
				return err
			}
			if a.json {
				one.State, one.Petname = "removed", ""
				return show(a, one, nil)
			}
			if history {
				a.say("%s is removed, and the conversation is deleted on this device.", name(one.Name))
			} else {
				a.say("%s is removed; the conversation stays: %s", name(one.Name), a.command("read "+one.Conversation))
			}
			return nil
		})
	}
	return cmd
}

// contactChange is a command that changes one contact and shows it.
func (a *app) contactChange(use, short, example, done string, change func(*client.Client, context.Context, string) (client.Contact, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: between(1, 1), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), needHome, func(ctx context.Context, c *client.Client) error {
				changed, err := change(c, ctx, args[0])
				if err != nil {
					return err
				}
				return show(a, changed, func(w io.Writer, c client.Contact) { fmt.Fprintf(w, "%s %s.\n", name(c.Name), done) })
			})
		},
	}
}
