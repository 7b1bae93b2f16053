package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// layout is how the stages are spread over processes.
type layout string

const (
	separate   layout = "separate"   // each stage a process, two workers and two routers, one nats-server
	replicated layout = "replicated" // the same on a cluster of three nats-servers, with three replicas of each stream
	pieces     layout = "all pieces" // as replicated, with a tenant that has limits
	single     layout = "serve"      // everything in one
	patient    layout = "long lease" // as separate, with a lease that nobody can wait for
	drowsy     layout = "drowsy"     // as separate, with processes that fall asleep at any moment

	drowsyCluster layout = "drowsy cluster" // as replicated, with such processes
)

// clustered reports whether NATS is a cluster.
func (l layout) clustered() bool { return l == replicated || l == pieces || l == drowsyCluster }

// victims are the processes of a layout that get killed.
func (l layout) victims() []string {
	switch l {
	case single:
		return []string{"serve"}
	case replicated:
		return []string{leaderAndDisk}
	case patient, pieces, drowsy, drowsyCluster:
		return nil // their cells are of their own kind
	}
	return []string{"ingest", activeRouter, "worker-1", "sink", "nats"}
}

// lease of the deliveries, short so that a take-over is soon seen.
const lease = 2 * time.Second

func (l layout) lease() time.Duration {
	if l == patient {
		return cellTimeout
	}
	return lease
}

// cluster is a running layout.
type cluster struct {
	dir, work  string
	layout     layout
	http, nats string
	admin      map[string]string   // of a stage's process
	nodes      map[string]natsNode // of a NATS cluster
	cells      int                 // that ran

	mu      sync.Mutex
	procs   map[string]*exec.Cmd
	started map[string]time.Time
}

func newCluster(dir string, l layout) (*cluster, error) {
	c := &cluster{dir: dir, layout: l, admin: map[string]string{}, procs: map[string]*exec.Cmd{}, started: map[string]time.Time{}}
	var err error
	if c.work, err = os.MkdirTemp(dir, string(l)+"-"); err != nil {
		return nil, err
	}
	ports, err := freePorts(12)
	if err != nil {
		return nil, err
	}
	c.http, c.nats = ports[0], ports[1]
	for i, name := range c.names() {
		c.admin[name] = ports[2+i]
	}
	if l.clustered() {
		if err := c.writeNodes(); err != nil {
			return nil, err
		}
	}
	return c, c.writeConfig()
}

func (c *cluster) writeConfig() error {
	config := fmt.Sprintf("lease: %s\nreplicas: %d\ndata_dir: %s\nmodels:\n  echo:\n    backends: [{name: echo, protocol: echo, max_in_flight: 4}]\n"+
		"  tight:\n    backends: [{name: tight, protocol: echo, max_in_flight: 1}]\n"+
		"  "+finalModel+":\n    backends: [{name: final, protocol: echo, continue: none, max_in_flight: 4}]\n", c.layout.lease(), max(len(c.nodes), 1), c.work)
	if c.layout == pieces {
		config += pieceLimits
	}
	return os.WriteFile(c.config(), []byte(config), 0o600)
}

// nextCell numbers the cells, so that the requests of each have ids of their own.
func (c *cluster) nextCell() int { c.cells++; return c.cells }

func (c *cluster) config() string { return filepath.Join(c.work, "weir.yaml") }

// names of the processes in the order of starting.
func (c *cluster) names() []string {
	stages := []string{"sink", "worker-1", "worker-2", "router-1", "router-2", "ingest"}
	switch {
	case c.layout == single:
		return []string{"serve"}
	case c.layout.clustered():
		return slices.Concat(nodeNames, stages)
	}
	return slices.Concat([]string{"nats"}, stages)
}

// url is where the stages connect to NATS.
func (c *cluster) url() string {
	if !c.layout.clustered() {
		return "nats://" + c.nats
	}
	var urls []string
	for _, name := range nodeNames {
		urls = append(urls, "nats://"+c.nodes[name].client)
	}
	return strings.Join(urls, ",")
}

