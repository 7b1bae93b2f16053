package balance

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewRefuses(t *testing.T) {
	good := Member{Name: "a", MaxInFlight: 1}
	for want, c := range map[string]Config{
		"no members":             {},
		"no name":                {Members: []Member{{MaxInFlight: 1}}},
		"two members":            {Members: []Member{good, good}},
		"weight of \"a\" is 100": {Members: []Member{{Name: "a", MaxInFlight: 1, Weight: 1001}}},
		"max_in_flight of \"a\"": {Members: []Member{{Name: "a"}}},
		"slow start of \"a\"":    {Members: []Member{{Name: "a", MaxInFlight: 1, SlowStart: -1}}},
		"window is too short":    {Members: []Member{good}, Breaker: Breaker{Window: time.Millisecond}},
		"min_requests":           {Members: []Member{good}, Breaker: Breaker{MinRequests: -1}},
		"failures that open":     {Members: []Member{good}, Breaker: Breaker{FailureRate: 1.1}},
		"max_open":               {Members: []Member{good}, Breaker: Breaker{Open: 2 * time.Second, MaxOpen: time.Second}},
		"factor":                 {Members: []Member{good}, Affinity: Affinity{Factor: 0.5}},
		"floor must be":          {Members: []Member{good}, Adaptive: &Adaptive{Floor: time.Minute}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestWhyNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: []Member{{Name: "a", MaxInFlight: 1}, {Name: "b", MaxInFlight: 1}}})
		a := pick(t, p, Ask{})
		wake := p.Changed()
		b := pick(t, p, Ask{})
		refused(t, p, UnavailableError{Reason: Busy})
		select {
		case <-wake:
			t.Fatal("nothing has changed")
		default:
		}
		b.Done(Outcome{Result: TooMany, RetryAfter: 3 * time.Second})
		<-wake
		refused(t, p, UnavailableError{Reason: Busy, Again: 3 * time.Second})
		a.Done(Outcome{Result: TooMany, RetryAfter: 2 * time.Second})
		refused(t, p, UnavailableError{Reason: Refused, Again: 2 * time.Second})
		if again := p.Again(); again != 2*time.Second {
			t.Errorf("again in %s, want 2s", again)
		}
		p.Drain(0, true)
		refused(t, p, UnavailableError{Reason: Refused, Again: 3 * time.Second})
		p.Drain(1, true)
		refused(t, p, UnavailableError{Reason: Nobody})
		if p.Free() != 0 || p.Slots() != 0 {
			t.Errorf("%d free of %d, want none", p.Free(), p.Slots())
		}
	})
}

func TestNotAgain(t *testing.T) {
	p := pool(t, Config{Members: []Member{{Name: "a", MaxInFlight: 2}, {Name: "b", MaxInFlight: 2}}, Affinity: Affinity{On: true}})
	for _, prefix := range []uint64{0, 1, 2, 3, 4} {
		for tried := range 2 {
			call := pick(t, p, Ask{Prefix: prefix, Not: func(i int) bool { return i == tried }})
			if call.Member() == tried {
				t.Errorf("member %d was picked although it was tried", tried)
			}
			call.Done(Outcome{})
		}
	}
	_, err := p.Pick(Ask{Not: func(int) bool { return true }})
	if e, ok := errors.AsType[*UnavailableError](err); !ok || e.Reason != Nobody {
		t.Errorf("got %v, want nobody", err)
	}
}

func TestDoneCountsOnce(t *testing.T) {
	p := pool(t, Config{Members: one(2)})
	call := pick(t, p, Ask{Tokens: 10})
	call.FirstToken()
	call.FirstToken()
	call.Done(Outcome{Result: Success})
	call.Done(Outcome{Result: Failed})
	call.FirstToken()
	if s := p.State()[0]; s.InFlight != 0 || s.Tokens != 0 || p.Free() != 2 {
		t.Errorf("%+v", s)
	}
}

func TestDrainLetsCallsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: []Member{{Name: "a", MaxInFlight: 100, SlowStart: 10 * time.Second}}})
		call := pick(t, p, Ask{})
		p.Drain(0, true)
		if p.Slots() != 1 || p.Free() != 0 {
			t.Errorf("%d free of %d, want none of the one that runs", p.Free(), p.Slots())
		}
		wake := p.Changed()
		call.Done(Outcome{Result: Success})
		<-wake
		p.Drain(0, false)
		for _, want := range []int{1, 50, 100, 100} {
			if free := p.Free(); free != want {
				t.Errorf("%d are free, want %d", free, want)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: one(100)})
		refuse := func(after time.Duration) { pick(t, p, Ask{}).Done(Outcome{Result: TooMany, RetryAfter: after}) }
		refuse(7 * time.Second)
		refused(t, p, UnavailableError{Reason: Refused, Again: 7 * time.Second})
		time.Sleep(7 * time.Second)
		if free := p.Free(); free != 1 {
			t.Errorf("%d are free at once, want 1", free)
		}
		refuse(24 * time.Hour)
		refused(t, p, UnavailableError{Reason: Refused, Again: MaxRetryAfter})
		time.Sleep(MaxRetryAfter)
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} { // it does not say
			refuse(0)
			refused(t, p, UnavailableError{Reason: Refused, Again: want * time.Second})
			time.Sleep(want * time.Second)
		}
		end(t, p, 1, Success)
		time.Sleep(time.Second)
		a, b := pick(t, p, Ask{}), pick(t, p, Ask{})
		a.Done(Outcome{Result: TooMany})
		b.Done(Outcome{Result: TooMany}) // began before, so that it is the same refusal
		refused(t, p, UnavailableError{Reason: Refused, Again: time.Second})
		if s := p.State()[0]; s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
	})
}
