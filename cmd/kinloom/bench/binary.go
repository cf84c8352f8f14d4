package bench

import (
	"context"
	"debug/elf"
	"debug/macho"
	"os"
)

// binary gives the size of the program, for which there is a verdict only if it
// was built without symbols, as releases are.
func (b *bench) binary(context.Context) ([]Figure, error) {
	info, err := os.Stat(b.Program)
	if err != nil {
		return nil, err
	}
	f := figure("binary", float64(info.Size())/megabyte, 0)
	if !stripped(b.Program) {
		f.Note = `this program has symbols: build it with CGO_ENABLED=0 go build -trimpath -ldflags "-s -w"`
	}
	return []Figure{f}, nil
}

// stripped reports whether a program is known to have no debugging data.
func stripped(path string) bool {
	if f, err := elf.Open(path); err == nil {
		defer f.Close()
		return f.Section(".symtab") == nil && f.Section(".debug_info") == nil && f.Section(".zdebug_info") == nil
	}
	if f, err := macho.Open(path); err == nil {
		defer f.Close()
		return f.Section("__debug_info") == nil && f.Section("__zdebug_info") == nil
	}
	return false
}
