package natsd

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

const (
	pipelineUser = "weir-pipeline"
	operatorUser = "weir-operator"
	edgeUser     = "weir-edge"
)

// admission decides about a connection that is not one of the server's own users.
type admission func(keys.Credentials) (keys.Grant, error)

// users decides who may connect and into which account. The fields above admit are set before the server starts.
type users struct {
	known    map[string]user
	accounts interface {
		LookupAccount(name string) (*server.Account, error)
	}

	admit atomic.Pointer[admission]
}

type user struct {
	account  string
	password [sha256.Size]byte // hashed, so that the comparison takes the same time for every guess
}

var _ server.Authentication = (*users)(nil)

// newUsers makes the list without a user. Open lets connections from this machine into account LLM.
func newUsers(open bool) *users {
	u := &users{known: map[string]user{}}
	u.decide(func(c keys.Credentials) (keys.Grant, error) {
		if !open || !c.Loopback || c.Token != "" || c.Password != "" {
			return keys.Grant{}, schemas.Errorf(schemas.CodeInvalidKey, "no user is known by these credentials")
		}
		return keys.Grant{Name: "loopback", Account: schemas.AccountPipeline}, nil
	})
	return u
}

func (u *users) decide(by admission) { u.admit.Store(&by) }

// add makes a user with a random password and returns the password.
func (u *users) add(name, account string) (password string) {
	password = rand.Text()
	u.set(name, account, password)
	return password
}

func (u *users) set(name, account, password string) {
	u.known[name] = user{account: account, password: sha256.Sum256([]byte(password))}
}

// Check admits a connection into its account, or refuses it.
func (u *users) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT {
		return false
	}
	grant, err := u.grant(c.GetOpts(), c.RemoteAddress())
	if err != nil {
		return false
	}
	account, err := u.accounts.LookupAccount(grant.Account)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{
		Username: grant.Name, Account: account, Permissions: permissions(grant), ConnectionDeadline: grant.Expires,
	})
	return true
}

// grant never falls back from wrong credentials to none: a caller that sent some wants to know that they are wrong.
func (u *users) grant(o *server.ClientOpts, remote net.Addr) (keys.Grant, error) {
	if o.JWT != "" || o.Nkey != "" {
		return keys.Grant{}, schemas.Errorf(schemas.CodeInvalidKey, "only passwords and API keys are known here")
	}
	known, ours := u.known[o.Username]
	if !ours {
		loopback := loopback(remote) && o.Username == ""
		return (*u.admit.Load())(keys.Credentials{Token: o.Token, Password: o.Password, Loopback: loopback})
	}
	sum := sha256.Sum256([]byte(o.Password))
	if subtle.ConstantTimeCompare(sum[:], known.password[:]) != 1 {
		return keys.Grant{}, schemas.Errorf(schemas.CodeInvalidKey, "the password of %s is wrong", o.Username)
	}
	return keys.Grant{Name: o.Username, Account: known.account}, nil
}

// permissions confine a tenant; the pipeline's own have none.
func permissions(grant keys.Grant) *server.Permissions {
	if grant.Account == schemas.AccountPipeline || len(grant.Publish)+len(grant.Subscribe) == 0 {
		return nil
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: grant.Publish},
		Subscribe: &server.SubjectPermission{Allow: grant.Subscribe},
	}
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Admit lets decide answer for every connection but those of the server's own users, from now on. It must be safe for
// concurrent use.
func (s *Server) Admit(decide func(keys.Credentials) (keys.Grant, error)) { s.users.decide(decide) }

// Sweep ends the connections whose users are not live any more.
func (s *Server) Sweep(live func(user string) bool) error {
	open, err := s.nats.Connz(&server.ConnzOptions{Username: true, Limit: s.nats.NumClients() + sweepSlack})
	if err != nil {
		return fmt.Errorf("list the NATS connections: %w", err)
	}
	for _, c := range open.Conns {
		if c.AuthorizedUser != "" && !live(c.AuthorizedUser) {
			_ = s.nats.DisconnectClientByID(c.Cid) // it may be gone by now
		}
	}
	return nil
}

// sweepSlack is for connections that come between counting and listing; the next sweep has those beyond it.
const sweepSlack = 1024
