package natsd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

const (
	childEnv      = "WEIR_NATSD_TEST_DIR"
	childMessages = 50
)

var testStream = jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}}

// runChild fills a store, says so, and waits to be killed.
func runChild(dir string) int {
	s, err := New(Config{Dir: dir, SyncAlways: true})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	if err := fill(s, childMessages); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("filled")
	select {}
}

func fill(s *Server, n int) error {
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(s.Username(), s.Password()), nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, testStream); err != nil {
		return err
	}
	for i := range n {
		if _, err := js.Publish(ctx, fmt.Sprintf("s.%d", i), []byte("x")); err != nil {
			return err
		}
	}
	return nil
}

func wantMessages(t *testing.T, s *Server, want uint64) {
	t.Helper()
	stream, err := streams(t, pipeline(t, s)).Stream(timeout(t), testStream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != want {
		t.Errorf("the store holds %d messages, want %d", got, want)
	}
}

func TestRestartKeepsMessages(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := startServer(t, cfg)
	if err := fill(s, childMessages); err != nil {
		t.Fatal(err)
	}
	s.Close()
	wantMessages(t, startServer(t, cfg), childMessages)
}

// A killed process gives the lock back and leaves a store that opens again with everything that was acknowledged.
func TestKillKeepsMessagesAndFreesTheLock(t *testing.T) {
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || said != "filled\n" {
		t.Fatalf("the child said %q (%v)", said, err)
	}

	_, err = New(testConfig(dir))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by another weir (process %d)", child.Process.Pid)) {
		t.Errorf("New over a running store: %v, want an error that names process %d", err, child.Process.Pid)
	}

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	wantMessages(t, startServer(t, testConfig(dir)), childMessages)
}

func TestForeignStoreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no marker":        {map[string]string{"jetstream/LLM/streams/x": ""}, "did not make"},
		"another's marker": {map[string]string{markerFile: `{"made_by":"other","format":1}`}, "not a marker that Weir wrote"},
		"torn marker":      {map[string]string{markerFile: `{"made`}, "not a marker that Weir wrote"},
		"newer format":     {map[string]string{markerFile: `{"made_by":"weir","format":99}`}, "newer Weir"},
		"once clustered":   {map[string]string{markerFile: `{"made_by":"weir","format":1}`, "jetstream/SYS/_js_/_meta_/x": ""}, "clustered"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, content := range tt.files {
				writeTestFile(t, filepath.Join(dir, storeFolder, path), content)
			}
			before := listing(t, dir)
			_, err := New(testConfig(dir))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want an error with %q", err, tt.want)
			}
			if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
				t.Errorf("a refused store was touched:\n%s", diff)
			}
		})
	}
}

func TestHalfMadeStoreIsFinished(t *testing.T) {
	dir := t.TempDir()
	writeTestFile(t, filepath.Join(dir, storeFolder, lockFile), "1\n")
	writeTestFile(t, filepath.Join(dir, storeFolder, markerFile+".tmp"), "{")
	startServer(t, testConfig(dir))
	if _, err := os.Stat(filepath.Join(dir, storeFolder, markerFile)); err != nil {
		t.Error(err)
	}
}

func TestOperatorContext(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := startServer(t, cfg)
	first := readContext(t, s.ContextFile())
	if info, err := os.Stat(s.ContextFile()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the context file: %v, %v; want 0600", info.Mode(), err)
	}
	nc, _, err := natscontext.Connect(s.ContextFile())
	if err != nil {
		t.Fatalf("connect by file: %v", err)
	}
	defer nc.Close()
	if _, err := streams(t, nc).AccountInfo(timeout(t)); err != nil {
		t.Errorf("the operator has no JetStream: %v", err)
	}
	s.Close()

	s = startServer(t, cfg)
	second := readContext(t, s.ContextFile())
	if first.Password != second.Password {
		t.Error("a restart changed the operator's password")
	}
	if second.URL != s.ClientURL() {
		t.Errorf("the context points to %s, the server is at %s", second.URL, s.ClientURL())
	}
	t.Setenv("XDG_CONFIG_HOME", cfg.Dir)
	byName, _, err := natscontext.Connect("weir")
	if err != nil {
		t.Fatalf("connect by name: %v", err)
	}
	byName.Close()
}

func TestForeignContextRefused(t *testing.T) {
	cfg := testConfig(t.TempDir())
	writeTestFile(t, contextPath(cfg.Dir), `{"url":"nats://elsewhere","user":"me","password":"x"}`)
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("New: %v, want a refusal that says what to do", err)
	}
}

func readContext(t *testing.T, path string) (c cliContext) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func writeTestFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		files = append(files, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
