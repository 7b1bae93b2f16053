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
	SlowStart Duration `yaml:"slow_start,omitempty" doc:"How long a backend takes to get its whole share after it was out of service; default 5s."`
}

// Breaker says when a backend is cut off because its calls fail.
type Breaker struct {
	Window         Duration `yaml:"window,omitempty" doc:"Calls that count are not older; default 10s."`
	MinRequests    int      `yaml:"min_requests,omitempty" doc:"Calls in the window below which nothing is concluded; default 20."`
	FailurePercent int      `yaml:"failure_percent,omitempty" doc:"Failed calls in a hundred from which on a backend gets none; default 50. A 4xx, a 429 and a cancel are no failures."`
	Open           Duration `yaml:"open,omitempty" doc:"How long it gets none the first time, and twice as long each time in a row; default 5s."`
	MaxOpen        Duration `yaml:"max_open,omitempty" doc:"Longest time that it gets none before it is probed again; default 60s."`
	Probes         int      `yaml:"probes,omitempty" doc:"Calls that must succeed then before it gets all again; default 3."`
}

// Adaptive makes the calls that run at once on a backend follow its time to first token.
type Adaptive struct {
	Enabled bool     `yaml:"enabled,omitempty" doc:"Fewer calls run at once, down to one, when first tokens come late, and up to max_in_flight when they do not; default false."`
	Ceiling Duration `yaml:"ceiling,omitempty" doc:"Too late whatever is usual: nine of ten first tokens must come within it; default half of timeouts.first_token."`
	Floor   Duration `yaml:"floor,omitempty" doc:"Never too late, whatever is usual; default 200ms."`
}

func (n *Network) check() *configError {
	for _, list := range []struct {
		key   string
		texts []string
	}{{"network.deny", n.Deny}, {"network.allow", n.Allow}} {
		for i, text := range list.texts {
			if _, err := parseNetwork(text); err != nil {
				return problem(fmt.Sprintf("%s[%d]", list.key, i), "write an address such as 10.0.0.1, or a network such as 10.0.0.0/8", "%q is neither an address nor a network", text)
			}
		}
	}
	return nil
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
func checkBalance(key string, m Model) *configError {
	if err := m.Breaker.config().Validate(); err != nil {
		return problem(join(key, "breaker"), "", "%v", err)
	}
	if !m.Adaptive.Enabled && m.Adaptive != (Adaptive{}) {
		return problem(join(key, "adaptive"), "set enabled: true, or remove it", "its settings have no effect")
	}
	if a := m.adaptive(); a != nil {
		if err := a.Validate(); err != nil {
			return problem(join(key, "adaptive"), "", "%v", err)
		}
	}
	return nil
}

// connection is how the server of a backend is reached.
func (b Backend) connection(addresses upstream.Addresses) upstream.Connection {
	return upstream.Connection{Addresses: addresses, Proxy: b.Proxy, CA: b.CA, H2C: b.H2C}
}

// checkConnection checks the weight of a backend and how it is reached.
func checkConnection(at string, b Backend) *configError {
	if b.Weight < 0 || b.Weight > balance.MaxWeight {
		return problem(join(at, "weight"), fmt.Sprintf("use 1 to %d", balance.MaxWeight), "%d is out of range", b.Weight)
	}
	if b.Protocol == "echo" {
		if b.Proxy != "" || b.CA != "" || b.H2C {
			return problem(at, "remove proxy, ca and h2c", "an echo backend calls nobody")
		}
		return nil
	}
	if overGRPC(b.Protocol) {
		if b.Proxy != "" || b.H2C {
			return problem(at, "remove proxy and h2c", "a backend over gRPC is connected to directly, over HTTP/2")
		}
		return nil
	}
	if err := b.connection(upstream.Addresses{}).Validate(b.URL); err != nil {
		return problem(at, "", "%v", err)
	}
	return nil
}
