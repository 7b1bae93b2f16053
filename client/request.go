package client

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// DefaultTenant is the tenant of a request that names none.
const DefaultTenant = "default"

// Request is an OpenAI request body and what the pipeline should know besides.
type Request struct {
	Tenant string // default DefaultTenant
	Model  string // default the body's
	Body   []byte // required: an OpenAI chat-completions body, passed on byte for byte

	// ID makes sending idempotent: a request with the same id and body is the same request, for as long as results are
	// kept. 1 to 64 characters of A-Z a-z 0-9 _ -, not s<digits>. Default: a new one.
	ID       string
	Op       schemas.Op        // default chat
	Priority schemas.Priority  // default normal
	Deadline time.Time         // default ten minutes after acceptance
	Header   map[string]string // other request headers, e.g. Llm-Cache
}

// prepare checks the request and makes the one that goes on the wire. chosen says that the caller chose its id.
func (r *Request) prepare() (_ *schemas.Request, chosen bool, err error) {
	out := &schemas.Request{
		Identity: schemas.Identity{Tenant: r.Tenant, Request: r.ID}, Op: r.Op, Priority: r.Priority, Deadline: r.Deadline,
		Header: make(schemas.Header, len(r.Header)), Body: r.Body,
	}
	if out.Tenant == "" {
		out.Tenant = DefaultTenant
	}
	if chosen = r.ID != ""; !chosen {
		out.Identity.Request = "req_" + ulid.Make().String()
	}
	for key, value := range r.Header {
		out.Header[key] = []string{value}
	}
	return out, chosen, r.check(out)
}

func (r *Request) check(out *schemas.Request) (err error) {
	if err := schemas.ValidateTenant(out.Tenant); err != nil {
		return err
	}
	if err := schemas.ValidateCallerID(out.Identity.Request); err != nil {
		return err
	}
	if len(r.Body) > schemas.MaxBodyBytes {
		return schemas.Errorf(schemas.CodeRequestTooLarge, "the body has %d bytes: at most %d are allowed", len(r.Body), schemas.MaxBodyBytes)
	}
	if !gjson.ValidBytes(r.Body) {
		return schemas.Errorf(schemas.CodeInvalidJSON, "the body is not JSON")
	}
	model := r.Model
	if model == "" {
		model = gjson.GetBytes(r.Body, "model").Str
	}
	if out.ModelToken, err = schemas.EncodeModel(model); err != nil {
		return err
	}
	return schemas.ValidateRequestHeaders(out.Encode())
}
