package openai

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/tidwall/gjson"
)

// maxRetryAfter bounds what a server may ask for, so that a broken clock there does not look like a wish.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads retry-after-ms, or Retry-After in seconds or as a date. A date is taken relative to the reply's own
// Date when it has one, so that two clocks need not agree. What makes no sense is 0.
func RetryAfter(h http.Header) time.Duration {
	if ms, ok := positive(h.Get("Retry-After-Ms")); ok {
		return bounded(ms * float64(time.Millisecond))
	}
	value := h.Get("Retry-After")
	if seconds, ok := positive(value); ok {
		return bounded(seconds * float64(time.Second))
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return bounded(float64(at.Sub(now)))
}

func positive(s string) (float64, bool) {
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && n >= 0 && !math.IsNaN(n)
}

func bounded(d float64) time.Duration { return time.Duration(min(max(d, 0), float64(maxRetryAfter))) }

// retryInfo reads a google.rpc.RetryInfo among the details of an error, which is where Gemini says it.
func retryInfo(details gjson.Result) (after time.Duration) {
	if !details.IsArray() {
		return 0
	}
	details.ForEach(func(_, detail gjson.Result) bool {
		d, err := time.ParseDuration(detail.Get("retryDelay").Str)
		if err == nil {
			after = bounded(float64(d))
		}
		return err != nil
	})
	return after
}
