package schemas

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files of the current version")

// message is what a golden file holds: a header block as on the wire, an empty line and the payload.
type message struct {
	Header Header
	Data   []byte
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b *Error) bool {
		return a.Code == b.Code && a.Message == b.Message && a.Param == b.Param && a.RetryAfter == b.RetryAfter
	}),
	cmpopts.EquateEmpty(), // a payload that is not there and an empty one are the same message
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
}

// TestGolden checks what this version writes byte by byte, and that every version that was ever written still decodes
// into the same value.
func TestGolden(t *testing.T) {
	all := samples()
	current := filepath.Join("testdata", fmt.Sprintf("v%d", Version))
	if *update {
		writeGolden(t, current, all)
	}
	files, err := filepath.Glob("testdata/v*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(filepath.ToSlash(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := all[name]
			if !ok {
				t.Fatalf("%s: a record kind was removed, so records of this kind can no longer be read", file)
			}
			got, err := s.decode(parseMessage(t, data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.value, got, comparers); diff != "" {
				t.Errorf("decoded value differs (-want +got):\n%s", diff)
			}
			if filepath.Dir(file) != current {
				return
			}
			seen++
			if diff := cmp.Diff(string(data), formatMessage(s.encode(s.value))); diff != "" {
				t.Errorf("what we write changed (-golden +got); a change that an older reader cannot read needs a new version:\n%s", diff)
			}
			again := s.encode(got)
			if diff := cmp.Diff(string(data), formatMessage(again)); diff != "" {
				t.Errorf("decode and encode do not give the same bytes (-golden +got):\n%s", diff)
			}
		})
	}
	if seen != len(all) {
		t.Errorf("%d of %d kinds have a golden file in %s: run go test ./schemas -run TestGolden -update", seen, len(all), current)
	}
}

func writeGolden(t *testing.T, dir string, all map[string]sample) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, s := range all {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(formatMessage(s.encode(s.value))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func formatMessage(m message) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.Header)) {
		for _, value := range m.Header[key] {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	fmt.Fprintf(&b, "\n%s", m.Data)
	return b.String()
}

func parseMessage(t *testing.T, data []byte) message {
	t.Helper()
	head, body, ok := strings.Cut("\n"+string(data), "\n\n")
	if !ok {
		t.Fatal("golden file has no empty line after the headers")
	}
	m := message{Header: Header{}, Data: []byte(body)}
	for line := range strings.Lines(strings.TrimPrefix(head, "\n")) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Fatalf("golden header line %q", line)
		}
		m.Header[key] = append(m.Header[key], value)
	}
	return m
}
