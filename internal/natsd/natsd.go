// Package natsd runs the embedded nats-server of `weir serve`.
//
// It owns one standalone server on one store directory. **No two processes ever write one store, and no store that Weir
// did not make is ever touched**: the directory is locked for as long as the server lives, and marked when it is
// created. The three accounts of the design exist from the first start, so that nothing about accounts changes when the
// first key comes. Who may connect, and as what, is decided by whoever called [Server.Admit].
//
// The embedded server is for one machine. A cluster is three or more external servers with the shipped nats.conf.
package natsd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-llm/weir/schemas"
)

const (
	readyWithin    = 10 * time.Second
	memoryStore    = 64 << 20 // no stream of Weir lives in memory
	unlimitedStore = 1 << 50  // each stream has its bound, and Room watches the disk
	pingInterval   = 20 * time.Second
	maxPingsOut    = 2
	directoryPerms = 0o700
)

// Config of the embedded server.
type Config struct {
	Dir        string       // required: the data directory; the store and the operator's context are made in it
	Listen     string       // host:port, port 0 for any; "" for no listener, in-process connections only
	Open       bool         // loopback connections without credentials are in account LLM, until Admit decides
	SyncAlways bool         // fsync before every acknowledgement (durability power)
	TLS        TLS          // of the listener; without a certificate it is plain
	Logger     *slog.Logger // optional
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("natsd: Dir is empty: name the data directory")
	}
	return nil
}

// Server is a running embedded nats-server. Its methods are safe for concurrent use.
type Server struct {
	nats        *server.Server
	users       *users
	dir         string
	lock        *os.File
	password    string
	edge        string // password of edgeUser
	contextFile string
	url         string
	close       sync.Once
}

// New locks and marks the store directory, starts the server and returns when it takes connections. Whoever calls it
// closes the server.
func New(cfg Config) (*Server, error) { return start(cfg, newUsers(cfg.Open)) }

func start(cfg Config, users *users) (_ *Server, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := &serverLog{logger: cfg.Logger}
	if log.logger == nil {
		log.logger = slog.New(slog.DiscardHandler)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	lock, err := openStore(opts.StoreDir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		dir: opts.StoreDir, lock: lock, users: users,
		password: users.add(pipelineUser, schemas.AccountPipeline), edge: users.add(edgeUser, schemas.AccountEdge),
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()

	operator, err := readOperator(cfg.Dir)
	if err != nil {
		return nil, err
	}
	users.set(operatorUser, schemas.AccountPipeline, operator)
	opts.CustomClientAuthentication = users
	if s.nats, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("set up the embedded nats-server: %w", err)
	}
	users.accounts = s.nats
	s.nats.SetLoggerV2(log, false, false, false)
	s.nats.Start()
	if err := log.fatal(); err != nil {
		return nil, fmt.Errorf("start the embedded nats-server: %w", err)
	}
	if !s.nats.ReadyForConnections(readyWithin) {
		return nil, fmt.Errorf("the embedded nats-server was not ready within %s", readyWithin)
	}
	if s.url, err = s.clientURL(cfg.TLS); err != nil {
		return nil, err
	}
	if cfg.Listen != "" {
		s.contextFile, err = writeOperator(cfg, s.ClientURL(), operator)
	}
	return s, err
}

// options is the server's configuration; authentication is added by the caller.
func options(cfg Config) (*server.Options, error) {
	o := &server.Options{
		ServerName:             "weir",
		NoSigs:                 true, // the command owns the signals
		NoLog:                  true, // replaced by the slog adapter
		JetStream:              true,
		StoreDir:               filepath.Join(cfg.Dir, storeFolder),
		SyncAlways:             cfg.SyncAlways,
		JetStreamMaxMemory:     memoryStore,
		JetStreamMaxStore:      unlimitedStore,
		MaxPayload:             1 << 20,
		PingInterval:           pingInterval,
		MaxPingsOut:            maxPingsOut,
		DisableJetStreamBanner: true,
	}
	if err := o.ProcessConfigString(accounts); err != nil {
		return nil, fmt.Errorf("accounts of the embedded nats-server: %w", err)
	}
	if cfg.Listen == "" {
		o.DontListen = true
		return o, nil
	}
	if err := secure(o, cfg); err != nil {
		return nil, err
	}
	host, port, err := bindable(cfg.Listen)
	if err != nil {
		return nil, err
	}
	o.Host, o.Port = host, port
	return o, nil
}

// bindable reports whether the address can be listened on now. The server itself would only log that it cannot.
func bindable(address string) (host string, port int, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", 0, fmt.Errorf("listen for NATS clients on %q: %w: choose another address, or port 0 for any", address, err)
	}
	defer l.Close()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if text == "0" || text == "" {
		return host, server.RANDOM_PORT, nil
	}
	return host, l.Addr().(*net.TCPAddr).Port, nil
}

// InProcessConn returns a connection that no network sees. It needs credentials like any other.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Username of the pipeline's user, which is in account LLM.
func (s *Server) Username() string { return pipelineUser }

// Password of the pipeline's user. It is made anew at every start and lives only in memory.
func (s *Server) Password() string { return s.password }

// EdgeUser is the user of ingest in account EDGE, with a password made anew at every start.
func (s *Server) EdgeUser() (name, password string) { return edgeUser, s.edge }

// ContextFile is the nats CLI context of the operator (`nats --context <file>`), "" without a listener.
func (s *Server) ContextFile() string { return s.contextFile }

// ClientURL is where clients connect, with the real port; "" without a listener. With TLS its host is one that the
// certificate has, if there is any.
func (s *Server) ClientURL() string { return s.url }

func (s *Server) clientURL(t TLS) (string, error) {
	addr, ok := s.nats.Addr().(*net.TCPAddr)
	if !ok {
		return "", nil
	}
	host, err := t.hostname(addr.IP)
	scheme := "nats"
	if t.enabled() {
		scheme = "tls"
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port)), err
}

// Close stops the server, waits until its store is flushed, and gives the store free. Close connections first: what
// they publish while Close runs is refused. It may be called more than once.
func (s *Server) Close() {
	s.close.Do(func() {
		if s.nats != nil {
			s.nats.Shutdown()
			s.nats.WaitForShutdown()
		}
		s.lock.Close()
	})
}
