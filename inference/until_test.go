package inference

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestEndingAt(t *testing.T) {
	t.Parallel()
	why, sooner := errors.New("its time is over"), errors.New("somebody left")
	for name, c := range map[string]struct {
		after, cancelled time.Duration
		want             error
		ends             time.Duration
	}{
		"at its end":               {after: time.Minute, cancelled: time.Hour, want: why, ends: time.Minute},
		"cancelled":                {after: time.Hour, cancelled: time.Minute, want: sooner, ends: time.Minute},
		"its end has passed":       {after: -time.Second, cancelled: time.Hour, want: why},
		"its end is at its making": {cancelled: time.Hour, want: why},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := endingAt(t.Context(), began.Add(c.after), why)
				defer cancel(nil)
				if ctx.Err() == nil != (c.ends > 0) {
					t.Errorf("at once it has ended with %v", ctx.Err())
				}
				time.AfterFunc(c.cancelled, func() { cancel(sooner) })
				if end, ok := ctx.Deadline(); !ok || !end.Equal(began.Add(c.after)) {
					t.Errorf("it tells %v, %t as its end", end, ok)
				}
				child, stop := context.WithCancel(ctx)
				defer stop()
				<-child.Done()
				if took := time.Since(began); context.Cause(child) != c.want || took != c.ends {
					t.Errorf("ended after %v with %v, want %v after %v", took, context.Cause(child), c.want, c.ends)
				}
				time.Sleep(2 * time.Hour) // what comes later changes nothing
				if context.Cause(ctx) != c.want {
					t.Errorf("later its cause is %v", context.Cause(ctx))
				}
			})
		})
	}
}
