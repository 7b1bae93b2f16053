package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/weir-llm/weir/schemas"
)

const (
	// serviceGroup is the queue group in which the processes of a service share its requests.
	serviceGroup = "weir"
	// pendingRequests and pendingBytes bound what waits in front of an endpoint, whose handler does not block.
	pendingRequests = 4096
	pendingBytes    = 64 << 20
)

// Endpoint is a subject on which a [Service] takes requests.
type Endpoint struct {
	Name, Subject string
	Handle        func(*Ask) // must not block
	Edge          bool       // for tenants only, and not in the account of the pipeline
}

// ServiceConfig describes a service to those who look for it with `nats micro`.
type ServiceConfig struct {
	Name, Version, Description string
	Endpoints                  []Endpoint
	Stats                      func(endpoint string) any // optional: what `nats micro stats` shows beside the framework's own
}

// Service answers requests of core NATS, built on the micro framework: for trusted callers in the account of the pipeline
// and, with Config.Edge, for tenants in account EDGE. In each it has a connection of its own, so that no answer delays a
// frame, and so that the reply subject is the very one that the caller gave (docs/adr/0007).
type Service struct {
	doors []*serviceDoor
}

// Serve offers a service. Any number of processes may offer the same one; each request goes to one of them. The caller
// closes the service.
func (b *Bus) Serve(cfg ServiceConfig) (*Service, error) {
	s := &Service{}
	if err := s.open(b, cfg, false); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if b.cfg.Edge == nil {
		return s, nil
	}
	if err := s.open(b, cfg, true, b.cfg.Edge.option()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// option takes the place of every credential of the pipeline. The inbox is one that no tenant's name can give.
func (c *Credentials) option() nats.Option {
	return func(o *nats.Options) error {
		o.User, o.Password, o.Token, o.Nkey, o.UserJWT, o.SignatureCB = c.Username, c.Password, "", "", nil, nil
		o.InboxPrefix = "_INBOX"
		if c.CredsFile != "" {
			return nats.UserCredentials(c.CredsFile)(o)
		}
		return nil
	}
}

func (s *Service) open(b *Bus, cfg ServiceConfig, edge bool, options ...nats.Option) error {
	d := &serviceDoor{edge: edge, callers: make(map[string]func())}
	name, account := b.cfg.Name+"-service", "of the pipeline"
	if edge {
		name, account = b.cfg.Name+"-edge", "EDGE"
	}
	var err error
	if d.conn, err = b.connect(name, options...); err != nil {
		return err
	}
	s.doors = append(s.doors, d)
	d.probes = d.conn.NewInbox()
	if _, err := d.conn.Subscribe(d.probes+".*", d.probed); err != nil {
		return fmt.Errorf("offer the service %s: %w", cfg.Name, err)
	}
	if d.service, err = micro.AddService(d.conn, d.config(cfg, account)); err != nil {
		return fmt.Errorf("offer the service %s: %w", cfg.Name, err)
	}
	for _, e := range cfg.Endpoints {
		if e.Edge && !edge {
			continue
		}
		err := d.service.AddEndpoint(e.Name, d.handler(e), micro.WithEndpointSubject(e.Subject),
			micro.WithEndpointQueueGroup(serviceGroup), micro.WithEndpointPendingLimits(pendingRequests, pendingBytes))
		if err != nil {
			return fmt.Errorf("offer %s: %w", e.Subject, err)
		}
	}
	return wrap("offer the service "+cfg.Name, d.conn.FlushTimeout(tryTimeout))
}

// Drain takes no more requests: when it returns, the server sends them elsewhere, and those that had come are handled.
func (s *Service) Drain(ctx context.Context) error {
	var errs []error
	for _, d := range s.doors {
		errs = append(errs, d.service.Stop())
	}
	for _, d := range s.doors {
		errs = append(errs, d.drained(ctx))
	}
	return wrap("drain the service", errors.Join(errs...))
}

// Close flushes what was sent and closes the connections. No answer may be under way.
func (s *Service) Close() error {
	var errs []error
	for _, d := range s.doors {
		if d.service != nil {
			errs = append(errs, d.service.Stop())
		}
		errs = append(errs, flush(d.conn))
		d.conn.Close()
	}
	return wrap("close the service", errors.Join(errs...))
}

// serviceDoor is a service in one account.
type serviceDoor struct {
	conn    *nats.Conn
	service micro.Service
	edge    bool

	probes  string // inbox on which the server says that nobody listens to an answer
	next    atomic.Uint64
	mu      sync.Mutex
	callers map[string]func() // by the last token of their probe
}

func (d *serviceDoor) config(cfg ServiceConfig, account string) micro.Config {
	c := micro.Config{
		Name: cfg.Name, Version: cfg.Version, Description: cfg.Description, Metadata: map[string]string{"account": account},
	}
	if cfg.Stats != nil {
		c.StatsHandler = func(e *micro.Endpoint) any { return cfg.Stats(e.Name) }
	}
	return c
}

// lives counts how often the connection was made: what was sent just before it was lost may be lost with it. The library
// counts before anything can be sent anew, and tells of it in a callback only some time after.
func (d *serviceDoor) lives() uint64 { return d.conn.Stats().Reconnects }

func (d *serviceDoor) handler(e Endpoint) micro.Handler {
	return micro.HandlerFunc(func(r micro.Request) {
		e.Handle(&Ask{
			Subject: r.Subject(), Reply: r.Reply(), Header: schemas.Header(r.Headers()), Data: r.Data(), Edge: d.edge,
			door: d, request: r, lives: d.lives(),
		})
	})
}

// drained waits until the subscriptions of a stopped service are gone at the server and have delivered what they held.
func (d *serviceDoor) drained(ctx context.Context) error {
	for d.conn.NumSubscriptions() > 1 { // the one of the probes stays
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
