package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// checkLimit bounds one check. Each takes some seconds at most, and longer on a machine that is busy.
const checkLimit = 90 * time.Second

// report prints and counts the checks.
type report struct {
	out            io.Writer
	passed, failed int
}

// check runs one check within its limit.
func (r *report) check(ctx context.Context, name string, check func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	r.add(name, check(ctx))
}

func (r *report) add(name string, err error) {
	if err == nil {
		r.passed++
		fmt.Fprintf(r.out, "ok    %s\n", name)
		return
	}
	r.failed++
	fmt.Fprintf(r.out, "FAIL  %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "\n      "))
}

// close prints the counts. After a failure it also prints what the server said.
func (r *report) close(s *server) error {
	if r.failed > 0 {
		fmt.Fprintf(r.out, "weir serve printed:\n%s\n", s.output())
	}
	fmt.Fprintf(r.out, "%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		return fmt.Errorf("%d checks failed", r.failed)
	}
	return nil
}
