package bus_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// lag has the next looks for an object find nothing, as at a replica that does not have it yet.
func lag(p *bustest.Proxy, looks int) {
	look := "DIRECT.GET.OBJ_" + schemas.BucketObjects + ".$O." + schemas.BucketObjects
	p.Swap(bustest.ToServer, look+".M.", look+".N.", looks)
}

// What a replica that lags does not have is not gone.
func TestReplicaWithoutTheObject(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	want := strings.Repeat("l", schemas.InlineBytes+1)
	frame := delta("a", 0, want)
	write(t, near, alice, 0, start("a"), frame, end("a", 1))
	response := large("x")
	if err := near.PutResult(t.Context(), result(alice.Request, response)); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() (got string, err error){
		"reader": func() (string, error) {
			events, err := drain(b.Read(deadline(t, patience), alice, bus.ReadOptions{}), 0)
			return strings.Join(events, "|"), err
		},
		"chain": func() (string, error) {
			c, err := b.Chain(deadline(t, patience), alice)
			if err != nil {
				return "", err
			}
			return string(c.Frames[1].Data), nil
		},
		"body": func() (string, error) {
			body, err := b.Body(deadline(t, patience), &schemas.Request{Object: frame.Object})
			return string(body), err
		},
		"result": func() (string, error) {
			r, err := b.Result(deadline(t, patience), alice)
			if err != nil || !bytes.Equal(r.Response, response) {
				return "", err
			}
			return want, nil
		},
	} {
		for _, looks := range []int{1, 2} {
			lag(p, looks)
			if got, err := read(); err != nil || got != want {
				t.Errorf("%s, %d looks in vain: %d bytes, error %v", name, looks, len(got), err)
			}
		}
	}
}

// Nothing is taken for erased because a replica does not have it yet.
func TestErasedOnALaggingReplica(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	near := bustest.Connect(t, server, bus.Config{})
	p := bustest.NewProxy(t, server.ClientURL())
	b := connect(t, server, bus.Config{URL: p.URL()})
	write(t, near, alice, 0, start("a"), delta("a", 0, string(large("x"))), end("a", 1))
	if err := near.PutResult(t.Context(), result(alice.Request, nil)); err != nil {
		t.Fatal(err)
	}
	lag(p, 1)
	if err := b.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	wantErased(t, server, near, alice)
}

// A replica that lags for long is no proof either: whoever asked may ask again later.
func TestReplicaThatLagsForLong(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	frame := delta("a", 0, strings.Repeat("l", schemas.InlineBytes+1))
	write(t, near, alice, 0, start("a"), frame)
	lag(p, 1<<20)
	_, err := b.Body(deadline(t, patience), &schemas.Request{Object: frame.Object})
	if err == nil || errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestObjectThatTheLeaderDoesNotHave(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	frame := delta("a", 0, strings.Repeat("l", schemas.InlineBytes+1))
	write(t, b, alice, 0, start("a"), frame)
	if err := b.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	never := *frame.Object
	never.Name = alice.String() + "/never/0"
	for name, object := range map[string]*schemas.Object{"erased": frame.Object, "never stored": &never} {
		if _, err := b.Body(deadline(t, atOnce), &schemas.Request{Object: object}); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
}

// A replica that lags may have a part of a body. What it never has is damaged.
func TestReplicaWithAPartOfTheObject(t *testing.T) {
	t.Parallel()
	for name, comes := range map[string]bool{"the rest comes": true, "the rest is lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t)
			near := bustest.Connect(t, server, bus.Config{})
			p := bustest.NewProxy(t, server.ClientURL())
			b := connect(t, server, bus.Config{URL: p.URL()})
			frame := delta("a", 0, strings.Repeat("l", schemas.InlineBytes+1))
			write(t, near, alice, 0, start("a"), frame)
			putBack := cutObject(t, server)
			asked := p.At(bustest.ToServer, "STREAM.MSG.GET.OBJ_", bustest.Hold)
			var body []byte
			var err error
			done := make(chan struct{})
			ctx := deadline(t, patience)
			go func() {
				defer close(done)
				body, err = b.Body(ctx, &schemas.Request{Object: frame.Object})
			}()
			await(t, "the leader is asked", asked)
			if comes {
				putBack()
			}
			p.Set(bustest.ToServer, bustest.Pass)
			await(t, "the body is read", done)
			if comes && (err != nil || !bytes.Equal(body, frame.Data)) {
				t.Errorf("%d bytes, error %v", len(body), err)
			}
			if !comes && !errors.Is(err, bus.ErrDamaged) {
				t.Errorf("error %v, want ErrDamaged", err)
			}
		})
	}
}

// cutObject takes the last part of the only object out of its stream until putBack is called.
func cutObject(t testing.TB, server *natsd.Server) (putBack func()) {
	t.Helper()
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), "OBJ_"+schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	part, err := stream.GetLastMsgForSubject(t.Context(), "$O."+schemas.BucketObjects+".C.*")
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Clone(part.Data)
	if err := stream.DeleteMsg(t.Context(), part.Sequence); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := js.Publish(t.Context(), part.Subject, data); err != nil {
			t.Fatal(err)
		}
	}
}
