package balance

import (
	"errors"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Adaptive makes the calls that may run on a member follow its time to first token, below MaxInFlight: fewer when first
// tokens get late, more when there is demand and they do not. A zero field is its default.
type Adaptive struct {
	// Ceiling is too late whatever is usual: 9 of 10 first tokens must come within it. Default 30s.
	Ceiling time.Duration

	// Floor is never too late, whatever is usual. Default 200ms.
	Floor time.Duration
}

func (a Adaptive) withDefaults() (Adaptive, error) {
	if a.Ceiling == 0 {
		a.Ceiling = 30 * time.Second
	}
	if a.Floor == 0 {
		a.Floor = min(200*time.Millisecond, a.Ceiling)
	}
	if a.Floor < 0 || a.Ceiling < a.Floor {
		return a, errors.New("floor must be positive and not longer than ceiling; 200ms and 30s are the defaults")
	}
	return a, nil
}

// Validate reports a setting that cannot be meant.
func (a Adaptive) Validate() error {
	_, err := a.withDefaults()
	return err
}

const (
	tolerance   = 1.5 // of what is usual: later is too late
	backOff     = 0.8 // of the limit is left when first tokens are too late
	learnAfter  = 10  // samples of a size before anything is usual for it
	maxSamples  = 64  // of one look
	minSamples  = 10
	shortLook   = time.Second      // at least
	longestLook = 10 * time.Second // then fewer samples must do
	burst       = 5                // failures, and a fifth of all, are too many in one look
)

// limiter is the limit of one member that adapts. The usual time to first token is kept by size of prompt, and learned
// only while all is well: falls soon, rises slowly and only while there is room to spare, so that a long overload does
// not become usual. When cutting the limit by half made nothing better, the slowness is not made by us: it becomes what
// is usual, up to the ceiling, rather than starve the member.
type limiter struct {
	Adaptive
	most  int
	limit int
	usual [6]struct {
		seconds float64
		samples int
	}
	cut     time.Duration // when the limit was lowered last: what began before says nothing about it
	trouble struct {      // since first tokens are too late
		limit int // then
		ratio float64
	}
	look look
}

// look is what was seen since the last decision.
type look struct {
	began    time.Duration
	n        int // samples, of which the last maxSamples are kept
	seconds  [maxSamples]float64
	ratios   [maxSamples]float64
	sizes    [maxSamples]uint8
	peak     int // most in flight
	ended    int
	failures int
}

// newLimiter returns nil without a: all methods of a nil limiter do nothing.
func newLimiter(a *Adaptive, most int) (*limiter, error) {
	if a == nil {
		return nil, nil
	}
	config, err := a.withDefaults()
	if err != nil {
		return nil, err
	}
	// Not from the top: what is usual must be learned before it is crowded.
	return &limiter{Adaptive: config, most: most, limit: min(most, max(4, most/4))}, nil
}

func (l *limiter) bound(most int) int {
	if l == nil {
		return most
	}
	return l.limit
}

func (l *limiter) started(inFlight int) {
	if l != nil {
		l.look.peak = max(l.look.peak, inFlight)
	}
}

// sample notes a first token, or that there was none for so long.
func (l *limiter) sample(took time.Duration, prompt int64, now time.Duration) {
	if l == nil || now-took < l.cut {
		return
	}
	size := min(bits.Len64(uint64(max(prompt, 0))>>8)+1, 2*len(l.usual)-1) / 2 // up to 256 tokens, 1 Ki, 4 Ki, …
	usual, ratio := &l.usual[size], 1.0
	if usual.samples < learnAfter {
		usual.samples++
		usual.seconds += (took.Seconds() - usual.seconds) / float64(usual.samples)
	} else if usual.seconds > 0 {
		ratio = took.Seconds() / usual.seconds
	}
	i := l.look.n % maxSamples
	l.look.seconds[i], l.look.ratios[i], l.look.sizes[i] = took.Seconds(), ratio, uint8(size)
	l.look.n++
	l.decide(now)
}

// ended notes how a call ended.
func (l *limiter) ended(failed bool, now time.Duration) {
	if l == nil {
		return
	}
	l.look.ended++
	if failed {
		l.look.failures++
		l.decide(now)
	}
}

// decide sets the limit anew when enough was seen.
func (l *limiter) decide(now time.Duration) {
	k := &l.look
	bursting := k.failures >= burst && k.failures*5 >= k.ended
	long := now - k.began
	if long < shortLook || k.n < minSamples && !bursting && long < longestLook {
		return
	}
	before := l.limit
	if k.n >= 3 || bursting {
		l.judge(bursting)
	}
	if l.limit < before {
		l.cut = now
	}
	l.look = look{began: now}
}

func (l *limiter) judge(bursting bool) {
	n := min(l.look.n, maxSamples)
	late, ratio := quantile(l.look.seconds[:n], 0.9), quantile(l.look.ratios[:n], 0.9)
	tooLate := late > l.Ceiling.Seconds()
	switch {
	case !tooLate && !bursting && (ratio <= tolerance || late <= l.Floor.Seconds()):
		l.well(n)
	case l.trouble.limit == 0:
		l.trouble.limit, l.trouble.ratio = l.limit, ratio
		l.less()
	case !tooLate && !bursting && l.limit <= max(1, l.trouble.limit*55/100) && ratio > 0.9*l.trouble.ratio:
		for i := range l.usual {
			l.usual[i].seconds *= quantile(l.look.ratios[:n], 0.5)
		}
		l.limit, l.trouble.limit = l.trouble.limit, 0
	default:
		l.less()
	}
}

func (l *limiter) less() { l.limit = max(1, int(float64(l.limit)*backOff)) }

// well learns what is usual, and raises the limit when it was nearly used up.
func (l *limiter) well(n int) {
	l.trouble.limit = 0
	crowded := 10*l.look.peak >= 9*l.limit
	for i := range n {
		usual := &l.usual[l.look.sizes[i]]
		switch difference := l.look.seconds[i] - usual.seconds; {
		case difference < 0:
			usual.seconds += difference / 5
		case !crowded:
			usual.seconds += difference / 50
		}
	}
	if crowded {
		l.limit = min(l.most, l.limit+int(math.Ceil(math.Sqrt(float64(l.limit)))))
	}
}

// quantile is 0 of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	var sorted [maxSamples]float64
	n := copy(sorted[:], values)
	slices.Sort(sorted[:n])
	return sorted[min(n-1, int(q*float64(n)))]
}
