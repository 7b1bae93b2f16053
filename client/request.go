package client

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// DefaultTenant is the tenant of a request that names none.
const DefaultTenant = "default"

// maxKeyBytes is the longest idempotency key.
const maxKeyBytes = 255

// Request is a request body and what the pipeline should know besides.
type Request struct {
	Tenant string // default that of the client
	Model  string // default the body's, which is the one that counts
	Body   []byte // required: the body of the operation, for chat that of an OpenAI chat completion, passed on byte for byte

	// ID makes sending idempotent: a request with the same id and body is the same request, for as long as results are
	// kept. 1 to 64 characters of A-Z a-z 0-9 _ -, not s<digits>. Default: a new one.
	ID string
	// IdempotencyKey does the same with a key of any form, at most 255 bytes, from which the id is made. Only one of the two.
	IdempotencyKey string

	Op       schemas.Op        // default chat
	Priority schemas.Priority  // default normal
	Deadline time.Time         // default ten minutes after acceptance
	Header   map[string]string // other request headers, e.g. Llm-Cache
}

// outgoing is a request that is fit to be sent.
type outgoing struct {
	*schemas.Request
	key     string // the idempotency key
	chosen  bool   // the caller chose the id, or the key that it is made from: the request may have been sent before
	streams bool   // the body asks for a stream of events
}

// prepare checks the request and makes the one that goes on the wire.
func (c *Client) prepare(r *Request) (*outgoing, error) {
	tenant, err := c.tenantOf(r.Tenant)
	if err != nil {
		return nil, err
	}
	out := &outgoing{key: r.IdempotencyKey, chosen: r.ID != "" || r.IdempotencyKey != "", Request: &schemas.Request{
		Identity: schemas.Identity{Tenant: tenant, Request: r.ID}, Op: r.Op, Priority: r.Priority, Deadline: r.Deadline,
		Header: make(schemas.Header, len(r.Header)), Body: r.Body,
	}}
	switch {
	case r.ID != "" && r.IdempotencyKey != "":
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "both an id and an idempotency key are given: use one of them")
	case len(r.IdempotencyKey) > maxKeyBytes:
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "the idempotency key has %d bytes: at most %d are allowed", len(r.IdempotencyKey), maxKeyBytes)
	case r.IdempotencyKey != "":
		out.Identity.Request = schemas.IdempotencyID(tenant, r.IdempotencyKey)
	case r.ID == "":
		out.Identity.Request = "req_" + ulid.Make().String()
	}
	for key, value := range r.Header {
		out.Header[key] = []string{value}
	}
	return out, r.check(out)
}

func (r *Request) check(out *outgoing) (err error) {
	if err := schemas.ValidateTenant(out.Tenant); err != nil {
		return err
	}
	if err := schemas.ValidateCallerID(out.Identity.Request); err != nil {
		return err
	}
	if len(r.Body) > schemas.MaxBodyBytes {
		return schemas.Errorf(schemas.CodeRequestTooLarge, "the body has %d bytes: at most %d are allowed", len(r.Body), schemas.MaxBodyBytes)
	}
	if !schemas.ValidMember(r.Body) {
		return schemas.Errorf(schemas.CodeInvalidJSON, "the body is not JSON, or nests too deeply")
	}
	said := gjson.GetManyBytes(r.Body, "model", "stream")
	model := r.Model
	if model == "" {
		model = said[0].Str
	}
	out.streams = said[1].Bool()
	if out.ModelToken, err = schemas.EncodeModel(model); err != nil {
		return err
	}
	return schemas.ValidateRequestHeaders(out.Encode())
}
