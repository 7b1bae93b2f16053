package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	reconnectWait = 200 * time.Millisecond
	pingInterval  = 10 * time.Second
	flushWithin   = 5 * time.Second
	// refused is the wait after an answer that nobody serves the subject: a door may be about to open.
	refused = 500 * time.Millisecond
)

// tenant speaks to the NATS service of the doors (docs/adr/0007).
type tenant struct {
	follower
	conn     *nats.Conn
	readOnly bool // of a key that may only read

	mu      sync.Mutex
	inboxes map[*inbox]bool // that wait for answers
}

func newTenant(ctx context.Context, cfg Config) (transport, error) {
	switch {
	case cfg.Tenant == "":
		return nil, errors.New("connect with an API key over NATS: Config.Tenant is empty: give the tenant of the key, which is part of every subject")
	case cfg.Context != "" || cfg.CredsFile != "" || cfg.Username != "":
		return nil, errors.New("connect with an API key over NATS: there are other credentials too: leave them out, or leave the key out to connect as a trusted service")
	}
	t := &tenant{follower: cfg.follower(), readOnly: cfg.ReadOnly, inboxes: map[*inbox]bool{}}
	options := []nats.Option{
		nats.Name(cfg.Name), nats.Token(cfg.APIKey), nats.CustomInboxPrefix(schemas.EdgeInbox(cfg.Tenant)),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait/4, reconnectWait/2), nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2), nats.IgnoreAuthErrorAbort(), nats.Timeout(connectTimeout),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { t.disconnected() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.reported(err) }),
	}
	files, err := cfg.certs()
	if err != nil {
		return nil, err
	}
	if cfg.CAFile != "" || cfg.CertFile != "" { // else a tls:// URL brings TLS with the authorities of the system
		var own nats.TLSCertHandler
		if files.HasCertificate() {
			own = files.Certificate
		}
		options = append(options, nats.ClientTLSConfig(own, files.Roots))
	}
	if cfg.InProcess != nil {
		options = append(options, nats.InProcessServer(cfg.InProcess))
	}
	if t.conn, err = nats.Connect(cfg.URL, options...); err != nil {
		if errors.Is(err, nats.ErrAuthorization) {
			return nil, schemas.Errorf(schemas.CodeInvalidKey, "the server refuses the API key: check it, or ask the operator for one").WithCause(err)
		}
		return nil, fmt.Errorf("connect to NATS at %s: %w", bus.Addresses(cfg.URL), err)
	}
	if err := ctx.Err(); err != nil {
		t.conn.Close()
		return nil, err
	}
	return t, nil
}

func (t *tenant) close() error {
	var err error
	if t.conn.IsConnected() {
		err = t.conn.FlushTimeout(flushWithin)
	}
	t.conn.Close()
	return err
}

// inbox is where the answer to one request to a door comes.
type inbox struct {
	ctx     context.Context // ends with the caller's, and with the connection
	end     context.CancelCauseFunc
	tenant  *tenant
	subject string // of the request
	sub     *nats.Subscription
}

// ask sends a request to a door. The caller closes the inbox.
func (t *tenant) ask(ctx context.Context, subject string, header schemas.Header, body []byte) (*inbox, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	i := &inbox{tenant: t, subject: subject}
	i.ctx, i.end = context.WithCancelCause(ctx)
	t.mu.Lock()
	t.inboxes[i] = true
	t.mu.Unlock()
	if err := i.open(header, body); err != nil {
		i.close()
		return nil, lost(err)
	}
	return i, nil
}

func (i *inbox) open(header schemas.Header, body []byte) (err error) {
	conn := i.tenant.conn
	msg := &nats.Msg{Subject: i.subject, Reply: conn.NewInbox(), Data: body, Header: nats.Header{}}
	maps.Copy(msg.Header, header)
	for name, value := range traceOf(i.ctx) {
		msg.Header[name] = []string{value}
	}
	if i.sub, err = conn.SubscribeSync(msg.Reply); err != nil {
		return err
	}
	return conn.PublishMsg(msg)
}

func (i *inbox) close() {
	i.tenant.mu.Lock()
	delete(i.tenant.inboxes, i)
	i.tenant.mu.Unlock()
	i.end(nil)
	if i.sub != nil {
		_ = i.sub.Unsubscribe()
	}
}

// disconnected ends every wait for an answer, of which messages may have been lost.
func (t *tenant) disconnected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.inboxes {
		i.end(&broken{cause: errCut})
	}
}

