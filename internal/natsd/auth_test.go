package natsd

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

// A tenant's account reaches the services and the replies of the pipeline, and nothing else.
func TestEdgeAccount(t *testing.T) {
	users := newUsers(false)
	password := users.add("tenant", schemas.AccountEdge)
	s, err := start(testConfig(t.TempDir()), users)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	stage := pipeline(t, s)
	edge := connect(t, s.ClientURL(), nats.UserInfo("tenant", password))

	t.Run("service answers with a stream", func(t *testing.T) {
		sub, err := stage.Subscribe("llm.chat.*.*", func(m *nats.Msg) {
			for _, part := range []string{"a", "b", ""} {
				if err := m.Respond([]byte(part)); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		flush(t, stage)
		inbox, err := edge.SubscribeSync(edge.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := edge.PublishRequest("llm.chat.acme.echo", inbox.Subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"a", "b", ""} {
			if m, err := inbox.NextMsg(5 * time.Second); err != nil || string(m.Data) != want {
				t.Fatalf("answer %v (%v), want %q", m, err, want)
			}
		}
	})
	t.Run("cancel goes in", func(t *testing.T) { crosses(t, edge, stage, "llm.cancel.acme.r1", true) })
	t.Run("replies come out", func(t *testing.T) { crosses(t, stage, edge, "llm.replies.acme.r1", true) })
	t.Run("requests stay outside", func(t *testing.T) { crosses(t, edge, stage, "llm.requests.acme.echo", false) })
	t.Run("chunks stay outside", func(t *testing.T) { crosses(t, edge, stage, "llm.chunks.acme.r1", false) })
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
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
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
			nc, err := nats.Connect(s.ClientURL(), tt.opts...)
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
