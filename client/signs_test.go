package client_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// playDoor starts a server and connects to it as a door does.
func playDoor(t *testing.T) (*natsd.Server, *nats.Conn) {
	t.Helper()
	server, err := newServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	door, err := nats.Connect(server.ClientURL(), nats.UserInfo(server.EdgeUser()), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	return server, door
}

// A door may be silent for longer than a client waits for one that is gone, unless it is asked for signs of life.
func TestCompleteAsksForSigns(t *testing.T) {
	t.Parallel()
	server, door := playDoor(t)
	_, err := door.Subscribe(schemas.ChatAll, func(m *nats.Msg) {
		if m.Header.Get(schemas.HeaderStreamEvents) == schemas.TakesSigns {
			_ = m.Respond([]byte("\n"))
		}
		frame := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "door", Count: 1}
		answer := nats.NewMsg(m.Reply)
		answer.Header[schemas.HeaderFrame] = []string{frame.Header()}
		answer.Header[schemas.HeaderRequestID] = []string{m.Header.Get(schemas.HeaderRequestID)}
		answer.Data = []byte(`{"signed":` + map[bool]string{true: "true", false: "false"}[m.Header.Get(schemas.HeaderStreamEvents) != ""] + `}`)
		_ = door.PublishMsg(answer)
		_ = m.Respond(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := door.Flush(); err != nil {
		t.Fatal(err)
	}
	c, ctx := way{"tenant", server.ClientURL(), client.Config{Tenant: "acme", APIKey: apiKey}}.connect(t, server.ClientURL())
	got, err := c.Complete(ctx, words(`"words":["a"]`))
	if err != nil || string(got.Data) != `{"signed":true}` {
		t.Errorf("the answer is %s, %v", got.Data, err)
	}
}