// reported takes what the server says out of turn. It does not answer a message that the key may not send.
func (t *tenant) reported(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		return // a stream sees it as a gap
	}
	t.log.Warn("NATS reported an error", "error", err)
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.inboxes {
		if strings.Contains(err.Error(), strconv.Quote(i.subject)) {
			i.end(schemas.Errorf(schemas.CodeModelNotAllowed, "the API key may not send to %s: it is of another tenant, or may not use the model, or may only read", i.subject).WithCause(err))
		}
	}
}

func traceOf(ctx context.Context) propagation.MapCarrier {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier
}

// lost is a failure of the connection, which comes back by itself, or one that a repetition does not mend.
func lost(err error) error {
	if closed(err) {
		return schemas.Errorf(schemas.CodeUnavailable, "the client is closed").WithCause(err)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return schemas.Errorf(schemas.CodeRequestTooLarge, "the body is larger than a message of this NATS server: send it over HTTP").WithCause(err)
	}
	return &broken{cause: err}
}

// closed reports whether an error is that of a client which was closed.
func closed(err error) bool {
	return errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription)
}

// next is the next message of the answer; nil is its end. A door that is not heard of for too long is gone.
func (i *inbox) next() (*nats.Msg, error) {
	waiting, cancel := context.WithTimeout(i.ctx, i.tenant.silence)
	defer cancel()
	msg, err := i.sub.NextMsgWithContext(waiting)
	switch {
	case i.ctx.Err() != nil:
		return nil, context.Cause(i.ctx)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &broken{cause: errors.New("no door answers"), pause: refused}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &broken{cause: errCut}
	case err != nil:
		return nil, lost(err)
	case msg.Header.Get(schemas.HeaderServiceErrorCode) != "":
		return nil, serviceError(msg)
	case len(msg.Data) == 0:
		return nil, nil
	}
	return msg, nil
}

// serviceError is the error that a door answered.
func serviceError(msg *nats.Msg) error {
	e, err := schemas.DecodeError(msg.Data)
	if err != nil {
		return schemas.AsError(fmt.Errorf("%s: %w", msg.Header.Get(schemas.HeaderServiceError), err))
	}
	if e.Code == schemas.CodeShutdown {
		return &broken{cause: e} // another door has the request, or this one after its restart
	}
	return e
}

// once asks a door for an answer of one message.
func (t *tenant) once(ctx context.Context, subject string, header schemas.Header, body []byte) (answer *nats.Msg, err error) {
	i, err := t.ask(ctx, subject, header, body)
	if err != nil {
		return nil, err
	}
	defer i.close()
	var whole assembly
	for {
		msg, err := i.next()
		if err != nil {
			return nil, err
		}
		if msg == nil {
			break
		}
		if whole.add(msg) {
			answer = msg
		}
	}
	if answer == nil {
		return nil, &broken{cause: errCut}
	}
	answer.Data = whole.data
	return answer, nil
}

// call does what may be done twice, until a door has answered. One that cannot now is asked again.
func (t *tenant) call(ctx context.Context, subject string, body []byte) (answer *nats.Msg, err error) {
	err = t.retry(ctx, func() error {
		answer, err = t.once(ctx, subject, nil, body)
		return later(err)
	})
	return answer, err
}

// readSubject is where a request is read.
func (t *tenant) readSubject(id schemas.Identity) string {
	if t.readOnly {
		return schemas.ReadSubject(id)
	}
	return schemas.ResumeSubject(id)
}

func (t *tenant) result(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	msg, err := t.call(ctx, t.readSubject(id), []byte(schemas.AskResult))
	if e, ok := errors.AsType[*schemas.Error](err); ok && e.Code == schemas.CodeStreamNotFound {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var o schemas.Outcome
	if err := json.Unmarshal(msg.Data, &o); err != nil {
		return nil, schemas.AsError(fmt.Errorf("decode the result of %s: %w", id, err))
	}
	if o.Status == statusQueued || o.Status == statusRunning {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return recordOf(&o, id), nil
}

func (t *tenant) await(ctx context.Context, id schemas.Identity) error {
	return ended(ctx, id, t.resume(ctx, id, 0))
}

func (t *tenant) cancel(ctx context.Context, id schemas.Identity) error {
	_, err := t.call(ctx, id.Cancel(), nil)
	return err
}
