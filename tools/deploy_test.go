// Package tools_test checks the files that no Go compiler reads: the Dockerfile and docker-compose.yml, each with the
// parser of the program that will read it.
package tools_test

import (
	"bufio"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const root = ".."

func loadCompose(t *testing.T, env types.Mapping) (*types.Project, error) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(file),
		ConfigFiles: []types.ConfigFile{{Filename: file}},
		Environment: env,
	}, func(o *loader.Options) { o.SetProjectName("weir", true) })
}

// example reads the variables that an operator is told to set.
func example(t *testing.T) types.Mapping {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "deploy", "compose.env.example"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := types.Mapping{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			env[name] = value
		}
	}
	return env
}

func TestCompose(t *testing.T) {
	project, err := loadCompose(t, example(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"inference", "ingest", "n1", "n2", "n3", "router", "sink"}
	if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, want) {
		t.Fatalf("services are %v, want %v", got, want)
	}
	for name, s := range project.Services {
		if strings.HasPrefix(name, "n") {
			checkNode(t, name, s)
		} else {
			checkStage(t, name, s)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts a file that is not there: %v", name, err)
			}
		}
	}
}

func checkNode(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	if want := "nats:" + natsVersion(t) + "-alpine"; s.Image != want {
		t.Errorf("%s runs %s, want %s: the version that the tests run", name, s.Image, want)
	}
	if got := s.Environment["WEIR_NATS_NAME"]; got == nil || *got != name {
		t.Errorf("%s does not know its name", name)
	}
	var stores int
	for _, v := range s.Volumes {
		if v.Target == "/var/lib/nats" && v.Source == name {
			stores++
		}
	}
	if stores != 1 {
		t.Errorf("%s has no volume of its own for its store", name)
	}
}

func checkStage(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	if !slices.Equal(s.Command, types.ShellCommand{name}) {
		t.Errorf("%s runs the command %v", name, s.Command)
	}
	if got := s.Environment["WEIR_REPLICAS"]; got == nil || *got != "3" {
		t.Errorf("%s does not ask for three replicas", name)
	}
	if len(s.DependsOn) != 3 {
		t.Errorf("%s waits for %d nats nodes, want 3", name, len(s.DependsOn))
	}
}

// natsVersion is the nats-server that the product is built and tested with.
func natsVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "github.com/nats-io/nats-server/v2 v")
	if !ok {
		t.Fatal("go.mod does not name nats-server")
	}
	return strings.Fields(rest)[0]
}

// A password that is not set must stop the start: an empty one would let everybody in.
func TestComposeNeedsItsSecrets(t *testing.T) {
	env := example(t)
	for name := range env {
		if !strings.Contains(name, "PASSWORD") && !strings.Contains(name, "KEY") && !strings.Contains(name, "CALLOUT") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			without := maps.Clone(env)
			delete(without, name)
			if _, err := loadCompose(t, without); err == nil {
				t.Error("compose starts without it")
			}
		})
	}
}

func TestDockerfile(t *testing.T) {
	f, err := os.Open(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	result, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range result.Warnings {
		t.Errorf("%s (%s)", w.Short, w.URL)
	}
	last := map[string]string{} // the last value of each instruction
	var static bool
	var stages int
	for _, n := range result.AST.Children {
		instruction := strings.ToLower(n.Value)
		if instruction == "from" {
			stages++
		}
		if n.Next != nil {
			last[instruction] = n.Next.Value
		}
		static = static || strings.Contains(n.Original, "CGO_ENABLED=0")
	}
	if stages < 2 || !strings.Contains(last["from"], "distroless/static") {
		t.Errorf("%d stages, the last from %q: want a build and an image with nothing but the program", stages, last["from"])
	}
	if user := last["user"]; user == "" || user == "root" || user == "0" {
		t.Errorf("the image runs as %q", user)
	}
	if !static {
		t.Error("the program is not built with CGO_ENABLED=0, but the image has no C library")
	}
}
