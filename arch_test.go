// Package weir_test holds the rules that no single package can see: who may import whom, what written code must not
// do, and how long a file may be. ARCHITECTURE.md says why.
package weir_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module       = "github.com/weir-llm/weir"
	maxFileLines = 500
)

// areas are the top-level folders that hold Go code, with the areas that each may import.
var areas = map[string][]string{
	"schemas":     {},
	"internal":    {"internal", "schemas"},
	"client":      {"client", "internal", "schemas"},
	"ingest":      {"ingest", "internal", "schemas"},
	"router":      {"router", "internal", "schemas"},
	"inference":   {"inference", "internal", "schemas"},
	"sink":        {"sink", "internal", "schemas"},
	"cmd":         {"cmd", "client", "ingest", "router", "inference", "sink", "internal", "schemas"},
	"bench":       {"bench", "client", "ingest", "router", "inference", "sink", "internal", "schemas"},
	"chaos":       {"chaos", "client", "ingest", "router", "inference", "sink", "internal", "schemas"},
	"conformance": {"conformance"},
	"examples":    {"examples", "internal"},
}

// fenced libraries may be imported only under these folders.
var fenced = []struct {
	library string
	folders []string
}{
	{"github.com/nats-io/nats-server", []string{"internal/natsd"}},
	{"github.com/nats-io/nats.go", []string{"internal/bus", "internal/natsd", "client"}},
	{"github.com/synadia-io/orbit.go", []string{"internal/bus", "internal/natsd", "client"}},
	{"github.com/nats-io/jwt", []string{"internal/callout"}},
	{"github.com/nats-io/nkeys", []string{"internal/callout"}},
	{"google.golang.org/grpc", []string{"inference/rpc", "inference/backendv1", "inference/triton", "examples", "bench"}},
	{"database/sql", []string{"sink"}},
	{"modernc.org/sqlite", []string{"sink"}},
	{"github.com/jackc/pgx", []string{"sink"}},
	{"github.com/pressly/goose", []string{"sink"}},
	{"github.com/prometheus/client_golang/prometheus/promauto", nil},
	{"expvar", nil},
}

// forbidden functions and variables work on state that the whole process shares.
var forbidden = map[string][]string{
	"net/http": {
		"DefaultClient", "DefaultServeMux", "Get", "Head", "Post", "PostForm", "Handle", "HandleFunc",
		"ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS",
	},
	"github.com/prometheus/client_golang/prometheus": {
		"DefaultRegisterer", "DefaultGatherer", "Register", "MustRegister", "Unregister",
	},
	"log/slog":                    {"SetDefault", "Default", "Debug", "Info", "Warn", "Error"},
	"go.opentelemetry.io/otel":    {"SetTracerProvider", "SetTextMapPropagator", "SetLogger", "Tracer", "GetTracerProvider"},
	"github.com/pressly/goose/v3": {"SetDialect", "SetBaseFS", "Up", "UpContext", "AddMigration", "AddMigrationContext"},
	"github.com/spf13/cobra":      {"OnInitialize"},
	"os":                          {"Exit"},
	"log":                         {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Default"},
}

func TestArchitecture(t *testing.T) {
	for _, v := range check(t, os.DirFS(".")) {
		t.Error(v)
	}
}

// check lists every broken rule of a source tree.
func check(t *testing.T, tree fs.FS) (violations []string) {
	t.Helper()
	packages := map[string][]*sourceFile{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipFolder(tree, name)
		}
		if !strings.HasSuffix(name, ".go") || path.Dir(name) == "." {
			return nil
		}
		f, err := readSource(tree, name)
		if err != nil {
			return err
		}
		violations = append(violations, f.check()...)
		packages[path.Dir(name)] = append(packages[path.Dir(name)], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range packages {
		violations = append(violations, registries(files)...)
	}
	slices.Sort(violations)
	return violations
}

// skipFolder leaves out other modules, generated code and what git and npm keep.
func skipFolder(tree fs.FS, name string) error {
	if name == "." {
		return nil
	}
	if strings.HasPrefix(path.Base(name), ".") || path.Base(name) == "testdata" || path.Base(name) == "node_modules" || name == "internal/pb" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(tree, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

// sourceFile is one parsed file.
type sourceFile struct {
	name    string // slash-separated, from the root of the module
	test    bool
	lines   int
	fset    *token.FileSet
	syntax  *ast.File
	imports map[string]string // local name to path
}

func readSource(tree fs.FS, name string) (*sourceFile, error) {
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	f := &sourceFile{name: name, test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet(), imports: map[string]string{}}
	f.lines = strings.Count(string(b), "\n")
	if f.syntax, err = parser.ParseFile(f.fset, name, b, parser.SkipObjectResolution); err != nil {
		return nil, err
	}
	for _, spec := range f.syntax.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		local := path.Base(p)
		if strings.HasPrefix(local, "v") && strings.Trim(local[1:], "0123456789") == "" {
			local = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			local = spec.Name.Name
		}
		f.imports[local] = p
	}
	return f, nil
}

func (f *sourceFile) check() []string {
	if f.test {
		return f.checkTest()
	}
	v := append(f.checkImports(), f.checkCode()...)
	if f.lines > maxFileLines {
		v = append(v, fmt.Sprintf("%s: has %d lines: split it before %d", f.name, f.lines, maxFileLines))
	}
	return v
}

func (f *sourceFile) at(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.name, f.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...))
}

func (f *sourceFile) area() string { return strings.SplitN(f.name, "/", 2)[0] }

func (f *sourceFile) checkImports() (v []string) {
	allowed, known := areas[f.area()]
	if !known {
		return []string{fmt.Sprintf("%s: the folder %s is not in the layout: add it to arch_test.go and ARCHITECTURE.md with a reason", f.name, f.area())}
	}
	for _, spec := range f.syntax.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		if rest, ours := strings.CutPrefix(p, module+"/"); ours {
			if to := strings.SplitN(rest, "/", 2)[0]; !slices.Contains(allowed, to) {
				v = append(v, f.at(spec, "%s must not import %s", f.area(), to))
			}
			continue
		}
		if f.area() == "schemas" && strings.Contains(strings.SplitN(p, "/", 2)[0], ".") {
			v = append(v, f.at(spec, "schemas imports only the standard library, not %s", p))
		}
		for _, rule := range fenced {
			if under(p, rule.library) && !slices.ContainsFunc(rule.folders, f.within) {
				v = append(v, f.at(spec, "%s may be imported only in %v", rule.library, rule.folders))
			}
		}
	}
	return v
}

