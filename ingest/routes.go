package ingest

import (
	"net/http"
	"strings"

	"github.com/weir-llm/weir/schemas"
)

// route is one row of the table of routes.
type route struct {
	method, path string
	handle       func(*call) error
}

// surface is the routes that speak one dialect. Without one it is for the caller to say, as on routes that clients of
// every dialect use.
type surface struct {
	dialect *dialect
	routes  []route
}

func (s *Ingest) surfaces() []surface {
	return []surface{
		{nil, s.routes()},
		{messages, []route{
			{"POST", "/v1/messages", s.messages},
			{"POST", "/v1/messages/count_tokens", s.countTokens},
		}},
	}
}

func (s *Ingest) routes() []route {
	return []route{
		{"POST", "/v1/chat/completions", s.chat},
		{"POST", "/v1/responses", s.createResponse},
		{"GET", "/v1/responses/{id}", s.retrieveResponse},
		{"DELETE", "/v1/responses/{id}", s.deleteResponse},
		{"POST", "/v1/responses/{id}/cancel", s.cancelResponse},
		{"GET", "/v1/responses/{id}/input_items", s.inputItems},
		{"POST", "/v1/completions", s.completion},
		{"POST", "/v1/embeddings", s.embedding},
		{"GET", "/v1/models", s.models},
		{"GET", "/v1/models/{id...}", s.model},
		{"GET", "/v1/streams/{id}", s.stream},
		{"DELETE", "/v1/streams/{id}", s.erase},
		{"GET", "/v1/streams/{id}/result", s.result},
		{"POST", "/v1/streams/{id}/cancel", s.cancel},
	}
}

func (s *Ingest) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	for _, surface := range s.surfaces() {
		allowed := make(map[string][]string)
		for _, r := range surface.routes {
			mux.Handle(r.method+" "+r.path, s.door(r.path, surface.dialect, r.handle))
			allowed[r.path] = append(allowed[r.path], r.method)
		}
		for path, methods := range allowed {
			mux.Handle(path, s.refuse(path, surface.dialect, wrongMethod(methods)))
			mux.Handle("HEAD "+path, s.refuse(path, surface.dialect, wrongMethod(methods)))
		}
	}
	mux.Handle("/v1/messages/", s.refuse("unknown", messages, unknownRoute))
	mux.Handle("/", s.refuse("unknown", nil, unknownRoute))
	return s.bodiesInTime(s.cors.handler(mux))
}

// door is what every request to the API passes: the checks of who calls and from where, the span, the metrics, and the
// answer to an error. Authorisation rests on the routed pattern, never on a path put together again.
func (s *Ingest) door(path string, d *dialect, handle func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.newCall(w, r, path, d)
		defer c.end()
		leave, err := s.enter(c)
		if err != nil {
			c.fail(err)
			return
		}
		defer leave()
		if err := handle(c); err != nil {
			c.fail(err)
		}
	})
}

// enter lets a call in, as one of its key's tenant, until leave is called.
func (s *Ingest) enter(c *call) (leave func(), err error) {
	if err := checkHead(c.r); err != nil {
		return nil, err
	}
	key, err := s.authenticate(c.r)
	if err == nil {
		err = authorize(&key, c.r.Method)
	}
	if err != nil {
		return nil, err
	}
	return c.admit(key), nil
}

// refuse answers what no route takes. It needs no key: it tells nothing that is not in the documentation.
func (s *Ingest) refuse(path string, d *dialect, handle func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.newCall(w, r, path, d)
		defer c.end()
		_ = handle(c)
	})
}

func wrongMethod(methods []string) func(*call) error {
	allow := strings.Join(methods, ", ")
	return func(c *call) error {
		c.w.Header().Set("Allow", allow)
		return c.writeError(http.StatusMethodNotAllowed, schemas.Errorf(schemas.CodeUnsupported, "%s is not possible here: use %s", c.r.Method, allow))
	}
}

func unknownRoute(c *call) error {
	next := "the API is under /v1, for example POST /v1/chat/completions"
	if !strings.HasPrefix(c.r.URL.Path, "/v1/") {
		next += "; the base URL of an OpenAI SDK must end in /v1"
	}
	if c.dialect == messages {
		next = "send POST /v1/messages; the base URL of an Anthropic SDK must not end in /v1"
	}
	return c.writeError(http.StatusNotFound, schemas.Errorf(schemas.CodeNotFound, "there is no %s %.100q: %s", c.r.Method, c.r.URL.Path, next))
}
