// Package callout answers the auth callout of nats-servers: for each connection that is not one of their own users they ask
// who it is, and an API key makes it a user of account EDGE with the permissions of its tenant.
//
// Any number of processes may answer; they share a queue group and need nothing from each other. The pipeline's own users
// are known to the servers themselves, so that it runs on while nobody answers: then tenants cannot connect, and those
// that are connected stay.
package callout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// Bounds of a tenant's connection. It comes back by itself when its time is over, and is asked for its key again.
const (
	connectionLife = time.Hour
	maxPayload     = 1 << 20
	maxSubs        = 1024
)

// Config of a [Responder].
type Config struct {
	Bus            *bus.Bus // required: the servers
	User, Password string   // required: the callout's user on them, in account AUTH
	IssuerSeed     string   // required: account nkey seed (SA…), whose public key the servers have as `issuer`
	XKeySeed       string   // curve nkey seed (SX…), whose public key they have as `xkey`; optional: without it nothing is encrypted

	Logger *slog.Logger // optional
}

// Responder answers the callout. It is a [keys.Gate].
type Responder struct {
	log    *slog.Logger
	issuer nkeys.KeyPair
	xkey   nkeys.KeyPair // nil without encryption
	link   *bus.AuthLink
	decide atomic.Pointer[func(keys.Credentials) (keys.Grant, error)]
}

var _ keys.Gate = (*Responder)(nil)

// New connects. Requests wait until Admit says who decides and Run answers. The caller closes the responder after Run.
func New(cfg Config) (*Responder, error) {
	issuer, xkey, err := ParseSeeds(cfg.IssuerSeed, cfg.XKeySeed)
	if err != nil {
		return nil, err
	}
	link, err := cfg.Bus.AuthLink(cfg.User, cfg.Password)
	if err != nil {
		return nil, err
	}
	r := &Responder{log: cfg.Logger, issuer: issuer, xkey: xkey, link: link}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.Admit(func(keys.Credentials) (keys.Grant, error) {
		return keys.Grant{}, schemas.Errorf(schemas.CodeUnavailable, "starting. Please try again in 1s.")
	})
	return r, nil
}

// ParseSeeds reads the two seeds; the second is nil when it is not given.
func ParseSeeds(issuerSeed, xkeySeed string) (issuer, xkey nkeys.KeyPair, err error) {
	if issuer, err = pair(issuerSeed, nkeys.PrefixByteAccount); err != nil {
		return nil, nil, fmt.Errorf("issuer seed: %w: it is an account seed, SA…, such as weir keys issuer makes", err)
	}
	if xkeySeed == "" {
		return issuer, nil, nil
	}
	if xkey, err = pair(xkeySeed, nkeys.PrefixByteCurve); err != nil {
		return nil, nil, fmt.Errorf("xkey seed: %w: it is a curve seed, SX…, such as weir keys issuer makes", err)
	}
	return issuer, xkey, nil
}

func pair(seed string, kind nkeys.PrefixByte) (nkeys.KeyPair, error) {
	got, _, err := nkeys.DecodeSeed([]byte(seed))
	switch {
	case err != nil:
		return nil, errors.New("it is not an nkey seed") // the text of the library may hold a part of it
	case got != kind:
		return nil, errors.New("it is an nkey seed of another kind")
	case kind == nkeys.PrefixByteCurve:
		return nkeys.FromCurveSeed([]byte(seed))
	}
	return nkeys.FromSeed([]byte(seed))
}

// Close ends the connection.
func (r *Responder) Close() { r.link.Close() }

// Admit lets decide answer from now on.
func (r *Responder) Admit(decide func(keys.Credentials) (keys.Grant, error)) { r.decide.Store(&decide) }

// Sweep ends the connections of tenants whose keys are not live any more, on all servers.
func (r *Responder) Sweep(live func(user string) bool) error {
	links, err := r.link.Links(schemas.AccountEdge)
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if !live(link.User) {
			errs = append(errs, r.link.Kick(link))
		}
	}
	return errors.Join(errs...)
}

// Run answers until ctx ends.
func (r *Responder) Run(ctx context.Context) error {
	for {
		request, err := r.link.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := r.answer(request)
		if err == nil {
			err = request.Answer(answer)
		}
		if err != nil {
			// Without an answer the server refuses the connection when its time is over.
			r.log.Warn("an auth request was not answered", telemetry.KeyError, err)
		}
	}
}

// answer is what a server gets for its request: a user, or why there is none, signed, and encrypted if the request was.
func (r *Responder) answer(request *bus.AuthRequest) ([]byte, error) {
	data := request.Data
	if encrypted := request.XKey != ""; encrypted != (r.xkey != nil) {
		return nil, errors.New("the servers and this process do not agree on encryption: set xkey in nats.conf and auth_callout.xkey_seed here, or neither")
	}
	var err error
	if r.xkey != nil {
		if data, err = r.xkey.Open(data, request.XKey); err != nil {
			return nil, fmt.Errorf("decrypt an auth request: %w", err)
		}
	}
	question, err := jwt.DecodeAuthorizationRequestClaims(string(data))
	if err != nil {
		return nil, fmt.Errorf("read an auth request: %w", err)
	}
	reply := jwt.NewAuthorizationResponseClaims(question.UserNkey)
	reply.Audience = question.Server.ID
	if reply.Jwt, err = r.user(question); err != nil {
		reply.Error = schemas.AsError(err).Message
	}
	token, err := reply.Encode(r.issuer)
	if err != nil {
		return nil, fmt.Errorf("sign the answer to an auth request: %w", err)
	}
	if r.xkey == nil {
		return []byte(token), nil
	}
	return r.xkey.Seal([]byte(token), request.XKey)
}

// user is the signed user that the connection becomes. Nobody is trusted for coming from a certain address: on a cluster
// the pipeline has users of its own.
func (r *Responder) user(question *jwt.AuthorizationRequestClaims) (string, error) {
	presented := question.ConnectOptions
	if presented.JWT != "" || presented.Nkey != "" {
		return "", schemas.Errorf(schemas.CodeInvalidKey, "only API keys are known here")
	}
	grant, err := (*r.decide.Load())(keys.Credentials{Token: presented.Token, Password: presented.Password})
	if err != nil {
		return "", err
	}
	user := jwt.NewUserClaims(question.UserNkey)
	user.Name, user.Audience = grant.Name, grant.Account
	user.Expires = expiry(grant.Expires, time.Now()).Unix()
	user.Pub.Allow.Add(grant.Publish...)
	user.Sub.Allow.Add(grant.Subscribe...)
	user.Limits.Payload, user.Limits.Subs = maxPayload, maxSubs
	user.AllowedConnectionTypes.Add(jwt.ConnectionTypeStandard)
	return user.Encode(r.issuer)
}

func expiry(key, now time.Time) time.Time {
	latest := now.Add(connectionLife)
	if key.IsZero() || key.After(latest) {
		return latest
	}
	return key
}
