package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// Subjects of the NATS servers themselves, and the header of an auth request.
const (
	authRequests   = "$SYS.REQ.USER.AUTH"
	authGroup      = "weir"
	authXKeyHeader = "Nats-Server-Xkey"
	listServers    = "$SYS.REQ.SERVER.PING.CONNZ"
	kickPrefix     = "$SYS.REQ.SERVER."
	kickSuffix     = ".KICK"
)

const (
	authWaiting  = 4096                   // auth requests that wait; the servers drop those beyond their own timeout
	listPage     = 512                    // connections in one answer
	listQuiet    = 300 * time.Millisecond // after which no further server is expected to answer
	listTimeout  = 3 * time.Second        // for the first answer
	kickTimeout  = 2 * time.Second
	maxListPages = 256
)

// AuthLink is a connection of its own with the user that answers the auth callout of the servers. It may list and end
// connections.
type AuthLink struct {
	conn *nats.Conn
	sub  *nats.Subscription
}

// AuthRequest is what a server asks about a connection.
type AuthRequest struct {
	Data []byte
	XKey string // of the server, when the request is encrypted
	msg  *nats.Msg
}

// Answer gives the server its answer.
func (r *AuthRequest) Answer(data []byte) error {
	return wrap("answer an auth request", r.msg.Respond(data))
}

// Link is a client connection as a server lists it.
type Link struct {
	Server string // id of the server
	CID    uint64
	User   string
}

// AuthLink connects as the callout's user to the servers that the bus works with, and subscribes, so that requests wait
// for Next from now on. Several processes share the work. The caller closes the link.
func (b *Bus) AuthLink(user, password string) (*AuthLink, error) {
	options := b.control.Opts
	options.Name += "-auth"
	options.User, options.Password, options.Token = user, password, ""
	options.UserJWT, options.Nkey, options.SignatureCB, options.UserInfo, options.TokenHandler = nil, "", nil, nil, nil
	options.InboxPrefix, options.DisconnectedErrCB = "", b.disconnected
	options.Url, options.Servers = withoutUser(options.Url), slices.Clone(options.Servers)
	for i, server := range options.Servers {
		options.Servers[i] = withoutUser(server)
	}
	conn, err := options.Connect()
	if err != nil {
		return nil, fmt.Errorf("connect to NATS as user %s, who answers the auth callout: %w", user, err)
	}
	sub, err := conn.QueueSubscribeSync(authRequests, authGroup)
	if err == nil {
		err = errors.Join(sub.SetPendingLimits(authWaiting, -1), conn.FlushTimeout(5*time.Second))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to the auth callout: %w", err)
	}
	return &AuthLink{conn: conn, sub: sub}, nil
}

// withoutUser takes the credentials out of a server's URL, which would win over those of the options.
func withoutUser(server string) string {
	u, err := url.Parse(server)
	if err != nil || u.User == nil {
		return server
	}
	u.User = nil
	return u.String()
}

// Next waits for a request.
func (l *AuthLink) Next(ctx context.Context) (*AuthRequest, error) {
	for {
		msg, err := l.sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			continue // some were dropped; their servers refuse the connections, and the clients try again
		}
		if err != nil {
			return nil, wrap("wait for an auth request", err)
		}
		return &AuthRequest{Data: msg.Data, XKey: msg.Header.Get(authXKeyHeader), msg: msg}, nil
	}
}

// Links gives the client connections of an account on all servers.
func (l *AuthLink) Links(account string) (links []Link, err error) {
	for page := range maxListPages {
		found, more, err := l.links(account, page*listPage)
		if err != nil {
			return nil, err
		}
		links = append(links, found...)
		if !more {
			break
		}
	}
	return links, nil
}

type connectionList struct {
	Server struct {
		ID string `json:"id"`
	} `json:"server"`
	Data struct {
		Connections []struct {
			CID  uint64 `json:"cid"`
			User string `json:"authorized_user"`
		} `json:"connections"`
	} `json:"data"`
	Error *struct {
		Description string `json:"description"`
	} `json:"error"`
}

// links asks every server for one page. How many there are is not known, so the end is when no more answer.
func (l *AuthLink) links(account string, offset int) (links []Link, more bool, err error) {
	question, err := json.Marshal(map[string]any{"auth": true, "acc": account, "limit": listPage, "offset": offset})
	if err != nil {
		return nil, false, err
	}
	inbox, err := l.conn.SubscribeSync(l.conn.NewInbox())
	if err != nil {
		return nil, false, fmt.Errorf("list connections: %w", err)
	}
	defer func() { _ = inbox.Unsubscribe() }()
	if err := l.conn.PublishRequest(listServers, inbox.Subject, question); err != nil {
		return nil, false, fmt.Errorf("list connections: %w", err)
	}
	for wait := listTimeout; ; wait = listQuiet {
		msg, err := inbox.NextMsg(wait)
		if errors.Is(err, nats.ErrTimeout) && wait == listQuiet {
			return links, more, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("list connections: no server answers; user auth needs the imports of nats.conf: %w", err)
		}
		var list connectionList
		if err := json.Unmarshal(msg.Data, &list); err != nil {
			return nil, false, fmt.Errorf("list connections: %w", err)
		}
		if list.Error != nil {
			return nil, false, fmt.Errorf("list connections: server %s: %s", list.Server.ID, list.Error.Description)
		}
		for _, c := range list.Data.Connections {
			links = append(links, Link{Server: list.Server.ID, CID: c.CID, User: c.User})
		}
		more = more || len(list.Data.Connections) == listPage
	}
}

// Kick ends a connection. One that is gone already is no error.
func (l *AuthLink) Kick(link Link) error {
	_, err := l.conn.Request(kickPrefix+link.Server+kickSuffix, fmt.Appendf(nil, `{"cid":%d}`, link.CID), kickTimeout)
	return wrap("end a connection of "+link.User, err)
}

// Close ends the link.
func (l *AuthLink) Close() { l.conn.Close() }