// within reports whether the file is in the folder, or is the file or one of the files that the prefix names:
// ingest/service allows ingest/service.go, ingest/service_frames.go and ingest/service/….
func (f *sourceFile) within(folder string) bool {
	return under(f.name, folder) || strings.HasPrefix(f.name, folder+"_") || f.name == folder+".go"
}

func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// checkCode looks for init functions, process-wide state and wire names outside schemas.
func (f *sourceFile) checkCode() (v []string) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				v = append(v, f.at(n, "init() hides order: build it in New"))
			}
		case *ast.SelectorExpr:
			v = append(v, f.checkSelector(n)...)
		case *ast.BasicLit:
			if n.Kind == token.STRING && f.wireName(n.Value) {
				v = append(v, f.at(n, "wire name %s belongs in schemas", n.Value))
			}
		}
		return true
	})
	return v
}

func (f *sourceFile) checkSelector(n *ast.SelectorExpr) []string {
	x, ok := n.X.(*ast.Ident)
	if !ok || !slices.Contains(forbidden[f.imports[x.Name]], n.Sel.Name) {
		return nil
	}
	if n.Sel.Name == "Exit" && path.Base(f.name) == "main.go" {
		return nil
	}
	return []string{f.at(n, "%s.%s is shared by the whole process", x.Name, n.Sel.Name)}
}

// wireName reports whether a string literal begins like a subject, a stream or a header of the design. The accounts of
// the embedded server and the programs around the product are configuration and may spell them out; a name with {…} is
// a template for people, such as a span's.
func (f *sourceFile) wireName(literal string) bool {
	if strings.Contains(literal, "{") {
		return false
	}
	if !slices.Contains([]string{"internal", "client", "ingest", "router", "inference", "sink"}, f.area()) || under(f.name, "internal/natsd") {
		return false
	}
	s := strings.Trim(literal, "`\"")
	return strings.HasPrefix(s, "llm.") || strings.HasPrefix(s, "LLM_") || strings.HasPrefix(s, "Llm-")
}

// checkTest finds tests that can pass without having tested anything.
func (f *sourceFile) checkTest() (v []string) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "tb", "b"}, x.Name) {
				v = append(v, f.at(n, "a skipped test proves nothing"))
			}
		}
		return true
	})
	return v
}

// registries finds package-level state of a package: maps that some function writes to, and locks, which only guard
// state of the same kind.
func registries(files []*sourceFile) (v []string) {
	vars := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		for _, decl := range f.syntax.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				spec := spec.(*ast.ValueSpec)
				for _, name := range spec.Names {
					vars[name.Name] = name.Name != "_"
				}
				if f.isLock(spec.Type) {
					v = append(v, f.at(spec, "package-level %s guards package-level state: put both in a struct", spec.Names[0].Name))
				}
			}
		}
	}
	for _, f := range files {
		if !f.test {
			v = append(v, f.writesTo(vars)...)
		}
	}
	return v
}

func (f *sourceFile) isLock(typ ast.Expr) bool {
	sel, ok := typ.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && f.imports[x.Name] == "sync" && slices.Contains([]string{"Mutex", "RWMutex", "Map", "Once"}, sel.Sel.Name)
}

// writesTo finds assignments to package-level variables and to their elements, and deletions from them.
func (f *sourceFile) writesTo(vars map[string]bool) (v []string) {
	for _, decl := range f.syntax.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := declared(fn)
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			for _, target := range written(n) {
				if vars[target.Name] && !local[target.Name] {
					v = append(v, f.at(target, "package-level %s is changed at run time: put it in a struct", target.Name))
				}
			}
			return true
		})
	}
	return v
}

// written returns the variables that a node changes.
func written(n ast.Node) (targets []*ast.Ident) {
	root := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				targets = append(targets, x)
				return
			default:
				return
			}
		}
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, lhs := range n.Lhs {
				root(lhs)
			}
		}
	case *ast.IncDecStmt:
		root(n.X)
	case *ast.CallExpr:
		if fn, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear"}, fn.Name) && len(n.Args) > 0 {
			root(n.Args[0])
		}
	}
	return targets
}

// declared collects every name that a function declares anywhere: parameters, results, := and var.
func declared(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, lhs := range n.Lhs {
					if id, ok := lhs.(*ast.Ident); ok {
						names[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}
