package main

import (
	"context"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestJainIndex(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tokens []int
		want   float64
	}{
		"all the same": {[]int{5, 5, 5, 5}, 1},
		"one has all":  {[]int{9, 0, 0}, 1.0 / 3},
		"one twice":    {[]int{1, 2}, 0.9},
		"nobody":       {[]int{0, 0}, 0},
	} {
		var crowd []*visitor
		for _, tokens := range tt.tokens {
			crowd = append(crowd, &visitor{tokens: tokens})
		}
		if got := jainIndex(crowd); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// A visitor counts what came in its window, asks at its pace, and keeps errors.
func TestVisitor(t *testing.T) {
	t.Parallel()
	mock := httptest.NewServer(newMock(dials{Tokens: 3}))
	t.Cleanup(mock.Close)
	v := newVisitor(strings.TrimPrefix(mock.URL, "http://"), "t", 0)
	v.body = func() string { return `{"model":"bench","stream":true}` }
	now := time.Now()
	v.ask(t.Context(), span{now.Add(-time.Minute), now.Add(time.Minute)})
	v.ask(t.Context(), span{now.Add(-time.Minute), now.Add(-time.Second)})
	if v.tokens != 4 || len(v.first) != 1 || len(v.errs) != 0 || v.first[0] <= 0 {
		t.Errorf("%d tokens, first tokens %v, errors %v", v.tokens, v.first, v.errs)
	}
	mock.Close()
	v.ask(context.Background(), span{now, now})
	if len(v.errs) != 1 {
		t.Errorf("errors %v, want one", v.errs)
	}
}
