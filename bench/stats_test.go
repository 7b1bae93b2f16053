package main

import (
	"math"
	"testing"
)

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, test := range []struct {
		name   string
		values []int
		p      float64
		want   int
	}{
		{"of none", nil, 50, 0},
		{"of one", []int{7}, 99, 7},
		{"median of an even number is the lower", []int{4, 1, 3, 2}, 50, 2},
		{"50th of a hundred", hundred, 50, 50},
		{"99th of a hundred", hundred, 99, 99},
		{"100th", hundred, 100, 100},
		{"0th is the least", hundred, 0, 1},
	} {
		if got := percentile(test.values, test.p); got != test.want {
			t.Errorf("%s: percentile(%v) = %d, want %d", test.name, test.p, got, test.want)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of none = %v, want NaN", got)
	}
}
