package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
)

// What usage is summed up by.
const (
	byTenant = "tenant"
	byModel  = "model"
	byDay    = "day"
)

// usageAsked is what the flags of the command say.
type usageAsked struct {
	tenant string
	since  time.Duration
	by     []string
}

func (c *cli) usageCommand() *cobra.Command {
	var u usageAsked
	cmd := &cobra.Command{
		Use:     "usage",
		GroupID: groupUse,
		Short:   "Show tokens and cost by tenant, model and day",
		Long: `Sums up what requests took, by tenant, model and day, from the database, or, where
there is none, from the results on NATS, which go back about a day. Days are those
of UTC, and the cost is by the prices of the configuration at that time.

Answers from the cache, or shared with an equal request, count as saved: no model
read or wrote their tokens.`,
		Example: "  weir usage --since 720h --by tenant\n  weir usage --tenant acme --by day,model --json",
		Args:    arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, by := range u.by {
				if by != byTenant && by != byModel && by != byDay {
					return usageError{fmt.Errorf("--by %q is not known: use tenant, model or day, or several with commas", by), cmd.CommandPath()}
				}
			}
			if u.since < 0 {
				return usageError{errors.New("--since is negative: write how far back, such as 24h"), cmd.CommandPath()}
			}
			return c.usage(cmd.Context(), u)
		},
	}
	cmd.Flags().StringVar(&u.tenant, "tenant", "", "only requests of this `tenant`")
	cmd.Flags().DurationVar(&u.since, "since", 0, "only requests accepted in the last `duration`, such as 24h; default all that is known")
	cmd.Flags().StringSliceVar(&u.by, "by", []string{byTenant, byModel, byDay}, "`what` to sum up by: tenant, model, day")
	return cmd
}

