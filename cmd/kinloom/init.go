package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/api"
	"github.com/kinloom/kinloom/node/client"
)

func (a *app) initialise() *cobra.Command {
	var profile string
	var passphrase bool
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new identity and its home, and start nothing", GroupID: groupNode, Args: between(0, 0),
		Long: "Makes a new identity and its home. The key file is sealed with a passphrase if you give one, else by the system's " +
			"keychain; a home that you name with --home stands for itself, so without a passphrase only its file mode protects it.",
		Example: "  kinloom init --name Ada\n  kinloom --home ./ada init --name Ada --passphrase",
	}
	cmd.Flags().StringVar(&profile, "name", "", "name that contacts see")
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "ask for a passphrase that seals the key file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		where, err := a.places()
		if err != nil {
			return err
		}
		config, err := a.config(where)
		if err != nil {
			return err
		}
		if passphrase && config.Passphrase == nil {
			if config.Passphrase, err = a.newPassphrase(); err != nil {
				return err
			}
		}
		config.Name = profile
		made, err := node.Init(cmd.Context(), config)
		if err != nil {
			return err
		}
		return show(a, api.Status(made), func(w io.Writer, s client.Status) {
			fmt.Fprintf(w, "Created identity  %s\nHome              %s\nKey file          %s\n", s.ID, s.Home, protection(s.KeyProtection))
			fmt.Fprintf(w, "Next:  %s\n", a.command("up"))
		})
	}
	return cmd
}

// protection says in words what protects the key file.
func protection(how string) string {
	switch how {
	case node.ProtectedByPassphrase:
		return "sealed with your passphrase"
	case node.ProtectedByKeychain:
		return "sealed by this system's keychain"
	case node.ProtectedByMode:
		return "protected by its file mode only (whoever can read your files can read it)"
	}
	return how
}
