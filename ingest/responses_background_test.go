package ingest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// steps lets a test decide when a background response goes on: queued, then running with a word, then ended.
func steps() (script func(*job), start, end chan struct{}) {
	start, end = make(chan struct{}), make(chan struct{})
	return func(j *job) {
		j.wait(start)
		j.start()
		j.say("Hel")
		j.wait(end)
		j.say("lo")
		j.stop()
	}, start, end
}

func TestBackgroundResponse(t *testing.T) {
	t.Parallel()
	script, start, end := steps()
	w := setup(t, script)
	created := w.respond(respondLater).wants(t, 200, `"status":"queued"`, `"background":true`, `"metadata":{"k":"v"}`, `"output":[]`)
	id := created.member("id")
	if diff := cmp.Diff(created.body, w.response(id).wants(t, 200).body); diff != "" {
		t.Error(diff)
	}
	w.ask("GET", "/v1/responses/"+id+"/input_items", "").wants(t, 200, `"text":"hi"`)
	close(start)
	eventually(t, "a first word", func() bool { return strings.Contains(w.response(id).body, `"text":"Hel"`) })
	got := w.response(id).wants(t, 200, `"status":"in_progress","error":null`, `"usage":null`, `"metadata":{"k":"v"}`)
	if got.member("output.0.status") != "in_progress" {
		t.Errorf("output %s", got.member("output"))
	}
	w.respond(`{"model":"m","input":"x","previous_response_id":"`+id+`"}`).wants(t, 400, "has not ended")
	close(end)
	eventually(t, "the end", func() bool { return w.response(id).member("status") == "completed" })
	got = w.response(id).wants(t, 200, `"total_tokens":3`, `"metadata":{"k":"v"}`)
	if got.member("output.0.content.0.text") != "Hello" || got.member("created_at") != created.member("created_at") {
		t.Errorf("%s", got.body)
	}
}

var backgroundText = append([]string{"created", "queued"}, oneText[1:]...)

// TestReplayOfAResponse reads the events of a response from everywhere, while it runs, when it has ended, and when only
// its result is left, at another ingest.
func TestReplayOfAResponse(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	script, start, end := steps()
	w := setupOn(t, bustest.Connect(t, server, bus.Config{}), script)
	second := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	first := w.do(t.Context(), "POST", "/v1/responses", strings.Replace(respondLater, "{", `{"stream":true,`, 1))
	request := first.Header.Get("X-Request-Id")
	path := "/v1/responses/resp_" + request + "?stream=true"
	close(start)
	eventually(t, "a first word", func() bool { return strings.Contains(second.response("resp_"+request).body, "Hel") })
	running := make(chan answer, 3)
	for _, after := range []string{"", "&starting_after=1", "&starting_after=4"} {
		go func() { running <- second.ask("GET", path+after, "") }()
	}
	second.ask("GET", path+"&starting_after=6", "").wants(t, 400, "has only 6 events so far", `"param":"starting_after"`)
	second.ask("GET", path+"&starting_after=x", "").wants(t, 400, "sequence_number")
	second.ask("GET", path+"&starting_after=-1", "").wants(t, 400, "sequence_number")
	close(end)
	whole := read(first).wants(t, 200)
	if diff := cmp.Diff(backgroundText, kinds(t, whole.body)); diff != "" {
		t.Fatal(diff)
	}
	for range cap(running) {
		if got := (<-running).wants(t, 200); !strings.HasSuffix(whole.body, got.body) || got.body == "" {
			t.Errorf("while it ran: %s", got.body)
		}
	}
	second.replaysEverywhere("resp_"+request, whole.body)

	w.bury(of(request))
	result, err := w.bus.Result(t.Context(), of(request))
	if err != nil {
		t.Fatal(err)
	}
	result.RequestID = "the-result-alone"
	if err := w.bus.PutResult(t.Context(), result); err != nil {
		t.Fatal(err)
	}
	second.replaysEverywhere("resp_the-result-alone", strings.ReplaceAll(whole.body, request, "the-result-alone"))
}

