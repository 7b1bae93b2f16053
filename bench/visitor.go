package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// visitWarmup is how long visitors have been there before counting begins.
const visitWarmup = 2 * time.Second

// visitor is a tenant that asks: at a pace of its own, whatever it gets, or with so many clients that each ask again when
// they have their answer. Its figures are read once it has left.
type visitor struct {
	addr, tenant string
	every        time.Duration // between two requests; 0 = clients ask one after the other
	clients      int
	mayBeRefused bool

	http *http.Client
	body func() string

	mu      sync.Mutex
	first   []time.Duration // of the requests sent in the window
	tokens  int             // that came in the window
	refused int
	errs    []error
}

func newVisitor(addr, tenant string, every time.Duration) *visitor {
	return &visitor{
		addr: addr, tenant: tenant, every: every,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}},
		body: fairBody,
	}
}

// fairBody asks for an answer of 1 to fairTokens tokens.
func fairBody() string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"max_tokens":%d,"stream":true,"mock":{"tokens":%d,"first_us":%d,"interval_us":%d}}`,
		benchModel, strings.Repeat("word ", 40), fairTokens, 1+rand.IntN(fairTokens), fairFirst.Microseconds(), fairInterval.Microseconds())
}

// visitAll has all of them ask for the warm-up and the window, and waits until they have what they asked for.
func visitAll(ctx context.Context, crowd []*visitor, window time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, visitWarmup+window+2*time.Minute)
	defer cancel()
	begin := time.Now()
	counted := span{begin.Add(visitWarmup), begin.Add(visitWarmup + window)}
	var visiting sync.WaitGroup
	for _, v := range crowd {
		visiting.Go(func() { v.visit(ctx, counted) })
	}
	visiting.Wait()
	errs := []error{ctx.Err()}
	for _, v := range crowd {
		v.http.CloseIdleConnections()
		errs = append(errs, firstFailure(v.errs))
	}
	return errors.Join(errs...)
}

func (v *visitor) visit(ctx context.Context, counted span) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for range v.clients {
		asking.Go(func() {
			for time.Now().Before(counted.to) && ctx.Err() == nil {
				v.ask(ctx, counted)
			}
		})
	}
	if v.every == 0 {
		return
	}
	next := time.Now().Add(time.Duration(rand.Int64N(int64(v.every))))
	for ; next.Before(counted.to) && waitUntil(ctx, next); next = next.Add(v.every) {
		asking.Go(func() { v.ask(ctx, counted) })
	}
}

// ask sends a request and reads its answer to the end.
func (v *visitor) ask(ctx context.Context, counted span) {
	begin := time.Now()
	first, tokens, refused, err := v.answer(ctx, counted)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens += tokens
	switch {
	case refused && v.mayBeRefused:
		v.refused++
	case err != nil:
		v.errs = append(v.errs, fmt.Errorf("%s: %w", v.tenant, err))
	case counted.holds(begin):
		v.first = append(v.first, first.Sub(begin))
	}
}

func (v *visitor) answer(ctx context.Context, counted span) (first time.Time, tokens int, refused bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+v.addr+completionsPath, strings.NewReader(v.body()))
	if err != nil {
		return first, 0, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+keyOf(v.tenant))
	response, err := v.http.Do(request)
	if err != nil {
		return first, 0, false, err
	}
	defer func() { _, _ = io.Copy(io.Discard, response.Body); _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		refused := response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable
		return first, 0, refused, fmt.Errorf("status %s: %s", response.Status, text)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		switch line := lines.Bytes(); {
		case bytes.HasPrefix(line, []byte("data: [DONE]")):
			return first, tokens, false, nil
		case bytes.HasPrefix(line, []byte(`data: {"error"`)):
			return first, tokens, true, fmt.Errorf("the answer ended with %.300s", line)
		case bytes.HasPrefix(line, []byte("data: ")):
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			if counted.holds(now) {
				tokens++
			}
		}
	}
	return first, tokens, false, errors.Join(lines.Err(), errors.New("the answer was cut"))
}
