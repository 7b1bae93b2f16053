package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func weirFlag(flags *flag.FlagSet) *string {
	return flags.String("weir", "", "the weir program; built from this module when empty")
}

// workplace makes a directory for a run, in the temporary directory when parent is empty, and the program that is
// measured. The caller removes the directory once nothing runs there any more.
func workplace(ctx context.Context, parent, given string) (dir, program string, remove func() error, err error) {
	dir, err = os.MkdirTemp(parent, "weir-bench-")
	if err != nil {
		return "", "", nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	if program, err = buildWeir(ctx, given, dir); err != nil {
		return "", "", nil, errors.Join(err, remove())
	}
	return dir, program, remove, nil
}

// buildWeir builds the program from the current directory's module, unless a path to one is given.
func buildWeir(ctx context.Context, given, dir string) (string, error) {
	if given != "" {
		return given, nil
	}
	program := filepath.Join(dir, "weir")
	output, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/weir-llm/weir/cmd/weir").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build weir: %w\n%s", err, output)
	}
	return program, nil
}
