package client_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func connect(t *testing.T) (*client.Client, context.Context) {
	t.Helper()
	return ways()[0].connect(t, serverURL)
}

func TestTailAndHistory(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	tail, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now().Add(-time.Second)
	request := words(`"words":["x"],"padding":"` + strings.Repeat("p", schemas.InlineBytes) + `"`)
	request.Tenant = "tail-" + unique()
	id, err := c.Send(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range c.Tail(tail, request.Tenant, began) {
		if err != nil || r.RequestID != id || len(r.Request) < schemas.InlineBytes {
			t.Fatalf("tail: %v", err)
		}
		break
	}
	n := 0
	for r, err := range c.History(ctx, request.Tenant, began) {
		if err != nil || r.RequestID != id {
			t.Fatalf("history: %v", err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("history has %d results, want 1", n)
	}
}

// A service that publishes without a client knows no first frame, so a trusted client waits for what was never sent.
func TestATrustedClientWaits(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, "acme", "never-sent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v, want the end of its context", err)
	}
	if _, err := read(c.Resume(ctx, "acme", "never-sent", 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("resume: %v, want the end of its context", err)
	}
	if got, err := read(c.Resume(t.Context(), "acme", "a.b", 9)); len(got) > 0 || code(err) != schemas.CodeInvalidValue {
		t.Errorf("resume of no id: %v, %v", got, err)
	}
}

// A request that is erased while a trusted client waits for it has a result: that it was.
func TestATrustedClientWaitsForWhatIsErased(t *testing.T) {
	t.Parallel()
	p := bustest.NewProxy(t, serverURL)
	c, ctx := ways()[0].connect(t, p.URL())
	id := schemas.Identity{Tenant: "acme", Request: "erased-" + unique()}
	held := p.At(bustest.ToServer, "MSG.GET."+schemas.StreamReplies, bustest.Hold)
	var got *schemas.Result
	var err error
	done := make(chan struct{})
	go func() { defer close(done); got, err = c.Wait(ctx, id.Tenant, id.Request) }()
	select {
	case <-held:
	case <-ctx.Done():
		t.Fatal("it does not look for the end")
	}
	end := &schemas.Frame{Kind: schemas.KindEnd, Writer: "w", Data: (&schemas.Summary{Status: schemas.StatusCompleted}).Encode()}
	if _, err := pipelineBus.Append(ctx, id, 0, end); err != nil {
		t.Fatal(err)
	}
	if err := pipelineBus.Erase(ctx, id); err != nil {
		t.Fatal(err)
	}
	p.Set(bustest.ToServer, bustest.Pass)
	<-done
	if err != nil || got.Status != schemas.StatusDeleted {
		t.Errorf("%+v, error %v", got, err)
	}
}

// A look-up that the server did not answer is made again, as long as the context lasts.
func TestATrustedClientAsksAgain(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{schemas.StreamResults, schemas.StreamReplies} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			p := bustest.NewProxy(t, serverURL)
			c, ctx := ways()[0].connect(t, p.URL())
			lost := p.At(bustest.ToServer, "MSG.GET."+stream, bustest.Drop)
			var cutting sync.WaitGroup
			cutting.Go(func() {
				select {
				case <-lost:
					p.Cut()
				case <-ctx.Done():
					t.Error("it did not look")
				}
			})
			request := words(`"stream":true,"words":["a"]`)
			request.ID = "asked-again-" + unique()
			got, err := read(c.Stream(ctx, request))
			check(t, got, err, `0 {"word":"a"}`)
			cutting.Wait()
		})
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  client.Config
		want string
	}{
		"no address":   {client.Config{}, "no server given"},
		"nobody there": {client.Config{URL: "nats://127.0.0.1:1"}, "connect to NATS"},
		"no host":      {client.Config{URL: "http://"}, "no host"},
		"a key in it":  {client.Config{URL: "http://key@127.0.0.1:1"}, "Config.APIKey"},
		"a tenant":     {client.Config{URL: "http://127.0.0.1:1", Tenant: "a.b"}, "tenant"},
	} {
		if _, err := client.Connect(t.Context(), test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
