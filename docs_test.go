package weir_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
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

// Each key of the configuration stands in docs/configuration.md in the words of its doc tag.
func TestConfigurationDocument(t *testing.T) {
	plain := strings.NewReplacer("`", "", `\|`, "|")
	document := plain.Replace(read(t, filepath.Join("docs", "configuration.md")))
	syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join("cmd", "weir", "config.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	ast.Inspect(syntax, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		text, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		key, _, _ := strings.Cut(reflect.StructTag(text).Get("yaml"), ",")
		doc := reflect.StructTag(text).Get("doc")
		if key == "" {
			return true
		}
		keys++
		if !strings.Contains(document, key) {
			t.Errorf("docs/configuration.md does not have the key %s", key)
		}
		if single(field.Type) && !strings.Contains(document, doc) {
			t.Errorf("docs/configuration.md does not say of %s: %s", key, doc)
		}
		return true
	})
	if keys < 10 {
		t.Errorf("found only %d keys in cmd/weir/config.go", keys)
	}
}

// single reports whether a key holds one value, and not a list, a map or keys of its own.
func single(typ ast.Expr) bool {
	switch typ := typ.(type) {
	case *ast.MapType, *ast.ArrayType:
		return false
	case *ast.Ident:
		return typ.Name == strings.ToLower(typ.Name) || typ.Name == "Duration"
	}
	return true
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
