package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/natsd"
)

// hub is a NATS server in this process, with which one stage can be measured in a process of its own: this program is all
// the others.
type hub struct {
	dir    string
	server *natsd.Server
	bus    *bus.Bus
}

func startHub(ctx context.Context, dir string) (_ *hub, err error) {
	h := &hub{dir: dir}
	if h.server, err = natsd.New(natsd.Config{Dir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Open: true}); err != nil {
		return nil, err
	}
	h.bus, err = bus.Connect(ctx, bus.Config{InProcess: h.server, Username: h.server.Username(), Password: h.server.Password(), Name: "bench"})
	if err == nil {
		err = h.bus.Setup(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *hub) close() error {
	var err error
	if h.bus != nil {
		err = h.bus.Close()
	}
	h.server.Close()
	return err
}

// stage starts a stage of weir in a process of its own.
func (h *hub) stage(ctx context.Context, program, name, config string) (*apart, error) {
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(h.dir, name+".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	url := strings.Replace(h.server.ClientURL(), "nats://", fmt.Sprintf("nats://%s:%s@", h.server.Username(), h.server.Password()), 1)
	t, err := startTarget(ctx, name, admin, "/readyz", program, "--config", file, "--log-level", "warn", "--json", name,
		"--nats", url, "--admin", admin, "--data-dir", filepath.Join(h.dir, name))
	if err != nil {
		return nil, err
	}
	return &apart{target: t, admin: admin}, nil
}
