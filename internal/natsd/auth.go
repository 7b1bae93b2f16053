package natsd

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-llm/weir/schemas"
)

const (
	pipelineUser = "weir-pipeline"
	operatorUser = "weir-operator"
	edgeUser     = "weir-edge"
)

// users decides who may connect and into which account. All fields are set before the server starts.
type users struct {
	open     bool // loopback connections without credentials are in account LLM
	known    map[string]user
	tenant   func(name, secret string) (tenant string, ok bool) // optional: who else may connect, into account EDGE
	accounts interface {
		LookupAccount(name string) (*server.Account, error)
	}
}

type user struct {
	account  string
	password [sha256.Size]byte // hashed, so that the comparison takes the same time for every guess
}

var _ server.Authentication = (*users)(nil)

func newUsers() *users { return &users{known: map[string]user{}} }

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
	name, account, ok := u.admit(c.GetOpts(), c.RemoteAddress())
	var limits *server.Permissions
	if !ok && u.tenant != nil {
		name, ok = u.tenant(c.GetOpts().Username, cmp.Or(c.GetOpts().Password, c.GetOpts().Token))
		account, limits = accountEdge, tenantPermissions(name)
	}
	if !ok {
		return false
	}
	acc, err := u.accounts.LookupAccount(account)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Username: name, Account: acc, Permissions: limits})
	return true
}

// tenantPermissions are all that a tenant may do.
func tenantPermissions(tenant string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: schemas.EdgePublish(tenant)},
		Subscribe: &server.SubjectPermission{Allow: schemas.EdgeSubscribe(tenant)},
	}
}

// admit never falls back from wrong credentials to none: a caller that sent some wants to know that they are wrong.
func (u *users) admit(o *server.ClientOpts, remote net.Addr) (name, account string, ok bool) {
	if o.Token != "" || o.JWT != "" || o.Nkey != "" {
		return "", "", false
	}
	if o.Username == "" && o.Password == "" {
		return "loopback", accountPipeline, u.open && loopback(remote)
	}
	known, ok := u.known[o.Username]
	sum := sha256.Sum256([]byte(o.Password))
	if subtle.ConstantTimeCompare(sum[:], known.password[:]) != 1 || !ok {
		return "", "", false
	}
	return o.Username, known.account, true
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
