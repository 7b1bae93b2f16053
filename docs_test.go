package weir_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var markdownLink = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// Every relative link and every file that ARCHITECTURE.md sends a reader to must exist.
func TestLinksInDocuments(t *testing.T) {
	for _, file := range documents(t) {
		for _, match := range markdownLink.FindAllStringSubmatch(read(t, file), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), match[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, match[1], err)
			}
		}
	}
	path := regexp.MustCompile("`([a-z]+/[a-z/]+(?:\\.go|/))`")
	for _, file := range []string{"ARCHITECTURE.md", filepath.Join("docs", "limits.md")} {
		for _, match := range path.FindAllStringSubmatch(read(t, file), -1) {
			if _, err := os.Stat(match[1]); err != nil {
				t.Errorf("%s names %s: %v", file, match[1], err)
			}
		}
	}
}

func TestDocumentsAreMerged(t *testing.T) {
	marker := regexp.MustCompile(`(?m)^(<<<<<<<|=======|>>>>>>>)( |$)`)
	for _, file := range documents(t) {
		if found := marker.FindString(read(t, file)); found != "" {
			t.Errorf("%s has %q of a merge that was not finished", file, found)
		}
	}
}

func documents(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Each key of the configuration has its row in docs/configuration.md, in the words of its description, with its bounds. A
// row names a key as it stands below the model, the backend, the API key or the tenant.
func TestConfigurationDocument(t *testing.T) {
	var schema configKey
	if err := json.Unmarshal([]byte(read(t, filepath.Join("cmd", "weir", "config.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	plain := strings.NewReplacer("`", "", `\|`, "|")
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` (\\|.*)$").FindAllStringSubmatch(read(t, filepath.Join("docs", "configuration.md")), -1) {
		rows[match[1]] = append(rows[match[1]], plain.Replace(match[2]))
	}
	keys := 0
	schema.values("", func(key, description string) {
		keys++
		if !slices.ContainsFunc(rows[key], func(row string) bool { return strings.Contains(row, "| "+description) }) {
			t.Errorf("docs/configuration.md has no row | `%s` | %s |", key, description)
		}
	})
	if keys < 100 {
		t.Errorf("found only %d keys in the schema of the configuration", keys)
	}
}

// configKey is a key in the JSON Schema of the configuration.
type configKey struct {
	Description string               `json:"description"`
	Properties  map[string]configKey `json:"properties"`
	Items       *configKey           `json:"items"`
	Additional  json.RawMessage      `json:"additionalProperties"`
}

// values calls f for each key that holds no other keys.
func (k configKey) values(key string, f func(key, description string)) {
	var named configKey
	switch {
	case k.Items != nil && len(k.Items.Properties) > 0:
		k.Items.values("", f)
	case json.Unmarshal(k.Additional, &named) == nil && len(named.Properties) > 0:
		named.values("", f)
	case len(k.Properties) == 0:
		f(key, k.Description)
	}
	for name, below := range k.Properties {
		below.values(strings.TrimPrefix(key+"."+name, "."), f)
	}
}

// Each direct dependency has its reason, and no reason outlives its dependency.
func TestDependenciesHaveReasons(t *testing.T) {
	var direct []string
	for line := range strings.Lines(read(t, "go.mod")) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) == 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") {
			direct = append(direct, fields[0])
		}
	}
	table := read(t, "CONTRIBUTING.md")
	for _, module := range direct {
		if !strings.Contains(table, "| "+module+" |") {
			t.Errorf("CONTRIBUTING.md gives no reason for %s", module)
		}
	}
	for _, match := range regexp.MustCompile(`(?m)^\| (\S+\.\S+/\S+) \|`).FindAllStringSubmatch(table, -1) {
		if !strings.Contains(read(t, "go.mod"), match[1]+" v") {
			t.Errorf("CONTRIBUTING.md gives a reason for %s, which go.mod does not require", match[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
