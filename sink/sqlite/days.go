package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

const dayMillis = 24 * 60 * 60 * 1000

// selectDays sums up by day. A request is saved when the cache says so, as [schemas.CacheStatus.Saved] does, and it did
// not fail; a record that was erased completed or not, nobody knows any more.
const selectDays = `SELECT accepted / ?, tenant, model, currency, count(*),
	sum(status NOT IN ('completed', 'deleted')),
	sum(cache IN ('HIT', 'COALESCED') AND status IN ('completed', 'deleted')),
	sum(CASE WHEN cache IN ('HIT', 'COALESCED') THEN 0 ELSE prompt_tokens END),
	sum(CASE WHEN cache IN ('HIT', 'COALESCED') THEN 0 ELSE completion_tokens END),
	sum(CASE WHEN cache IN ('HIT', 'COALESCED') THEN 0 ELSE cost END)
FROM results WHERE (? = '' OR tenant = ?) AND accepted >= ? AND accepted < ?
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`

// Days implements [sink.Store].
func (s *Store) Days(ctx context.Context, query sink.Query) ([]sink.Day, error) {
	since, until := int64(0), int64(1)<<62
	if !query.Since.IsZero() {
		since = millis(query.Since)
	}
	if !query.Until.IsZero() {
		until = millis(query.Until)
	}
	rows, err := s.read.QueryContext(ctx, selectDays, dayMillis, query.Tenant, query.Tenant, since, until)
	if err != nil {
		return nil, fmt.Errorf("sum up results: %w", err)
	}
	defer rows.Close()
	var days []sink.Day
	for rows.Next() {
		var d sink.Day
		var day, cost int64
		if err := rows.Scan(&day, &d.Tenant, &d.Model, &d.Currency, &d.Requests, &d.Failed, &d.Saved, &d.Prompt, &d.Completion, &cost); err != nil {
			return nil, fmt.Errorf("sum up results: %w", err)
		}
		d.Day, d.Cost = time.UnixMilli(day*dayMillis).UTC(), schemas.Money(cost)
		days = append(days, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sum up results: %w", err)
	}
	return days, nil
}