func (c *cli) usage(ctx context.Context, u usageAsked) error {
	if u.tenant != "" {
		if err := schemas.ValidateTenant(u.tenant); err != nil {
			return err
		}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	query := sink.Query{Tenant: u.tenant}
	if u.since > 0 {
		query.Since = time.Now().Add(-u.since)
	}
	days, err := c.days(ctx, cfg, query)
	if err != nil {
		return err
	}
	rows := summed(days, u.by)
	if c.json {
		encoder := json.NewEncoder(c.stdout)
		for i := range rows {
			if err := encoder.Encode(&rows[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return writeUsage(c.stdout, rows, u.by)
}

// days reads the database, or the log when there is no database.
func (c *cli) days(ctx context.Context, cfg *Config, query sink.Query) ([]sink.Day, error) {
	store, err := sqlite.Open(ctx, sqlite.Config{Path: cfg.Sink.Path, ReadOnly: true})
	if err == nil {
		defer func() { _ = store.Close() }() // nothing was written
		return store.Days(ctx, query)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fmt.Fprintf(c.stderr, "there is no database at %s (--data-dir): reading the results on NATS, which go back about a day\n", cfg.Sink.Path)
	return c.daysOfLog(ctx, cfg, query)
}

// daysOfLog sums up the results that the bus still has.
func (c *cli) daysOfLog(ctx context.Context, cfg *Config, query sink.Query) (days []sink.Day, err error) {
	b, err := c.log(ctx, cfg, "usage")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	from := query.Since
	if from.IsZero() {
		from = time.UnixMilli(1) // zero would be from now on
	}
	seen := map[schemas.Identity]bool{} // a server that restarts meanwhile gives some twice
	for r, err := range b.TailResults(ctx, query.Tenant, from, false) {
		if err != nil {
			return nil, err
		}
		if id := r.Identity(); !seen[id] && !r.Accepted.Before(query.Since) {
			seen[id] = true
			days = append(days, sink.DayOf(r))
		}
		if len(days) >= foldAt {
			days = folded(days)
		}
	}
	return folded(days), nil
}

// foldAt is how many results are kept apart before they are summed up.
const foldAt = 4096

// folded sums up what is of one day, tenant, model and currency.
func folded(days []sink.Day) []sink.Day {
	return summedDays(days, func(d sink.Day) sink.Day {
		return sink.Day{Day: d.Day, Tenant: d.Tenant, Model: d.Model, Currency: d.Currency}
	})
}

// summedDays sums up the days of the same key, which has no sums of its own, in the order of the first of each.
func summedDays(days []sink.Day, key func(sink.Day) sink.Day) []sink.Day {
	index := map[sink.Day]int{}
	var sums []sink.Day
	for _, d := range days {
		k := key(d)
		at, ok := index[k]
		if !ok {
			at = len(sums)
			index[k] = at
			sums = append(sums, k)
		}
		sums[at].Add(d)
	}
	return sums
}

// usageRow is a line of the report.
type usageRow struct {
	Day        string `json:"day,omitempty"`
	Tenant     string `json:"tenant,omitempty"`
	Model      string `json:"model,omitempty"`
	Requests   int64  `json:"requests"`
	Failed     int64  `json:"failed"`
	Saved      int64  `json:"saved"`
	Prompt     int64  `json:"prompt_tokens"`
	Completion int64  `json:"completion_tokens"`
	Total      int64  `json:"total_tokens"`
	Cost       string `json:"cost,omitempty"` // a decimal, which no reader rounds; without currency there is none
	Currency   string `json:"currency,omitempty"`
}

// summed is the report, in the order of what it is by. Costs in several currencies stand in a row each; requests without
// a cost stand in the first of these.
func summed(days []sink.Day, by []string) []usageRow {
	sums := summedDays(days, func(d sink.Day) sink.Day {
		k := sink.Day{Currency: d.Currency}
		if slices.Contains(by, byTenant) {
			k.Tenant = d.Tenant
		}
		if slices.Contains(by, byModel) {
			k.Model = d.Model
		}
		if slices.Contains(by, byDay) {
			k.Day = d.Day
		}
		return k
	})
	slices.SortFunc(sums, func(a, b sink.Day) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Currency, b.Currency))
	})
	sums = withoutCostless(sums)
	rows := make([]usageRow, len(sums))
	for i, d := range sums {
		rows[i] = usageRow{
			Tenant: d.Tenant, Model: d.Model, Requests: d.Requests, Failed: d.Failed, Saved: d.Saved,
			Prompt: d.Prompt, Completion: d.Completion, Total: d.Prompt + d.Completion, Currency: d.Currency,
		}
		if !d.Day.IsZero() {
			rows[i].Day = d.Day.Format(time.DateOnly)
		}
		if d.Currency != "" {
			rows[i].Cost = d.Cost.String()
		}
	}
	return rows
}

// withoutCostless adds each sum without a currency to the one behind it when both are of the same.
func withoutCostless(sums []sink.Day) (rows []sink.Day) {
	for i, d := range sums {
		if next := i + 1; d.Currency == "" && next < len(sums) {
			if n := &sums[next]; n.Day.Equal(d.Day) && n.Tenant == d.Tenant && n.Model == d.Model {
				n.Add(d)
				continue
			}
		}
		rows = append(rows, d)
	}
	return rows
}

func writeUsage(w io.Writer, rows []usageRow, by []string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "No request has ended in that time.")
		return err
	}
	var title strings.Builder
	for _, column := range []string{byDay, byTenant, byModel} {
		if slices.Contains(by, column) {
			title.WriteString(strings.ToUpper(column) + "\t")
		}
	}
	var text strings.Builder
	table(&text, title.String()+"REQUESTS\tFAILED\tSAVED\tPROMPT\tCOMPLETION\tTOTAL\tCOST", rows, func(r usageRow) string {
		var cells []string
		for _, cell := range []struct{ by, value string }{{byDay, r.Day}, {byTenant, r.Tenant}, {byModel, r.Model}} {
			if slices.Contains(by, cell.by) {
				cells = append(cells, dash(strings.ReplaceAll(cell.value, "\t", " ")))
			}
		}
		for _, n := range []int64{r.Requests, r.Failed, r.Saved, r.Prompt, r.Completion, r.Total} {
			cells = append(cells, fmt.Sprint(n))
		}
		return strings.Join(append(cells, dash(strings.TrimSpace(r.Cost+" "+r.Currency))), "\t")
	})
	_, err := io.WriteString(w, strings.TrimPrefix(text.String(), "\n"))
	return err
}
