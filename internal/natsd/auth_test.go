package natsd

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/weir-llm/weir/schemas"
)

func TestAccounts(t *testing.T) {
	s := startServer(t, testConfig(t.TempDir()))
	for account, jetStream := range map[string]bool{schemas.AccountPipeline: true, schemas.AccountEdge: false, schemas.AccountSystem: false} {
		acc, err := s.nats.LookupAccount(account)
		if err != nil {
			t.Fatalf("account %s: %v", account, err)
		}
		if got := acc.JetStreamEnabled(); got != jetStream {
			t.Errorf("account %s has JetStream: %v, want %v", account, got, jetStream)
		}
	}
	if got := s.nats.SystemAccount().Name; got != schemas.AccountSystem {
		t.Errorf("system account is %s", got)
	}
}

// Out of the account of tenants nothing goes by itself, and of the pipeline only committed frames come in.
func TestEdgeAccount(t *testing.T) {
	users := newUsers(false)
	password := users.add("stranger", schemas.AccountEdge)
	s, err := start(testConfig(t.TempDir()), users)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	stage := pipeline(t, s)
	edge := connect(t, s.ClientURL(), nats.UserInfo("stranger", password))
	ingest := connect(t, s.ClientURL(), nats.UserInfo(s.EdgeUser()))

	t.Run("ingest is reached in the account", func(t *testing.T) { crosses(t, edge, ingest, "llm.chat.acme.echo", true) })
	t.Run("replies come out", func(t *testing.T) { crosses(t, stage, edge, "llm.replies.acme.r1", true) })
	for _, subject := range []string{
		"llm.chat.acme.echo", "llm.resume.acme.r1", "llm.cancel.acme.r1", "llm.requests.acme.echo", "llm.chunks.acme.r1",
		"llm.replies.acme.r1", "llm.results.acme.r1", "llm.work.echo", "$JS.API.INFO", "_INBOX.x", "_INBOX_pipe.x",
	} {
		t.Run(subject+" stays outside", func(t *testing.T) { crosses(t, edge, stage, subject, false) })
	}
	for _, subject := range []string{"llm.requests.acme.echo", "llm.results.acme.r1", "llm.cancel.acme.r1", "_INBOX.x"} {
		t.Run(subject+" stays inside", func(t *testing.T) { crosses(t, stage, edge, subject, false) })
	}
	t.Run("the pipeline sees the service", func(t *testing.T) {
		service, err := micro.AddService(ingest, micro.Config{Name: "weir", Version: "1.0.0"})
		if err != nil {
			t.Fatal(err)
		}
		defer service.Stop()
		flush(t, ingest)
		if m, err := stage.Request("$SRV.PING", nil, time.Minute); err != nil || !strings.Contains(string(m.Data), `"name":"weir"`) {
			t.Errorf("ping: %v (%v)", m, err)
		}
	})
	t.Run("no JetStream", func(t *testing.T) {
		_, err := streams(t, edge).AccountInfo(timeout(t))
		if !errors.Is(err, jetstream.ErrJetStreamNotEnabled) && !errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
			t.Errorf("AccountInfo: %v, want that JetStream is not enabled", err)
		}
	})
}

// crosses publishes on one connection and reports whether another one sees it. A marker that does cross is sent after
// it, so that the absence of a message is known without waiting.
func crosses(t *testing.T, from, to *nats.Conn, subject string, want bool) {
	t.Helper()
	sub, err := to.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	flush(t, to)
	if err := from.Publish(subject, []byte("x")); err != nil {
		t.Fatal(err)
	}
	flush(t, from) // the server has routed it when it answers the ping
	flush(t, to)
	n, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if got := n == 1; got != want {
		t.Errorf("%s crossed: %v, want %v", subject, got, want)
	}
}

func flush(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
}

func TestOpenAndClosed(t *testing.T) {
	for _, tt := range []struct {
		name string
		open bool
		opts []nats.Option
		want bool
	}{
		{"closed, no credentials", false, nil, false},
		{"closed, wrong password", false, []nats.Option{nats.UserInfo(pipelineUser, "guess")}, false},
		{"closed, unknown user", false, []nats.Option{nats.UserInfo("nobody", "")}, false},
		{"open, no credentials", true, nil, true},
		{"open, wrong password", true, []nats.Option{nats.UserInfo(pipelineUser, "guess")}, false},
		{"open, a token nobody knows", true, []nats.Option{nats.Token("guess")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Open = tt.open
			s := startServer(t, cfg)
			nc, err := nats.Connect(s.ClientURL(), append(tt.opts, nats.Timeout(time.Minute))...)
			if err == nil {
				defer nc.Close()
			}
			if got := err == nil; got != tt.want {
				t.Fatalf("connected: %v (%v), want %v", got, err, tt.want)
			}
			if !tt.want {
				if !errors.Is(err, nats.ErrAuthorization) {
					t.Errorf("refused with %v, want an authorization error", err)
				}
				return
			}
			if _, err := streams(t, nc).AccountInfo(timeout(t)); err != nil {
				t.Errorf("an open connection has no JetStream: %v", err)
			}
		})
	}
}

func TestOpenIsForLoopbackOnly(t *testing.T) {
	u := newUsers(true)
	inProcess, other := net.Pipe()
	defer inProcess.Close()
	defer other.Close()
	for addr, want := range map[net.Addr]bool{
		&net.TCPAddr{IP: net.ParseIP("127.0.0.1")}:        true,
		&net.TCPAddr{IP: net.ParseIP("::1")}:              true,
		&net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1")}: true,
		&net.TCPAddr{IP: net.ParseIP("10.0.0.1")}:         false,
		&net.TCPAddr{IP: net.ParseIP("fe80::1")}:          false,
		inProcess.RemoteAddr():                            false,
	} {
		if _, err := u.grant(&server.ClientOpts{}, addr); (err == nil) != want {
			t.Errorf("%v without credentials: %v, want admitted %v", addr, err, want)
		}
	}
	if _, err := u.grant(&server.ClientOpts{}, nil); err == nil {
		t.Error("a connection without an address was admitted without credentials")
	}
}
