package client_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// Where the examples and tests find a pipeline, and with which key of tenant acme.
var (
	serverURL string // NATS
	doorURL   string // HTTP

	pipelineBus *bus.Bus // of the pipeline, for doors of a test's own
)

const (
	apiKey   = "sk-test-acme"
	auditKey = "sk-test-audit" // of the same tenant
)

// TestMain runs one pipeline for all of the package: a server, something that answers, and a door. It fails when
// goroutines are left after all tests.
func TestMain(m *testing.M) {
	bustest.Parallel()
	before := bustest.Goroutines()
	code, err := withPipeline(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 && !settled(before) {
		fmt.Fprintf(os.Stderr, "%d goroutines are left, %d were there before:\n", bustest.Goroutines(), before)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		code = 1
	}
	os.Exit(code)
}

func settled(want int) bool {
	for deadline := time.Now().Add(patience); bustest.Goroutines() > want; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func withPipeline(run func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "weir-client")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := newServer(dir)
	if err != nil {
		return 0, err
	}
	defer server.Close()
	serverURL = server.ClientURL()
	edge := bus.Credentials{}
	edge.Username, edge.Password = server.EdgeUser()
	b, err := bus.Connect(context.Background(), bus.Config{
		InProcess: server, Username: server.Username(), Password: server.Password(), Name: "pipeline", Edge: &edge,
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Setup(context.Background()); err != nil {
		return 0, err
	}
	pipelineBus = b
	p := pipeline{bus: b}
	defer p.serving.Wait()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := p.open(ctx); err != nil {
		return 0, err
	}
	for partition := range schemas.Partitions {
		p.serving.Go(func() { p.serve(ctx, b.Requests(partition)) })
	}
	code = run()
	return code, nil
}

// pipeline answers requests as the stages do, with what the body tells it:
//
//	words   the answer, one event each
//	fail    end with an error after them
//	flaky   the first run fails before its first event
//	queue   never begin
//	hang    never end
//	pace    milliseconds before each word
//	echo    answer with the headers of the request
type pipeline struct {
	bus     *bus.Bus
	serving sync.WaitGroup
}

type order struct {
	Words  []string `json:"words"`
	Stream bool     `json:"stream"`
	Fail   bool     `json:"fail"`
	Flaky  bool     `json:"flaky"`
	Queue  bool     `json:"queue"`
	Hang   bool     `json:"hang"`
	Pace   int      `json:"pace"`
	Echo   bool     `json:"echo"`
}

// open opens a door of the pipeline, over HTTP and on NATS.
func (p *pipeline) open(ctx context.Context) error {
	door, err := newDoor(0)
	if err != nil {
		return err
	}
	doorURL = "http://" + door.Addr().String()
	p.serving.Go(func() {
		if err := door.Run(ctx); err != nil {
			panic(err)
		}
	})
	return nil
}

// newServer starts a server that knows the API key, and trusts this machine all the same.
func newServer(dir string) (*natsd.Server, error) {
	server, err := natsd.New(natsd.Config{Dir: dir, Listen: "127.0.0.1:0", Open: true})
	if err != nil {
		return nil, err
	}
	ring, err := newRing()
	if err != nil {
		return nil, err
	}
	server.Admit(func(c keys.Credentials) (keys.Grant, error) {
		if c == (keys.Credentials{Loopback: true}) {
			return keys.Grant{Name: "service", Account: schemas.AccountPipeline}, nil
		}
		return ring.Admit(c)
	})
	return server, nil
}

func newRing() (*keys.Ring, error) {
	hash := func(key string) string {
		sum := sha256.Sum256([]byte(key))
		return hex.EncodeToString(sum[:])
	}
	return keys.New(keys.Config{Configured: []keys.Configured{
		{ID: "k", SHA256: hash(apiKey), Tenant: "acme"}, {ID: "a", SHA256: hash(auditKey), Tenant: "acme", Scope: keys.ScopeAudit},
	}})
}

func newDoor(drain time.Duration) (*ingest.Ingest, error) {
	ring, err := newRing()
	if err != nil {
		return nil, err
	}
	return ingest.New(ingest.Config{Bus: pipelineBus, Addr: "127.0.0.1:0", Keys: ring, DrainLimit: drain})
}

func (p *pipeline) serve(ctx context.Context, puller *bus.Puller) {
	defer puller.Close()
	for {
		deliveries, err := puller.Fetch(ctx, 16)
		if errors.Is(err, bus.ErrUnpinned) {
			continue // the process was not heard of for a while
		}
		if err != nil {
			return
		}
		for _, d := range deliveries {
			d.Settle(bus.Ack)
			r, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
			if err != nil {
				continue
			}
			p.serving.Go(func() { p.answer(ctx, r, d) })
		}
	}
}

func (p *pipeline) answer(ctx context.Context, r *schemas.Request, d *bus.Delivery) {
	body, err := p.bus.Body(ctx, r)
	if err != nil {
		return
	}
	var o order
	_ = json.Unmarshal(body, &o)
	if o.Queue {
		return
	}
	chain, err := p.bus.Chain(ctx, r.Identity)
	if err != nil || chain.Start() != nil {
		return
	}
	for _, f := range o.frames(r, schemas.BodyHash(body)) {
		if f.Kind == schemas.KindDelta && o.Pace > 0 {
			<-time.After(time.Duration(o.Pace) * time.Millisecond)
		}
		if err := p.append(ctx, r.Identity, f); err != nil {
			return
		}
	}
	if o.Hang {
		p.awaitEnd(ctx, r.Identity)
	}
	if chain, err = p.bus.Chain(ctx, r.Identity); err != nil || chain.Terminal() == nil {
		return // it was erased meanwhile
	}
	work := &schemas.Work{Request: *r, Dispatch: 1, Accepted: d.Time}
	_ = record.Ensure(ctx, p.bus, work, body, chain)
}

// append writes behind whatever is last, which may be the frame with which the client made the request findable.
func (p *pipeline) append(ctx context.Context, id schemas.Identity, f *schemas.Frame) error {
	for {
		chain, err := p.bus.Chain(ctx, id)
		if err != nil {
			return err
		}
		if _, err := p.bus.Append(ctx, id, chain.Sequence(), f); !errors.Is(err, bus.ErrFenced) || chain.Terminal() != nil {
			return err
		}
	}
}

func (p *pipeline) awaitEnd(ctx context.Context, id schemas.Identity) {
	for _, err := range p.bus.Read(ctx, id, bus.ReadOptions{}) {
		if err != nil {
			return
		}
	}
}

func (o *order) frames(r *schemas.Request, hash string) []*schemas.Frame {
	const writer = "writer"
	frames := []*schemas.Frame{{Kind: schemas.KindStart, Op: r.Op, Attempt: 1, Writer: writer, BodyHash: hash,
		Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 1, Dispatch: 1, Worker: "worker-1"}}}
	summary := (&schemas.Summary{Status: schemas.StatusCompleted, Attempts: 1,
		Usage: &schemas.Usage{CompletionTokens: int64(len(o.Words)), TotalTokens: int64(len(o.Words))}}).Encode()
	if o.Flaky && !strings.HasSuffix(r.Identity.Request, "-1") {
		return append(frames, &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Writer: writer, Data: schemas.Errorf(schemas.CodeUpstreamError, "try again").Encode()})
	}
	if !o.Stream && !o.Fail {
		answer := fmt.Sprintf(`{"answer": %q}`, strings.Join(o.Words, " "))
		if o.Echo {
			answer = fmt.Sprintf(`{"op":%q,"priority":%q,"deadline":%d,"cache":%q}`, r.Op, r.Priority, r.Deadline.UnixMilli(), strings.Join(r.Header[schemas.HeaderCache], ""))
		}
		return append(frames, &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: writer, Count: 1, Data: []byte(answer), Summary: summary})
	}
	events := make([]string, 0, len(o.Words)+1)
	for _, word := range o.Words {
		events = append(events, fmt.Sprintf(`{"word":%q}`, word))
	}
	if r.Op == schemas.OpMessages && !o.Fail && !o.Hang {
		events = append(events, `{"type":"message_stop"}`)
	}
	for i, event := range events {
		frames = append(frames, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: writer, Index: uint64(i), Count: 1, Data: []byte(event)})
	}
	end := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: writer, Index: uint64(len(events)), Data: summary}
	if o.Fail {
		end.Kind, end.Data = schemas.KindError, schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model broke off").Encode()
	}
	if o.Hang {
		return frames
	}
	return append(frames, end)
}