// replaysEverywhere reads the events of a response that has ended from the beginning and from behind each.
func (w *bench) replaysEverywhere(id, events string) {
	w.t.Helper()
	list := strings.SplitAfter(events, "\n\n")
	list = list[:len(list)-1]
	for after := -1; after < len(list); after++ {
		path := "/v1/responses/" + id + "?stream=true"
		if after >= 0 {
			path = fmt.Sprintf("%s&starting_after=%d", path, after)
		}
		got := w.ask("GET", path, "").wants(w.t, 200)
		if kind := got.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
			w.t.Errorf("behind %d the answer is %q", after, kind)
		}
		if got.body != strings.Join(list[after+1:], "") {
			w.t.Errorf("behind %d:\n%s", after, cmp.Diff(strings.Join(list[after+1:], ""), got.body))
		}
	}
	w.ask("GET", fmt.Sprintf("/v1/responses/%s?stream=true&starting_after=%d", id, len(list)), "").wants(w.t, 400, "starting_after")
	w.ask("GET", "/v1/responses/"+id+"?stream=maybe", "").wants(w.t, 400, `"param":"stream"`)
	last := gjson.Get(dataOf(events)[len(list)-1], "response")
	if diff := cmp.Diff(last.Raw, w.response(id).wants(w.t, 200).body); diff != "" {
		w.t.Error(diff)
	}
}

// A response whose worker was faster than the frame that says that it was accepted has its request in the work item.
func TestRunningResponseWithoutAcceptedFrame(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	id := of("fast")
	token, _ := schemas.EncodeModel("m-1.5")
	work := &schemas.Work{
		Request:  schemas.Request{Identity: id, ModelToken: token, Op: schemas.OpResponses, Body: []byte(respondLater)},
		Dispatch: 1, Accepted: time.UnixMilli(1764000000999),
	}
	sequence, err := w.bus.Dispatch(t.Context(), work)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.bus.Append(t.Context(), id, 0, &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "w",
		Start: &schemas.Start{Mode: schemas.ModeFresh, Work: sequence, Dispatch: 1, Worker: "w", Accepted: work.Accepted}})
	if err != nil {
		t.Fatal(err)
	}
	got := w.response("resp_fast").wants(t, 200, `"status":"in_progress"`, `"metadata":{"k":"v"}`)
	if got.member("created_at") != "1764000000" {
		t.Errorf("created at %s", got.member("created_at"))
	}
	// The item of another request is none of this one's.
	_, err = w.bus.Append(t.Context(), of("liar"), 0, &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "w",
		Start: &schemas.Start{Mode: schemas.ModeFresh, Work: sequence, Dispatch: 1, Worker: "w"}})
	if err != nil {
		t.Fatal(err)
	}
	w.response("resp_liar").wants(t, 404)
}

// A body that is too large for a message is not stored twice, and is found while the response is queued.
func TestLargeBackgroundResponse(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	text := strings.Repeat("x", 300<<10)
	id := w.respond(`{"model":"m","background":true,"input":"`+text+`","user":"u"}`).wants(t, 200, `"status":"queued"`, `"user":"u"`).member("id")
	w.response(id).wants(t, 200, `"user":"u"`)
	w.ask("GET", "/v1/responses/"+id+"/input_items", "").wants(t, 200, text)
	chain, err := w.bus.Chain(t.Context(), of(strings.TrimPrefix(id, "resp_")))
	if err != nil || len(chain.Frames) != 1 || chain.Frames[0].Object == nil {
		t.Errorf("the chain is %+v, %v", chain.Frames, err)
	}
}

// Nobody needs to read a background response, however it was asked for and read.
func TestBackgroundResponseGoesOnAlone(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.say("x"); j.wait(nil) }, patience(10*time.Millisecond, 20*time.Millisecond))
	streamed := strings.Replace(respondLater, "{", `{"stream":true,`, 1)
	for _, id := range []string{
		strings.TrimPrefix(w.respond(respondLater).wants(t, 200).member("id"), "resp_"),
		strings.TrimPrefix(w.respond(respondLater, "Idempotency-Key", "k").wants(t, 200).member("id"), "resp_"),
		w.leave("POST", "/v1/responses", streamed),
		w.leave("POST", "/v1/responses", streamed, "Llm-Request-Id", "mine"),
	} {
		eventually(t, "a first word", func() bool { return strings.Contains(w.response("resp_"+id).body, `"text":"x"`) })
		w.leave("GET", "/v1/responses/resp_"+id+"?stream=true", "")
		w.leave("GET", "/v1/streams/"+id, "")
		w.stays(of(id), 200*time.Millisecond)
	}
}

