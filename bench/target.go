package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// benchModel is the model of every request.
const benchModel = "bench"

// target is a server under load.
type target struct {
	name    string
	addr    string
	process *process
	ready   time.Duration // from the start of the process to its readiness
}

// startMock starts this program again as the mock upstream, so that its CPU is its own.
func startMock(ctx context.Context, procs int) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return startTarget(ctx, "direct", addr, "/v1/models", self, "mock", "--listen", addr, "--procs", strconv.Itoa(procs))
}

// startNginx starts nginx as a plain streaming proxy in front of the upstream.
func startNginx(ctx context.Context, program, dir, upstream string) (*target, error) {
	program, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%w: install nginx (on Debian: apt-get install nginx-light), or leave it out with --targets", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(nginxConfig(dir, addr, upstream)), 0o600); err != nil {
		return nil, err
	}
	return startTarget(ctx, "nginx", addr, "/v1/models", program, "-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log"))
}

func nginxConfig(dir, addr, upstream string) string {
	return strings.NewReplacer("DIR", dir, "ADDR", addr, "UPSTREAM", upstream).Replace(`daemon off;
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/error.log warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  upstream mock { server UPSTREAM; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen ADDR;
    keepalive_requests 1000000000;
    location / {
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`)
}

// startWeir starts `weir serve` with everything at its default except the model, which the upstream serves, and the
// durability.
func startWeir(ctx context.Context, program, dir, upstream, durability string) (*target, error) {
	var addrs [3]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	file := filepath.Join(dir, "weir.yaml")
	config := fmt.Sprintf(`models:
  %s:
    backends:
      - {name: mock, protocol: openai, url: "http://%s/v1", max_in_flight: 512}
durability: %s
`, benchModel, upstream, durability)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return startTarget(ctx, durability, addrs[0], "/readyz", program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--http", addrs[0], "--nats", addrs[1], "--admin", addrs[2], "--log-level", "warn", "--json")
}

// startTarget starts a server and waits until GET path answers 200.
func startTarget(ctx context.Context, name, addr, path, program string, args ...string) (*target, error) {
	begin := time.Now()
	p, err := startProcess(program, args...)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for deadline := begin.Add(30 * time.Second); time.Now().Before(deadline); {
		if answers(ctx, client, "http://"+addr+path) {
			return &target{name: name, addr: addr, process: p, ready: time.Since(begin)}, nil
		}
		select {
		case <-p.exited:
			return nil, fmt.Errorf("%s ended before it was ready: %s", name, &p.output)
		case <-ctx.Done():
			_ = p.Close()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	_ = p.Close()
	return nil, fmt.Errorf("%s was not ready within 30 s: %s", name, &p.output)
}

func answers(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
