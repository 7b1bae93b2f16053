package openai

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// UpstreamError is the cause of an Error that a model server reported. Its text holds nothing that the server wrote but
// a code.
type UpstreamError struct {
	Status int    // the HTTP status; of an error inside a stream the one that it names or implies, or 0
	Code   string // the server's own code or type, if it looks like one
}

func (e *UpstreamError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("model server: status %d", e.Status)
	}
	return fmt.Sprintf("model server: status %d, code %s", e.Status, e.Code)
}

// HTTPStatus of the reply, or 0.
func (e *UpstreamError) HTTPStatus() int { return e.Status }

// ReplyError turns a reply with a status other than success into the Error that the caller sees. Only the explanation of
// a refused request is taken from the body, since the caller needs it; every other text is ours.
func ReplyError(status int, header http.Header, body []byte) *schemas.Error {
	u := readUpstream(body)
	u.status = status
	after := RetryAfter(header)
	if after == 0 {
		after = u.retry
	}
	return patient(u.toError(), after)
}

// patient adds when to come back.
func patient(e *schemas.Error, after time.Duration) *schemas.Error {
	if e.Code == schemas.CodeRateLimit && after > 0 {
		e.Message = fmt.Sprintf("the model server is at its rate limit. Please try again in %v.", after) // LangChain reads this
	}
	return e.WithRetryAfter(after)
}

// Refusal is how a model server reports an error when it speaks neither HTTP nor in events.
type Refusal struct {
	Status     int    // the HTTP status that means the same; 0 = none
	Said       string // what the server said instead of a status, such as gRPC UNAVAILABLE
	Code       string // the server's own code, if it gave one
	Message    string
	Param      string // the request field at fault, if it named one
	RetryAfter time.Duration
}

// RefusalError turns a refusal into the Error that the caller sees, by the rules of [ReplyError].
func RefusalError(r Refusal) *schemas.Error {
	u := upstream{status: r.Status, said: r.Said, code: r.Code, message: r.Message, param: r.Param, recognised: true}
	if u.code == "" {
		u.kind = identifier(r.Said[strings.LastIndexByte(r.Said, ' ')+1:])
	}
	return patient(u.toError(), min(r.RetryAfter, maxRetryAfter))
}

// EventError turns an error inside a stream, the data of its event or its error member, into the Error that the caller sees.
func EventError(data []byte) *schemas.Error {
	u := readUpstream(data)
	if !u.recognised {
		u.readObject(gjson.ParseBytes(data))
	}
	if u.status < 400 || u.status > 599 {
		u.status = 0
	}
	return patient(u.toError(), u.retry)
}

// upstream is an error object of any of the known forms.
type upstream struct {
	status     int
	said       string // instead of a status; empty is HTTP
	code       string
	kind       string
	message    string
	param      string
	retry      time.Duration // when to come back
	recognised bool          // the body was an error object
	html       bool
}

// readUpstream recognises {"error":{…}}, {"error":"text"}, {"object":"error",…}, a one-element array of these (Gemini),
// and {"detail":…} or {"message":…} (web frameworks).
func readUpstream(body []byte) upstream {
	var u upstream
	trimmed := bytes.TrimSpace(body)
	u.html = bytes.HasPrefix(trimmed, []byte("<"))
	if tooDeep(trimmed) || !schemas.ValidMember(trimmed) {
		return u
	}
	root := gjson.ParseBytes(trimmed)
	if root.IsArray() {
		root = root.Get("0")
	}
	inner := root.Get("error")
	switch {
	case inner.IsObject():
		u.readObject(inner)
	case inner.Type == gjson.String:
		u.message, u.recognised = inner.Str, true
		u.code = root.Get("code").Str
	case root.Get("object").Str == "error", root.Get("message").Type == gjson.String:
		u.readObject(root)
	case root.Get("detail").Exists():
		u.message, u.recognised = root.Get("detail").Str, true
	}
	return u
}

func (u *upstream) readObject(o gjson.Result) {
	u.recognised = true
	if o.Type == gjson.String {
		u.message = o.Str
		return
	}
	if code := o.Get("code"); code.Type == gjson.Number {
		u.status = int(code.Int())
	} else {
		u.code = code.Str
	}
	u.kind, u.message, u.param = o.Get("type").Str, o.Get("message").Str, o.Get("param").Str
	if u.kind == "" {
		u.kind = o.Get("status").Str // Gemini
	}
	u.retry = retryInfo(o.Get("details"))
}

func (u *upstream) toError() *schemas.Error {
	e := u.classify()
	cause := &UpstreamError{Status: u.status, Code: identifier(u.code)}
	if cause.Code == "" {
		cause.Code = identifier(u.kind)
	}
	return e.WithCause(cause)
}