func TestCancelResponse(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.say("half"); j.wait(nil) })
	queue := setup(t, nil)
	id := w.respond(respondLater).wants(t, 200).member("id")
	eventually(t, "a first word", func() bool { return strings.Contains(w.response(id).body, "half") })
	queued := queue.respond(respondLater).wants(t, 200).member("id")
	for _, c := range []struct {
		w  *bench
		id string
	}{{w, id}, {queue, queued}} {
		cancelled := c.w.ask("POST", "/v1/responses/"+c.id+"/cancel", "").wants(t, 200, `"status":"cancelled","error":null`)
		again := c.w.ask("POST", "/v1/responses/"+c.id+"/cancel", "").wants(t, 200)
		if cancelled.body != again.body || c.w.response(c.id).body != again.body {
			t.Errorf("cancelled twice:\n%s", cmp.Diff(cancelled.body, again.body))
		}
		c.w.ask("GET", "/v1/responses/"+c.id+"?stream=true", "").wants(t, 200, "event: response.failed\n", `"status":"cancelled"`)
	}
	done := setup(t, says("x"))
	finished := done.respond(respond).wants(t, 200)
	if got := done.ask("POST", "/v1/responses/"+finished.member("id")+"/cancel", "").wants(t, 200); got.body != finished.body {
		t.Errorf("cancelled when it had ended:\n%s", cmp.Diff(finished.body, got.body))
	}
}

func TestDeleteResponse(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.say("secret"); j.wait(nil) })
	id := w.respond(respondLater).wants(t, 200).member("id")
	eventually(t, "a first word", func() bool { return strings.Contains(w.response(id).body, "secret") })
	got := w.ask("DELETE", "/v1/responses/"+id, "").wants(t, 200)
	if want := `{"id":"` + id + `","object":"response","deleted":true}`; got.body != want {
		t.Errorf("got %s, want %s", got.body, want)
	}
	w.response(id).wants(t, 404).without(t, "secret")
	w.ask("GET", "/v1/responses/"+id+"?stream=true", "").wants(t, 404).without(t, "secret")
	w.ask("DELETE", "/v1/responses/"+id, "").wants(t, 404)
	w.respond(`{"model":"m","input":"x","previous_response_id":"`+id+`"}`).wants(t, 404, "previous_response_not_found")
}

func TestPreviousResponse(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 3)
	w := setup(t, func(j *job) { bodies <- string(j.request.Body); says("answer")(j) }, func(c *ingest.Config) { c.MaxBodyBytes = 2 << 10 })
	first := w.respond(`{"model":"m","instructions":"once","input":"one"}`).wants(t, 200).member("id")
	second := w.respond(`{"model":"m","input":"two","previous_response_id":"`+first+`"}`).wants(t, 200, `"previous_response_id":"`+first+`"`, `"instructions":null`).member("id")
	w.respond(`{"model":"m","input":[{"role":"user","content":"three"}],"previous_response_id":"`+second+`"}`).wants(t, 200)
	var last string
	for range 3 {
		last = <-bodies
	}
	var said []string
	for _, item := range gjson.Get(last, "input").Array() {
		said = append(said, item.Get("role").Str+": "+item.Get("content").String())
	}
	if len(said) != 5 || said[0] != "user: one" || !strings.Contains(said[1], "answer") || said[2] != "user: two" || said[4] != "user: three" {
		t.Errorf("the conversation is %q", said)
	}
	w.respond(`{"model":"m","input":"`+strings.Repeat("x", 1500)+`","previous_response_id":"`+second+`"}`).wants(t, 413, "conversation")
}

func TestPagesOfInputItems(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	var items []string
	for i := range 5 {
		items = append(items, fmt.Sprintf(`{"role":"user","content":"n%d"}`, i))
	}
	id := w.respond(`{"model":"m","background":true,"input":[`+strings.Join(items, ",")+`]}`).wants(t, 200).member("id")
	list := func(query string) (texts, more string) {
		got := w.ask("GET", "/v1/responses/"+id+"/input_items"+query, "").wants(t, 200, `"object":"list"`)
		return got.member("data.#.content.0.text"), got.member("has_more") + " " + got.member("last_id")
	}
	item := "in_" + strings.TrimPrefix(id, "resp_") + "_"
	for _, c := range []struct{ query, texts, more string }{
		{"", `["n4","n3","n2","n1","n0"]`, "false " + item + "0"},
		{"?order=asc&limit=2", `["n0","n1"]`, "true " + item + "1"},
		{"?order=asc&limit=2&after=" + item + "1", `["n2","n3"]`, "true " + item + "3"},
		{"?order=asc&after=" + item + "4", `[]`, "false "},
	} {
		if texts, more := list(c.query); texts != c.texts || more != c.more {
			t.Errorf("%s: %s, %s", c.query, texts, more)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=nothing"} {
		w.ask("GET", "/v1/responses/"+id+"/input_items"+query, "").wants(t, 400, "invalid_value")
	}
}
