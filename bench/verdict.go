package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// limit is something that Weir must meet, and what was measured.
type limit struct {
	what     string
	want     string
	measured float64
	format   string
	met      bool
}

// judge compares the figures with the limits that can be judged with the targets that took part.
func judge(all figures, idle *idleFigures, targets []*target) []limit {
	ran := func(name string) bool {
		return slices.ContainsFunc(targets, func(t *target) bool { return t.name == name })
	}
	var limits []limit
	if ran("nginx") && ran("process") {
		for _, l := range []struct {
			scenario string
			least    float64
		}{{"streamed", 0.40}, {"unary", 0.18}} {
			ratio := all.median("process", l.scenario, answersPerSecond) / all.median("nginx", l.scenario, answersPerSecond)
			limits = append(limits, limit{l.scenario + " answers/s, process over nginx", fmt.Sprintf("at least %.2f", l.least), ratio, "%.2f", ratio >= l.least})
		}
	}
	if ran("direct") && ran("process") {
		extra := all.median("process", "single", firstTokenP50) - all.median("direct", "single", firstTokenP50)
		limits = append(limits, limit{"first token p50, 1 client, process over direct, ms", "at most 2.0", extra, "%.2f", extra <= 2.0})
	}
	if idle != nil {
		limits = append(limits,
			limit{"idle serve, resident MB", "at most 60", idle.residentMB, "%.1f", idle.residentMB <= 60},
			limit{"serve ready on an empty store, s", "at most 1", idle.readySeconds, "%.2f", idle.readySeconds <= 1})
	}
	return limits
}

// writeVerdict prints the limits. A limit that is missed is an error unless the run was too short to judge.
func writeVerdict(w io.Writer, limits []limit, quick bool) error {
	fmt.Fprint(w, "| limit | want | measured | |\n|---|---|---|---|\n")
	missed := 0
	for _, l := range limits {
		mark := "pass"
		if !l.met {
			mark = "FAIL"
			missed++
		}
		fmt.Fprintf(w, "| %s | %s | "+l.format+" | %s |\n", l.what, l.want, l.measured, mark)
	}
	switch {
	case quick:
		fmt.Fprintln(w, "\nA quick run: the figures mean nothing and are not judged.")
	case missed > 0:
		return errors.New(fmt.Sprint(missed, " of ", len(limits), " limits missed"))
	}
	return nil
}
