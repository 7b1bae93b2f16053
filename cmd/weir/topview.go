package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// write shows the view as tables, without what there is nothing of.
func (v *topView) write(w io.Writer) {
	fmt.Fprintln(w, v.headline())
	if len(v.Routers)+len(v.Workers) == 0 {
		fmt.Fprintln(w, "\nNo router and no worker is heard: start weir serve, or name its server with --nats or --context.")
		return
	}
	table(w, "TENANT\tQUEUED\tRUNNING\tWAITING\tTOKENS/S\tLIMIT", v.Tenants, func(t topTenant) string {
		waiting := short(t.WaitingMS)
		if t.PredictMS > 0 {
			waiting += ", then " + short(t.PredictMS)
		}
		return fmt.Sprintf("%s\t%d\t%d\t%s\t%.0f\t%s", t.Tenant, t.Queued, t.Running, waiting, t.Rate, dash(t.Limit))
	})
	table(w, "MODEL\tWORKERS\tSLOTS\tUSED\tQUEUED\tON ITS WAY", v.Models, func(m topModel) string {
		return fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d", m.Model, m.Workers, m.Slots, m.Used, m.Queued, m.Outstanding)
	})
	table(w, "WORKER\tMODEL\tSLOTS\tUSED\tSTATE\tBACKENDS", v.Workers, func(r topWorker) string {
		return fmt.Sprintf("%s\t%s\t%d\t%d\t%s\t%s", r.Worker, r.Model, r.Slots, r.Used, r.State, backends(r.Backends))
	})
	table(w, "ROUTER\tPARTITIONS\tHELD\tQUEUED\tSTATE", v.Routers, func(r topRouter) string {
		return fmt.Sprintf("%s\t%s\t%d\t%d\t%s", r.Router, dash(strings.Trim(fmt.Sprint(r.Partitions), "[]")), r.Held, r.Queued, r.State)
	})
}

func (v *topView) headline() string {
	queued, running, rate := 0, 0, 0.0
	for _, r := range v.Routers {
		if r.State != "silent" {
			queued += r.Queued
		}
	}
	for _, m := range v.Models {
		running += m.Used
	}
	for _, t := range v.Tenants {
		rate += t.Rate
	}
	line := fmt.Sprintf("weir  %s  %d queued  %d running  %.0f tokens/s", v.Time.Local().Format(time.TimeOnly), queued, running, rate)
	if v.More > 0 {
		line += fmt.Sprintf("  (%d more tenants wait)", v.More)
	}
	return line
}

// table writes rows in columns under a title.
func table[T any](w io.Writer, title string, rows []T, line func(T) string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w)
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, title)
	for _, row := range rows {
		cells := strings.Split(line(row), "\t")
		for i := range cells {
			cells[i] = visible(cells[i])
		}
		fmt.Fprintln(columns, strings.Join(cells, "\t"))
	}
	_ = columns.Flush() // the writer below it keeps the error
}

// backends is how each fares: calls under way of those that it may have.
func backends(all []schemas.BackendBeat) string {
	var told []string
	for _, b := range all {
		text := fmt.Sprintf("%s %d/%d", b.Name, b.InFlight, b.Limit)
		if b.State != "" {
			text += " " + b.State
		}
		told = append(told, text)
	}
	return dash(strings.Join(told, ", "))
}

// short is a time for people.
func short(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case ms == 0:
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