func (u *upstream) classify() *schemas.Error {
	if e := u.byName(); e != nil {
		return e
	}
	if u.status == 0 {
		u.status = u.impliedStatus()
	}
	switch s := u.status; {
	case s < 400 && s >= 300:
		return u.misconfigured("redirected the request elsewhere")
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusPaymentRequired:
		return refusedCredentials()
	case s == http.StatusNotFound && u.recognised && strings.Contains(strings.ToLower(u.message), "model"):
		return modelNotFound()
	case s == http.StatusNotFound, s == http.StatusMethodNotAllowed:
		return u.misconfigured(fmt.Sprintf("has no such endpoint (%s)", u.reply()))
	case s == http.StatusRequestTimeout, s == http.StatusGatewayTimeout:
		return schemas.Errorf(schemas.CodeUpstreamTimeout, "the model server gave up waiting (%s); try again", u.reply())
	case s == http.StatusRequestEntityTooLarge:
		return schemas.Errorf(schemas.CodeRequestTooLarge, "the request is too large for the model server; send a smaller one")
	case s == http.StatusTooManyRequests:
		return schemas.Errorf(schemas.CodeRateLimit, "the model server is at its rate limit; try again later")
	case s == 529:
		return overloaded()
	case s >= 400 && s < 500:
		return u.rejected()
	case u.html:
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered HTTP %d with a web page; try again, and have the operator check what stands at its URL", s)
	case s == 0:
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server reported an error; try again")
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server failed (%s); try again", u.reply())
}

// reply is the status as the server gave it.
func (u *upstream) reply() string {
	if u.said != "" {
		return u.said
	}
	return "HTTP " + strconv.Itoa(u.status)
}

// byName recognises what servers of every make name the same way, whatever status they send it with.
func (u *upstream) byName() *schemas.Error {
	name := strings.ToLower(u.code + " " + u.kind)
	message := strings.ToLower(u.message)
	switch {
	case strings.Contains(name, "context_length"), strings.Contains(name, "exceed_context_size"),
		u.status < 500 && tooLong(message):
		return schemas.Errorf(schemas.CodeContextLength, "the request does not fit the model's context: %s; shorten the messages or lower max_tokens", u.explanation()).WithParam(u.safeParam())
	case strings.Contains(name, "content_filter"), strings.Contains(name, "content_policy"):
		return schemas.Errorf(schemas.CodeContentFilter, "the model server's content filter refused the request; change the messages")
	case strings.Contains(name, "insufficient_quota"), strings.Contains(name, "billing"), strings.Contains(name, "invalid_api_key"),
		strings.Contains(name, "authentication_error"):
		return refusedCredentials()
	case strings.Contains(name, "model_not_found"), u.status == 404 && strings.Contains(name, "notfounderror"):
		return modelNotFound()
	case strings.Contains(name, "overloaded"), u.status == http.StatusServiceUnavailable && strings.Contains(message, "server busy"): // Ollama
		return overloaded()
	}
	return nil
}

// tooLong reports whether an explanation, in lower case, says that a request does not fit the context. Not every server has
// a code for it.
func tooLong(message string) bool {
	for _, phrase := range [...]string{
		"maximum context length",                                       // OpenAI, vLLM
		"prompt is too long",                                           // Anthropic
		"max context length",                                           // Ollama's chat
		"exceeds the context length", "exceeds maximum context length", // Ollama's embeddings, its older and newer words
		"exceeds the available context size",           // llama.cpp
		"longer than the context length",               // Ollama on llama.cpp
		"exceeds the maximum number of tokens allowed", // Gemini
	} {
		if strings.Contains(message, phrase) {
			return true
		}
	}
	return false
}

// impliedStatus is the status that an error inside a stream would have had.
func (u *upstream) impliedStatus() int {
	name := strings.ToLower(u.code + " " + u.kind)
	switch {
	case strings.Contains(name, "rate_limit"), strings.Contains(name, "resource_exhausted"):
		return http.StatusTooManyRequests
	case strings.Contains(name, "invalid_request"), strings.Contains(name, "badrequest"), strings.Contains(name, "invalid_argument"):
		return http.StatusBadRequest
	case strings.Contains(name, "permission"):
		return http.StatusForbidden
	case strings.Contains(name, "not_found"):
		return http.StatusNotFound
	case strings.Contains(name, "timeout"):
		return http.StatusGatewayTimeout
	case strings.Contains(name, "request_too_large"):
		return http.StatusRequestEntityTooLarge
	}
	return 0
}

func (u *upstream) rejected() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamRejected, "the model server refused the request (%s): %s; correct it and send it again", u.reply(), u.explanation()).
		WithParam(u.safeParam())
}

func (u *upstream) misconfigured(what string) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server %s; the operator should check the backend's url", what)
}

func refusedCredentials() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamAuth, "the model server refused the operator's account; the operator should check the backend's api_key and its standing")
}

func modelNotFound() *schemas.Error {
	return schemas.Errorf(schemas.CodeModelNotFound, "the model server does not have this model; choose another, or the operator should check the backend's model").WithParam("model")
}

func overloaded() *schemas.Error {
	return schemas.Errorf(schemas.CodeOverloaded, "the model server is overloaded; try again later")
}

// explanation is the server's sentence, short and on one line.
func (u *upstream) explanation() string {
	const most = 400
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, strings.TrimRight(strings.TrimSpace(u.message), "."))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	if text == "" {
		return "it gave no reason"
	}
	return text
}

func (u *upstream) safeParam() string {
	if len(u.param) > 64 || strings.ContainsFunc(u.param, unicode.IsControl) {
		return ""
	}
	return u.param
}

// identifier returns s if it is a name rather than text.
func identifier(s string) string {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
	if len(s) > 64 || strings.Trim(s, allowed) != "" {
		return ""
	}
	return s
}
