package ingest_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// jetError is the code of an error of JetStream, or 0.
func jetError(data []byte) int64 { return gjson.GetBytes(data, "error.err_code").Int() }

// An id of another tenant is answered as one that never was: the same words after the same reads, by HTTP and by NATS.
func TestIsolationOfOtherIDs(t *testing.T) {
	t.Parallel()
	both := ring(t, keys.Configured{ID: "1", SHA256: hashOf("ann's"), Tenant: "ann"}, keys.Configured{ID: "2", SHA256: hashOf("bob's"), Tenant: "bob"})
	n := setupNATS(t, func(j *job) {
		if j.request.Op == schemas.OpResponses {
			says("x")(j)
			return
		}
		tokens(2)(j)
	}, func(c *ingest.Config) { c.Keys = both })
	asAnn, asBob := []string{"Authorization", "Bearer ann's"}, []string{"Authorization", "Bearer bob's"}
	id := n.chat(streaming, asBob...).wants(t, 200).id()
	running := n.chat(streaming, append(asBob, "Llm-Request-Id", strings.Repeat("r", len(id)))...).wants(t, 200).id()
	unknown := "req_" + strings.Repeat("0", len(id)-4)
	response := strings.TrimPrefix(n.respond(respond, asBob...).wants(t, 200).member("id"), "resp_")
	for _, request := range []string{id, running, response} {
		n.hasResult("bob", request) // whoever writes a result reads its chain first
	}
	reads := n.reads()
	ask := map[string]func(id string) string{}
	for _, route := range []string{
		"GET /v1/streams/ID", "DELETE /v1/streams/ID", "GET /v1/streams/ID/result", "POST /v1/streams/ID/cancel", "GET /v1/streams/ID?starting_after=0",
		"GET /v1/responses/resp_ID", "GET /v1/responses/resp_ID?stream=true", "DELETE /v1/responses/resp_ID", "POST /v1/responses/resp_ID/cancel",
		"GET /v1/responses/resp_ID/input_items",
	} {
		method, path, _ := strings.Cut(route, " ")
		ask[route] = func(id string) string {
			got := n.ask(method, strings.Replace(path, "ID", id, 1), "", asAnn...).wants(t, 404, "not_found")
			got.header.Del("Date")
			got.header.Del("Openai-Processing-Ms")
			var all strings.Builder
			_ = got.header.Write(&all)
			return all.String() + got.body
		}
	}
	ann := n.tenant("ann")
	for _, subject := range []string{"llm.resume.ann.", "llm.cancel.ann."} {
		ask[subject] = func(id string) string {
			got := ann.ask(subject+id, "")
			got.wantsError(t, "404", "stream_not_found")
			return got.String()
		}
	}
	for route, ask := range ask {
		var answers, seen []string
		for _, id := range []string{unknown, id, running, response} {
			reads.forget()
			answers = append(answers, strings.ReplaceAll(ask(id), id, "<id>"))
			seen = append(seen, strings.ReplaceAll(reads.told(), id, "<id>"))
		}
		for i := range answers {
			if diff := cmp.Diff(answers[0], answers[i]); diff != "" {
				t.Errorf("%s: an unknown id and one of bob's are answered differently:\n%s", route, diff)
			}
			if diff := cmp.Diff(seen[0], seen[i]); diff != "" || seen[0] == "" {
				t.Errorf("%s: the reads differ (-unknown +bob's):\n%s", route, diff)
			}
		}
	}
	// The owner finds it, by the same first read.
	reads.forget()
	n.ask("GET", "/v1/streams/"+id, "", asBob...).wants(t, 200, sse(id, 0, 2))
	if told := reads.told(); !strings.Contains(told, "llm.replies.bob."+id) {
		t.Errorf("reads of the owner: %s", told)
	}
	n.tenant("bob").ask("llm.resume.bob."+id, "").wantsEvents(t, 0, 2)
	n.ask("GET", "/v1/responses/resp_"+response, "", asBob...).wants(t, 200, `"text":"x"`)
	n.ask("DELETE", "/v1/streams/"+id, "", asBob...).wants(t, 200)
}

// readLog is what the bus asks JetStream.
type readLog struct {
	t     *testing.T
	bus   *bus.Bus
	sub   *nats.Subscription
	marks int
}

func (n *natsBench) reads() *readLog {
	n.t.Helper()
	l := &readLog{t: n.t, bus: n.bus}
	c := n.trusted()
	var err error
	if l.sub, err = c.conn.SubscribeSync(">"); err == nil {
		err = c.conn.FlushTimeout(longEnough)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	l.forget()
	return l
}

func (l *readLog) forget() { l.told() }

// pulls come by themselves, from the fake behind the door, and the state of streams is looked at once a second.
var background = regexp.MustCompile(`CONSUMER\.|STREAM\.INFO|API\.INFO|ACK`)

// told are the reads since it was last called. The bus marks the end of them by a message of its own: the server handles
// the messages of one connection in order. A reader's subscription is not a read of the stream.
func (l *readLog) told() string {
	l.t.Helper()
	l.marks++
	mark := fmt.Sprint("mark-", l.marks)
	l.bus.Event(mark, nil)
	var all []string
	for {
		msg, err := l.sub.NextMsg(longEnough)
		switch {
		case err != nil:
			l.t.Fatal(err)
		case msg.Subject == schemas.EventSubject(mark):
			return strings.Join(all, "\n")
		case strings.HasPrefix(msg.Subject, "$JS.API.") && !background.MatchString(msg.Subject):
			all = append(all, msg.Subject+" "+string(msg.Data))
		}
	}
}