func (c *cluster) startAll(ctx context.Context) error {
	for _, name := range c.nodeNames() { // none is ready before it has met the others
		if err := c.start(name); err != nil {
			return err
		}
	}
	for _, name := range c.names() {
		if c.procs[name] == nil {
			if err := c.start(name); err != nil {
				return err
			}
		}
		if err := c.waitReady(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// start starts a process of the layout.
func (c *cluster) start(name string) error {
	log, err := os.OpenFile(filepath.Join(c.work, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command := c.command(name)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.mu.Lock()
	c.procs[name], c.started[name] = command, time.Now()
	c.mu.Unlock()
	return nil
}

func (c *cluster) command(name string) *exec.Cmd {
	weir := func(args ...string) *exec.Cmd {
		args = append(args, "--config", c.config(), "--admin", c.admin[name], "--http", c.http)
		return exec.Command(filepath.Join(c.dir, "weir"), args...)
	}
	url := c.url()
	if _, ok := c.nodes[name]; ok {
		return exec.Command(filepath.Join(c.dir, "nats-server"), "-c", c.nodeConfig(name))
	}
	switch name {
	case "nats":
		host, port, _ := net.SplitHostPort(c.nats) // made by freePorts
		return exec.Command(filepath.Join(c.dir, "nats-server"), "-js", "-sd", filepath.Join(c.work, "nats"), "-a", host, "-p", port)
	case "serve":
		return weir("serve", "--nats", c.nats)
	case "worker-1", "worker-2":
		return weir("inference", "--nats", url)
	case "router-1", "router-2":
		return weir("router", "--nats", url)
	}
	return weir(name, "--nats", url)
}

// waitReady blocks until a process can take work.
func (c *cluster) waitReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if c.ready(ctx, name) {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(c.work, name+".log"))
			return fmt.Errorf("%s is not ready: %w\n%s", name, ctx.Err(), log[max(0, len(log)-2000):])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *cluster) ready(ctx context.Context, name string) bool {
	if node, ok := c.nodes[name]; ok {
		return answers(ctx, "http://"+node.monitor+"/healthz")
	}
	if name == "nats" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.nats)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}
	return answers(ctx, "http://"+c.admin[name]+"/readyz")
}

// answers reports whether GET answers 200.
func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := plain.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// plain asks without keeping connections, so that none outlives the process it goes to.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

// kill ends a process at once, as power or the kernel would, and waits until it is gone.
func (c *cluster) kill(name string) error {
	if err := c.signal(name, syscall.SIGKILL); err != nil {
		return err
	}
	_ = c.procs[name].Wait() // it was killed: that is its exit status
	return nil
}

func (c *cluster) signal(name string, s os.Signal) error {
	c.mu.Lock()
	command := c.procs[name]
	c.mu.Unlock()
	return command.Process.Signal(s)
}

// stopAll ends everything gently, in the order of the flow.
func (c *cluster) stopAll() error {
	names := c.names()
	var errs []error
	for i := len(names) - 1; i >= 0; i-- {
		command := c.procs[names[i]]
		if command == nil || command.ProcessState != nil {
			continue
		}
		errs = append(errs, command.Process.Signal(syscall.SIGTERM))
		killer := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
		if err := command.Wait(); err != nil && !strings.HasPrefix(names[i], "nats") {
			errs = append(errs, fmt.Errorf("%s did not stop cleanly: %w", names[i], err))
		}
		killer.Stop()
	}
	return errors.Join(errs...)
}

// freePorts finds loopback addresses that nothing listens on. They are not of those that a system gives to whoever asks for any
// port, as a caller does that connects: one of them could be taken while the process it belongs to is down.
func freePorts(n int) (addresses []string, err error) {
	for tries := 0; len(addresses) < n; tries++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err != nil && tries < 1000 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer listener.Close() // when all are found, so that none is found twice
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
