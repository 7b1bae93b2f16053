package bus_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

func result(id string, response []byte) *schemas.Result {
	return &schemas.Result{
		V: schemas.Version, Tenant: "acme", RequestID: id, Model: "echo", Op: schemas.OpChat, Attempts: 1,
		Accepted: time.Now().UTC(), Finished: time.Now().UTC(), Status: schemas.StatusCompleted, Response: response,
	}
}

// large is a response that needs the object store.
func large(letter string) json.RawMessage {
	return json.RawMessage(`"` + string(bytes.Repeat([]byte(letter), schemas.InlineBytes)) + `"`)
}

func TestFirstResultWins(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	buses := []*bus.Bus{bustest.Connect(t, server, bus.Config{}), connect(t, server, bus.Config{URL: server.ClientURL()})}
	for round := range 20 {
		id := fmt.Sprint("r-", round)
		responses := []json.RawMessage{json.RawMessage(`"0"`), json.RawMessage(`"1"`)}
		if round%4 == 0 {
			responses = []json.RawMessage{large("0"), large("1")}
		}
		var all sync.WaitGroup
		for i, b := range buses {
			all.Go(func() {
				if err := b.PutResult(t.Context(), result(id, responses[i])); err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		all.Wait()
		first, err := buses[0].Result(t.Context(), schemas.Identity{Tenant: "acme", Request: id})
		if err != nil || !slices.ContainsFunc(responses, func(r json.RawMessage) bool { return bytes.Equal(r, first.Response) }) {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := buses[1].PutResult(t.Context(), result(id, []byte(`"late"`))); err != nil {
			t.Errorf("a late writer: %v", err)
		}
		if again, err := buses[1].Result(t.Context(), first.Identity()); err != nil || !bytes.Equal(again.Response, first.Response) {
			t.Errorf("round %d: the result has changed, error %v", round, err)
		}
	}
	if got := objects(t, server); len(got) != 5 {
		t.Errorf("%d payloads for 5 large results", len(got))
	}
}

func TestNoResult(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	if _, err := b.Result(t.Context(), alice); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("no result: %v, want ErrNotFound", err)
	}
	r := result(alice.Request, large("x"))
	if err := b.PutResult(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	_, js := raw(t, server)
	store, err := js.ObjectStore(t.Context(), schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), objects(t, server)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Result(t.Context(), alice); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("a result without its payload: %v, which must not look like none", err)
	}
	if _, err := connect(t, bustest.Server(t), bus.Config{}).Result(t.Context(), alice); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("a missing stream: %v, which must not look like no result", err)
	}
}

// A stream without room is waited for. When the answer to the try that found room is lost, the next one finds a record
// there and must not take it for another's, whose payload it would remove.
func TestResultWaitsForRoomAndKeepsItsPayload(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	near := bustest.Connect(t, server, bus.Config{StoreBytes: 4 << 20})
	p := bustest.NewProxy(t, server.ClientURL())
	b := connect(t, server, bus.Config{URL: p.URL()})
	_, js := raw(t, server)
	fillResults(t, js)
	done := make(chan error, 1)
	ctx := deadline(t, patience)
	r := result(alice.Request, large("x"))
	go func() { done <- b.PutResult(ctx, r) }()
	eventually(t, "the payload is stored", func() bool { return len(objects(t, server)) == 1 })
	await(t, "it tries again", p.At(bustest.ToServer, alice.Result(), bustest.Pass))
	p.Set(bustest.ToClient, bustest.Hold)
	stream, err := js.Stream(t.Context(), schemas.StreamResults)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the commit", func() bool { _, err := near.Result(t.Context(), alice); return err == nil })
	p.Cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := near.Result(t.Context(), alice); err != nil || !bytes.Equal(got.Response, r.Response) {
		t.Errorf("the payload is gone: %v", err)
	}
}

// fillResults leaves no room for even a small record.
func fillResults(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	for _, size := range []int{200 << 10, 20 << 10, 2 << 10, 200, 20} {
		for i := 0; ; i++ {
			filler := make([]byte, size)
			if _, err := rand.Read(filler); err != nil { // random, because the stream compresses
				t.Fatal(err)
			}
			subject := schemas.Identity{Tenant: "filler", Request: fmt.Sprint(size, "-", i)}.Result()
			if _, err := js.Publish(t.Context(), subject, filler); err != nil {
				break
			}
			if i > 1000 {
				t.Fatal("the stream does not fill up")
			}
		}
	}
}

func TestEraseLeavesATombstone(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	bob := schemas.Identity{Tenant: "acme", Request: "r-1-1"} // begins like alice's
	for _, id := range []schemas.Identity{alice, bob} {
		write(t, b, id, 0, start("a"), delta("a", 0, string(large("x"))), end("a", 1))
		if err := b.PutResult(t.Context(), result(id.Request, large("x"))); err != nil {
			t.Fatal(err)
		}
	}
	before, err := b.Result(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it can be repeated
		if err := b.Erase(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		wantErased(t, server, b, alice)
	}
	after, err := b.Result(t.Context(), alice)
	if err != nil || !after.Accepted.Equal(before.Accepted) || after.Model != "echo" || after.Op != schemas.OpChat {
		t.Errorf("%+v, error %v", after, err)
	}
	wantSealed(t, b, alice)
	if err := b.PutResult(t.Context(), result(alice.Request, large("y"))); err != nil {
		t.Errorf("who finishes late: %v", err)
	}
	wantErased(t, server, b, alice)
	if got, err := b.Result(t.Context(), bob); err != nil || len(got.Response) == 0 || len(chain(t, b, bob).Frames) != 3 || len(objects(t, server)) != 2 {
		t.Errorf("another request was touched: %v", err)
	}
}

// The error that ended an answer stays, so that an item that is still queued finds the request ended.
func TestEraseKeepsTheEndOfAFailedAnswer(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	write(t, b, alice, 0, start("a"), delta("a", 0, "x"), failure("a", 1, schemas.Errorf(schemas.CodeCancelled, "the request was cancelled")))
	if err := b.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	if c := chain(t, b, alice); len(c.Frames) != 1 || c.Terminal() == nil {
		t.Errorf("%d frames are left", len(c.Frames))
	}
	wantErased(t, server, b, alice)
}

// Whatever there is of a chain, an erasure leaves it closed, and nothing in it that was said.
func TestErasedChainIsClosed(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	for name, frames := range map[string][]*schemas.Frame{
		"streamed": {start("a"), delta("a", 0, "secret"), end("a", 1)},
		"whole":    {start("a"), {Kind: schemas.KindEnd, Attempt: 1, Writer: "a", Count: 1, Data: []byte(`"secret"`)}},
		"large":    {start("a"), {Kind: schemas.KindEnd, Attempt: 1, Writer: "a", Count: 1, Data: large("secret")}},
		"a hit":    {{Kind: schemas.KindEnd, Writer: "router", Count: 2, Data: []byte("secret\nsecret"), BodyHash: "h"}},
		"damaged":  {start("a"), delta("a", 0, "secret")},
		"no more":  nil,
	} {
		id := schemas.Identity{Tenant: "acme", Request: "r-" + strings.ReplaceAll(name, " ", "-")}
		write(t, b, id, 0, frames...)
		if name == "damaged" {
			if _, err := js.Publish(t.Context(), id.Chunks(), []byte("secret")); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.PutResult(t.Context(), result(id.Request, nil)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it can be repeated
			if err := b.Erase(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			wantErased(t, server, b, id)
			wantSealed(t, b, id)
		}
		if _, err := b.Append(t.Context(), id, 0, start("late")); !errors.Is(err, bus.ErrFenced) {
			t.Errorf("%s: a late claim: %v", name, err)
		}
		for f, err := range b.Read(deadline(t, patience), id, bus.ReadOptions{}) {
			if err == nil { // of a chain of which no event is known
				err = decodeError(t, f)
			}
			wantCode(t, err, schemas.CodeStreamExpired)
		}
	}
}

// An erasure that was cut off before it removed the frames is made up for by the next.
func TestErasureThatWasCutOff(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	write(t, b, alice, 0, start("a"), delta("a", 0, "secret"), end("a", 1), failure("eraser", 1, schemas.Deleted()))
	var seen []schemas.Kind
	for f, err := range b.Read(deadline(t, patience), alice, bus.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, f.Kind)
	}
	if want := []schemas.Kind{schemas.KindStart, schemas.KindDelta, schemas.KindEnd}; !slices.Equal(seen, want) {
		t.Errorf("a reader meanwhile sees %v, want %v", seen, want)
	}
	if err := b.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	wantSealed(t, b, alice)
}

// wantSealed checks that of a chain only an error is left.
func wantSealed(t testing.TB, b *bus.Bus, id schemas.Identity) {
	t.Helper()
	c := chain(t, b, id)
	if len(c.Frames) != 1 || c.Last().Kind != schemas.KindError || c.Last().Count != 0 {
		t.Fatalf("%s: %d frames are left, the last of them %+v", id, len(c.Frames), c.Last())
	}
	if e := decodeError(t, c.Last()); e.Code != schemas.CodeStreamExpired {
		t.Errorf("%s: it ends in %v", id, e)
	}
}

func decodeError(t testing.TB, f *schemas.Frame) *schemas.Error {
	t.Helper()
	e, err := schemas.DecodeError(f.Data)
	if err != nil {
		t.Fatalf("%s: %v", f.Data, err)
	}
	return e
}

// Whoever finishes the request between the look of who erases it and the tombstone has been faster, and loses all the same.
func TestEraseRacesWithWhoFinishes(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	near := bustest.Connect(t, server, bus.Config{})
	p := bustest.NewProxy(t, server.ClientURL())
	b := connect(t, server, bus.Config{URL: p.URL()})
	for round, response := range []json.RawMessage{json.RawMessage(`"x"`), large("x")} {
		id := schemas.Identity{Tenant: "acme", Request: fmt.Sprint("r-", round)}
		late := p.At(bustest.ToServer, "HPUB "+id.Result(), bustest.Hold)
		done := make(chan error, 1)
		ctx := deadline(t, patience)
		go func() { done <- b.Erase(ctx, id) }()
		await(t, "the tombstone is on its way", late)
		if err := near.PutResult(t.Context(), result(id.Request, response)); err != nil {
			t.Fatal(err)
		}
		p.Set(bustest.ToServer, bustest.Pass)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantErased(t, server, near, id)
	}
}

// wantErased checks that nothing is left of what was asked and answered.
func wantErased(t testing.TB, server *natsd.Server, b *bus.Bus, id schemas.Identity) {
	t.Helper()
	r, err := b.Result(t.Context(), id)
	if err != nil || r.Status != schemas.StatusDeleted || r.Response != nil || r.Request != nil || r.Events != nil {
		t.Errorf("%s: %+v, error %v", id, r, err)
	}
	for _, name := range objects(t, server) {
		if (&schemas.Object{Name: name}).BelongsTo(id) {
			t.Errorf("%s is left", name)
		}
	}
}

// objects are the names in LLM_OBJECTS.
func objects(t testing.TB, server *natsd.Server) (names []string) {
	t.Helper()
	_, js := raw(t, server)
	store, err := js.ObjectStore(t.Context(), schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := store.List(t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Fatal(err)
	}
	for _, info := range infos {
		names = append(names, info.Name)
	}
	return names
}
