package schemas

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A header that is there more than once is one list, so that no "off" is overheard.
func TestCacheDirectivesOnSeveralLines(t *testing.T) {
	got, err := ParseCacheDirective(Header{HeaderCache: {"on", "max-age=60", "max-age=5, no-cache"}})
	if diff := cmp.Diff(CacheDirective{Mode: CacheOn, NoCache: true, HasMaxAge: true, MaxAge: 5}, got); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
	if got, err := ParseCacheDirective(Header{HeaderCache: {"on", "off"}}); err == nil {
		t.Errorf("on and off are %+v", got)
	}
}
