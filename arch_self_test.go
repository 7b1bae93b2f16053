package weir_test

import (
	"strings"
	"testing"
	"testing/fstest"
)

// Each rule is broken once in a small tree, and kept once beside it: a checker that finds nothing proves nothing.
func TestArchitectureCheckerFindsViolations(t *testing.T) {
	long := "package router\n" + strings.Repeat("\n", maxFileLines)
	for _, tt := range []struct {
		name string
		file string
		code string
		want string // part of the only violation; "" for none
	}{
		{"stage to stage", "ingest/a.go", `package ingest; import _ "github.com/weir-llm/weir/router"`, "ingest must not import router"},
		{"stage to internal", "ingest/a.go", `package ingest; import _ "github.com/weir-llm/weir/internal/bus"`, ""},
		{"internal to stage", "internal/bus/a.go", `package bus; import _ "github.com/weir-llm/weir/sink"`, "internal must not import sink"},
		{"schemas to internal", "schemas/a.go", `package schemas; import _ "github.com/weir-llm/weir/internal/bus"`, "schemas must not import internal"},
		{"schemas to a library", "schemas/a.go", `package schemas; import _ "github.com/tidwall/gjson"`, "only the standard library"},
		{"schemas to std", "schemas/a.go", `package schemas; import _ "encoding/json"`, ""},
		{"anything to cmd", "bench/a.go", `package main; import _ "github.com/weir-llm/weir/cmd/weir"`, "bench must not import cmd"},
		{"anything to bench", "cmd/weir/a.go", `package main; import _ "github.com/weir-llm/weir/bench"`, "cmd must not import bench"},
		{"client to stage", "client/a.go", `package client; import _ "github.com/weir-llm/weir/ingest"`, "client must not import ingest"},
		{"nats-server elsewhere", "cmd/weir/a.go", `package main; import _ "github.com/nats-io/nats-server/v2/server"`, "may be imported only in [internal/natsd]"},
		{"nats-server at home", "internal/natsd/a.go", `package natsd; import _ "github.com/nats-io/nats-server/v2/server"`, ""},
		{"nats.go in a stage", "router/a.go", `package router; import _ "github.com/nats-io/nats.go/jetstream"`, "may be imported only in [internal/bus"},
		{"nats.go in the service door", "ingest/service.go", `package ingest; import _ "github.com/nats-io/nats.go/micro"`, "may be imported only in"},
		{"nats.go in the bus", "internal/bus/service.go", `package bus; import _ "github.com/nats-io/nats.go/micro"`, ""},
		{"sql elsewhere", "router/a.go", `package router; import _ "database/sql"`, "may be imported only in [sink]"},
		{"sql in the sink", "sink/sqlite/a.go", `package sqlite; import _ "modernc.org/sqlite"`, ""},
		{"promauto", "sink/a.go", `package sink; import _ "github.com/prometheus/client_golang/prometheus/promauto"`, "may be imported only in []"},
		{"unknown folder", "utils/a.go", `package utils`, "not in the layout"},
		{"init", "router/a.go", `package router; func init() {}`, "init() hides order"},
		{"init method", "router/a.go", `package router; type t struct{}; func (t) init() {}`, ""},
		{"default client", "router/a.go", `package router; import "net/http"; var _ = http.DefaultClient`, "shared by the whole process"},
		{"default client, renamed", "router/a.go", `package router; import h "net/http"; var _ = h.Get`, "shared by the whole process"},
		{"own client", "router/a.go", `package router; import "net/http"; var _ = http.Client{}`, ""},
		{"default mux", "ingest/a.go", `package ingest; import "net/http"; var _ = http.HandleFunc`, "shared by the whole process"},
		{"default registry", "sink/a.go", `package sink; import "github.com/prometheus/client_golang/prometheus"; var _ = prometheus.MustRegister`, "shared by the whole process"},
		{"global tracer", "internal/x/a.go", `package x; import "go.opentelemetry.io/otel"; var _ = otel.SetTracerProvider`, "shared by the whole process"},
		{"exit below main", "cmd/weir/serve.go", `package main; import "os"; func f() { os.Exit(1) }`, "shared by the whole process"},
		{"exit in main", "cmd/weir/main.go", `package main; import "os"; func main() { os.Exit(1) }`, ""},
		{"registry", "inference/a.go", `package inference; var backends = map[string]int{}; func Register(n string) { backends[n] = 1 }`, "changed at run time"},
		{"table", "inference/a.go", `package inference; var codes = map[string]int{"a": 1}; func f() int { return codes["a"] }`, ""},
		{"shadowed table", "inference/a.go", `package inference; var m = map[string]int{}; func f() { m := map[string]int{}; m["a"] = 1 }`, ""},
		{"counter", "inference/a.go", `package inference; var n int; func f() { n++ }`, "changed at run time"},
		{"lock", "inference/a.go", `package inference; import "sync"; var mu sync.Mutex`, "guards package-level state"},
		{"subject literal", "router/a.go", `package router; const s = "llm.work.x"`, "belongs in schemas"},
		{"header literal", "router/a.go", "package router; const s = `Llm-Frame`", "belongs in schemas"},
		{"subject in schemas", "schemas/a.go", `package schemas; const s = "llm.work.*"`, ""},
		{"long file", "router/a.go", long, "split it before 500"},
		{"long test file", "router/a_test.go", long, ""},
		{"skipped test", "router/a_test.go", `package router; import "testing"; func TestX(t *testing.T) { t.Skip("later") }`, "proves nothing"},
		{"test across stages", "ingest/a_test.go", `package ingest; import _ "github.com/weir-llm/weir/router"; func init() {}`, ""},
		{"another module", "tools/go.mod", "module tools", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := check(t, fstest.MapFS{tt.file: {Data: []byte(tt.code)}})
			if tt.want == "" {
				if len(got) > 0 {
					t.Errorf("found %q in code that keeps the rules", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("found %q, want one violation with %q", got, tt.want)
			}
		})
	}
}
