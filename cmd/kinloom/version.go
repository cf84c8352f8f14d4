package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// built says what this program is.
type built struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", GroupID: groupProgram, Args: between(0, 0), Example: "  kinloom version --json",
		RunE: func(*cobra.Command, []string) error {
			return show(a, built{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}, func(w io.Writer, b built) {
				fmt.Fprintf(w, "kinloom %s (%s, %s/%s)\n", b.Version, b.Go, b.OS, b.Arch)
			})
		},
	}
}
