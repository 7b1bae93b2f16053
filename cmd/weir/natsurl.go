package main

import (
	"net/url"
	"strings"
)

// splitUser takes user and password out of a list of NATS servers, which all have the same accounts. The user is nil when
// none is named, and a token, which is a user without a password, stays in the URL.
func splitUser(servers string) (bare string, user *url.Userinfo) {
	bare = eachServer(servers, func(u *url.URL) {
		if _, ok := u.User.Password(); ok {
			user, u.User = u.User, nil
		}
	})
	return bare, user
}

// redactUser hides passwords and tokens in a URL, or in a list of NATS servers.
func redactUser(servers string) string {
	return eachServer(servers, func(u *url.URL) {
		if u.User == nil {
			return
		}
		if _, ok := u.User.Password(); ok {
			u.User = url.UserPassword(u.User.Username(), hidden)
		} else {
			u.User = url.User(hidden)
		}
	})
}

// withoutUser is what may be shown of a text that should be a URL and is none: a password with odd characters makes it so.
func withoutUser(text string) string {
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		return hidden + text[i:]
	}
	return text
}

// hidden stands for a secret. Unlike *** it may stand in a URL as it is.
const hidden = "xxxxx"

func eachServer(servers string, f func(*url.URL)) string {
	list := strings.Split(servers, ",")
	for i, server := range list {
		server = strings.TrimSpace(server)
		if u, err := url.Parse(server); err == nil && u.Host != "" {
			f(u)
			server = u.String()
		}
		list[i] = server
	}
	return strings.Join(list, ",")
}
