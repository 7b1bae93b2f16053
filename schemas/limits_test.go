package schemas

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLimitHeaders(t *testing.T) {
	reserve := &Reserve{Requests: 1, Input: 20, Output: 512, Money: 7}
	charge := &Charge{Requests: 1, Tokens: 33, Money: 5, Reserve: *reserve, Sent: time.UnixMilli(1_795_521_660_123), Of: 9}
	allowance := &Allowance{Requests: Quota{Limit: 60, Remaining: 59, Reset: time.Second}, Tokens: Quota{Limit: 1000}}
	for _, later := range []string{"", " 17 x"} { // a later version adds to them
		if got, err := ParseReserve(reserve.String() + later); err != nil || !cmp.Equal(got, reserve) {
			t.Errorf("reserve %+v, %v", got, err)
		}
		if got, err := ParseCharge(charge.String() + later); err != nil || !cmp.Equal(got, charge) {
			t.Errorf("charge %+v, %v", got, err)
		}
		if got := ParseAllowance(allowance.String() + later); !cmp.Equal(got, allowance) {
			t.Errorf("allowance %+v", got)
		}
	}
	for _, bad := range []string{"x", "1", "-1 2 3 4 5 6 7 8 9", "1 2 3 99999999999999999999 5 6 7 8 9", "1  2 3 4 5 6 7 8 9"} {
		reserve, err1 := ParseReserve(bad)
		charge, err2 := ParseCharge(bad)
		if err1 == nil || err2 == nil || reserve != nil || charge != nil || ParseAllowance(bad) != nil {
			t.Errorf("%q is read", bad)
		}
	}
	if (*Reserve)(nil).String() != "" || (*Charge)(nil).String() != "" || (&Allowance{}).String() != "" {
		t.Error("what is not there has a header")
	}
}
