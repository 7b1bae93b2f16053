package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/inference/upstream"
)

// Network says which addresses the backends may have.
type Network struct {
	AllowPrivate *bool    `yaml:"allow_private,omitempty" doc:"Whether backends may be on this machine and in private networks; default true."`
	Deny         []string `yaml:"deny,omitempty" doc:"Addresses and networks that are never connected to."`
	Allow        []string `yaml:"allow,omitempty" doc:"Addresses and networks that are connected to although they are refused otherwise, such as link-local ones."`
}

// Balance says how the calls of a model are spread over its backends.
type Balance struct {
	Affinity  bool     `yaml:"affinity,omitempty" doc:"Requests that begin alike, such as the turns of a conversation, go to the same backend while it is not much busier than the others; for servers that keep what they computed."`
	SlowStart Duration `yaml:"slow_start,omitempty" min:"1ms" max:"1h" doc:"How long a backend takes to get its whole share after it was out of service; default 5s."`
}

// Breaker says when a backend is cut off because its calls fail.
type Breaker struct {
	Window         Duration `yaml:"window,omitempty" min:"10ms" max:"1h" doc:"Calls that count are not older; default 10s."`
	MinRequests    int      `yaml:"min_requests,omitempty" min:"1" max:"1000000" doc:"Calls in the window below which nothing is concluded, and calls that fail one after another and open it at once; default 20."`
	FailurePercent int      `yaml:"failure_percent,omitempty" min:"1" max:"100" doc:"Failed calls in a hundred from which on a backend gets none; default 50. A 4xx, a 429 and a cancel are no failures."`
	Open           Duration `yaml:"open,omitempty" min:"1ms" max:"1h" doc:"How long it gets none the first time, and twice as long each time in a row; default 5s."`
	MaxOpen        Duration `yaml:"max_open,omitempty" min:"1ms" max:"24h" doc:"Longest time that it gets none before it is probed again; default 60s."`
	Probes         int      `yaml:"probes,omitempty" min:"1" max:"1000" doc:"Calls that must succeed then before it gets all again; default 3."`
}

// Adaptive makes the calls that run at once on a backend follow its time to first token.
type Adaptive struct {
	Enabled bool     `yaml:"enabled,omitempty" doc:"Fewer calls run at once, down to one, when first tokens come late, and up to max_in_flight when they do not; default false."`
	Ceiling Duration `yaml:"ceiling,omitempty" min:"1ms" max:"1h" doc:"Too late whatever is usual: nine of ten first tokens must come within it; default half of timeouts.first_token."`
	Floor   Duration `yaml:"floor,omitempty" min:"1ms" max:"1h" doc:"Never too late, whatever is usual; default 200ms."`
}

func (n *Network) check(f *findings) {
	checkNetworks(f, "network.deny", n.Deny)
	checkNetworks(f, "network.allow", n.Allow)
}

func checkNetworks(f *findings, key string, texts []string) {
	for i, text := range texts {
		_, err := parseNetwork(text)
		f.when(err != nil, fmt.Sprintf("%s[%d]", key, i), "write an address such as 10.0.0.1, or a network such as 10.0.0.0/8", "%q is neither an address nor a network", text)
	}
}

// addresses is the policy that connections to backends keep to; the configuration has been checked.
func (n *Network) addresses() upstream.Addresses {
	parse := func(texts []string) (networks []netip.Prefix) {
		for _, text := range texts {
			if network, err := parseNetwork(text); err == nil {
				networks = append(networks, network)
			}
		}
		return networks
	}
	return upstream.Addresses{
		NoPrivate: n.AllowPrivate != nil && !*n.AllowPrivate, Deny: parse(n.Deny), Allow: parse(n.Allow),
	}
}

func (b Breaker) config() balance.Breaker {
	return balance.Breaker{
		Window: time.Duration(b.Window), MinRequests: b.MinRequests, FailureRate: float64(b.FailurePercent) / 100,
		Open: time.Duration(b.Open), MaxOpen: time.Duration(b.MaxOpen), Probes: b.Probes,
	}
}

// adaptive is nil when it is off.
func (m Model) adaptive() *balance.Adaptive {
	if !m.Adaptive.Enabled {
		return nil
	}
	ceiling := time.Duration(m.Adaptive.Ceiling)
	if ceiling == 0 {
		ceiling = m.Timeouts.config().WithDefaults().FirstToken / 2
	}
	return &balance.Adaptive{Ceiling: ceiling, Floor: time.Duration(m.Adaptive.Floor)}
}

// checkBalance checks how calls are spread over the backends of a model.
func checkBalance(f *findings, key string, m Model) {
	if err := m.Breaker.config().Validate(); err != nil {
		f.wrong(join(key, "breaker"), "", "%v", err)
	}
	f.when(!m.Adaptive.Enabled && m.Adaptive != (Adaptive{}), join(key, "adaptive"), "set enabled: true, or remove it", "its settings have no effect")
	if a := m.adaptive(); a != nil {
		if err := a.Validate(); err != nil {
			f.wrong(join(key, "adaptive"), "", "%v", err)
		}
	}
}

// connection is how the server of a backend is reached.
func (b Backend) connection(addresses upstream.Addresses) upstream.Connection {
	return upstream.Connection{Addresses: addresses, Proxy: b.Proxy, CA: b.CA, H2C: b.H2C}
}

// checkConnection checks how a backend is reached that is not called over gRPC.
func checkConnection(f *findings, at string, b Backend) {
	if b.Protocol == "echo" {
		f.when(b.Proxy != "" || b.CA != "" || b.H2C, at, "remove proxy, ca and h2c", "an echo backend calls nobody")
		return
	}
	if !webURL(b.URL) {
		return // which was told
	}
	if err := b.connection(upstream.Addresses{}).Validate(b.URL); err != nil {
		f.wrong(at, "", "%v", err)
	}
}
