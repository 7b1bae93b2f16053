package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-file +now); if it is meant: go test ./cmd/weir -update\n%s", file, diff)
	}
}

func TestUsage(t *testing.T) {
	names := []string{""}
	for _, cmd := range (&cli{}).root().Commands() {
		if cmd.Hidden {
			continue
		}
		names = append(names, cmd.Name())
		for _, sub := range cmd.Commands() {
			names = append(names, cmd.Name()+" "+sub.Name())
		}
	}
	for _, name := range names {
		t.Run("weir "+name, func(t *testing.T) {
			out, stderr, err := call(t, append(strings.Fields(name), "--help")...)
			if err != nil || stderr != "" {
				t.Fatalf("help failed: %v, %s", err, stderr)
			}
			golden(t, filepath.Join("testdata", "usage", strings.TrimSuffix("weir-"+strings.ReplaceAll(name, " ", "-"), "-")+".txt"), out)
		})
	}
}

// TestHelpIsACommandToo: who does not think of --help is helped as well.
func TestHelpIsACommandToo(t *testing.T) {
	for _, args := range [][]string{{}, {"ask"}, {"keys", "create"}} {
		want, _, err := call(t, append(slices.Clone(args), "--help")...)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := call(t, append([]string{"help"}, args...)...)
		if err != nil || got != want {
			t.Errorf("weir help %v differs from --help, %v (-help +help)\n%s", args, err, cmp.Diff(want, got))
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"servr"}, `there is no command "servr": did you mean serve?; see weir --help`},
		{[]string{"serve", "now"}, "weir serve takes no argument, not 1 argument; see weir serve --help"},
		{[]string{"ask"}, "weir ask takes one prompt, in quotes, not 0 arguments; see weir ask --help"},
		{[]string{"check"}, "weir check takes one file"},
		{[]string{"replay"}, "name a request, or a time with --since; see weir replay --help"},
		{[]string{"replay", "r1", "--since", "1h"}, "name either a request or a time, not both"},
		{[]string{"serve", "--nope"}, "unknown flag: --nope; see weir serve --help"},
		{[]string{"keys", "creat"}, `there is no command "creat": did you mean create?; see weir keys --help`},
		{[]string{"keys", "revoke"}, "weir keys revoke takes the id of one key, not 0 arguments"},
		{[]string{"keys", "create", "--id", "x", "--tenant", "t"}, "leave those out; see weir keys create --help"},
		{[]string{"usage", "--by", "week"}, `--by "week" is not known: use tenant, model or day`},
		{[]string{"usage", "--since", "-1h"}, "--since is negative"},
		{[]string{"tail", "--since", "soon"}, `--since "soon" is no time: write a number with its unit, such as 30m or 24h; see weir tail --help`},
		{[]string{"foo"}, `there is no command "foo"; see weir --help`},
		{[]string{"rep"}, `there is no command "rep": did you mean replay?`},
		{[]string{"help", "servr"}, `there is no command "servr": did you mean serve?`},
		{[]string{"ask", "how", "are", "you"}, "weir ask takes one prompt, in quotes, not 3 arguments"},
	} {
		out, _, err := call(t, tt.args...)
		if exitCode(err) != 2 || !strings.Contains(err.Error(), tt.want) || out != "" {
			t.Errorf("weir %v: exit %d, error %v, printed %q", tt.args, exitCode(err), err, out)
		}
	}
	if exitCode(nil) != 0 || exitCode(errCancelled) != 130 || exitCode(os.ErrNotExist) != 1 {
		t.Error("exit codes")
	}
}
