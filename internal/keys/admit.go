package keys

import (
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Credentials are what a NATS connection presents.
type Credentials struct {
	Token    string
	Password string // with any user name
	Loopback bool   // it comes from this machine, and from nowhere else
}

// Grant is what a NATS connection may do. Without subjects there is no restriction within the account.
type Grant struct {
	Name      string // of the connection's user: [Key.Name]
	Account   string
	Publish   []string
	Subscribe []string
	Expires   time.Time // zero for never
}

// Admit decides about a NATS connection, for the embedded server and for the auth callout of a cluster alike: a key makes
// it a tenant's, confined to the subjects of its tenant. A connection without one is trusted while the ring is open and
// it comes from this machine. Wrong credentials never fall back to none: who sent some wants to know that they are wrong.
func (r *Ring) Admit(c Credentials) (Grant, error) {
	secret := c.Token
	if secret == "" {
		secret = c.Password
	}
	if secret == "" {
		if !c.Loopback {
			return Grant{}, schemas.Errorf(schemas.CodeInvalidKey, "no API key given: send it as the token of the connection")
		}
		key, err := r.Anonymous()
		if err != nil {
			return Grant{}, err
		}
		return Grant{Name: key.Name(), Account: schemas.AccountPipeline}, nil
	}
	key, err := r.Verify(secret)
	if err != nil {
		return Grant{}, err
	}
	return key.grant(), nil
}

func (k *Key) grant() Grant {
	return Grant{
		Name: k.Name(), Account: schemas.AccountEdge, Expires: k.Expires,
		Publish: k.publish(), Subscribe: schemas.EdgeSubscribe(k.Tenant),
	}
}

// publish is what the key may publish to: all that its tenant may, less what its scope and its models take away.
func (k *Key) publish() []string {
	if k.MaySend() && k.AllowsModel(AllModels) {
		return schemas.EdgePublish(k.Tenant)
	}
	every := schemas.Identity{Tenant: k.Tenant, Request: "*"}
	allowed := []string{schemas.ReadSubject(every)}
	if !k.MaySend() {
		return allowed
	}
	allowed = append(allowed, schemas.ResumeSubject(every), every.Cancel())
	for _, model := range k.Models {
		if token, err := schemas.EncodeModel(model); err == nil {
			allowed = append(allowed, schemas.ChatSubject(k.Tenant, token))
		}
	}
	return allowed
}
