package ingest_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Who reads on the subject of those that may only read ends nothing by leaving; who resumes is a reader like any other.
func TestServiceReadsWithoutAPart(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) {
		j.start()
		for !j.fenced && j.ctx.Err() == nil {
			j.delta(1)
			<-time.After(20 * time.Millisecond)
		}
	}, patience(50*time.Millisecond, 50*time.Millisecond))
	c := n.tenant("acme")
	id := schemas.Identity{Tenant: "acme", Request: "direct"}
	if _, err := n.bus.Accept(t.Context(), &schemas.Request{Identity: id, ModelToken: "m", Op: schemas.OpChat, Body: []byte(bareStream)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first event", func() bool {
		chain, err := n.bus.Chain(t.Context(), id)
		return err == nil && chain.Next() > 0
	})
	leave := func(subject string) {
		sub := c.open(subject, "")
		next(t, sub)
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
	leave(schemas.ReadSubject(id))
	n.stays(id, 1500*time.Millisecond) // longer than it takes to notice
	leave(schemas.ResumeSubject(id))
	if e, err := schemas.DecodeError(n.terminal(id).Data); err != nil || e.Code != schemas.CodeCancelled {
		t.Errorf("the request ended with %v, %v", e, err)
	}
	c.ask("llm.read.acme.none", "").wantsError(t, "404", "stream_not_found")
}
