package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// Rows read at a time. No transaction stays open between pages, because the write-ahead log cannot be folded into the
// file past the oldest reader.
const (
	pageRows        = 256
	pageRowsPayload = 16
)

const selectLatest = `SELECT r.metadata, p.payload FROM results r LEFT JOIN payloads p ON p.id = r.id
WHERE r.tenant = ? AND r.request_id = ? ORDER BY r.accepted DESC LIMIT 1`

// Get implements [sink.Store].
func (s *Store) Get(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	var metadata, payload []byte
	err := s.read.QueryRowContext(ctx, selectLatest, id.Tenant, id.Request).Scan(&metadata, &payload)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", id, sink.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	return s.codec.Decode(metadata, payload)
}

// List implements [sink.Store].
func (s *Store) List(ctx context.Context, query sink.Query) iter.Seq2[*schemas.Result, error] {
	return func(yield func(*schemas.Result, error) bool) {
		left := query.Limit
		for {
			page := pageSize(query)
			if query.Limit > 0 {
				page = min(page, left)
			}
			results, err := s.page(ctx, query, page)
			if err != nil {
				yield(nil, fmt.Errorf("list results: %w", err))
				return
			}
			for _, r := range results {
				if !yield(r, nil) {
					return
				}
			}
			left -= len(results)
			if len(results) < page || query.Limit > 0 && left == 0 {
				return
			}
			query.After = sink.PositionOf(results[len(results)-1])
		}
	}
}

func pageSize(query sink.Query) int {
	if query.Payload {
		return pageRowsPayload
	}
	return pageRows
}

func (s *Store) page(ctx context.Context, query sink.Query, size int) ([]*schemas.Result, error) {
	text, args := listSQL(query, size)
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var results []*schemas.Result
	for rows.Next() {
		var metadata, payload []byte
		if err := rows.Scan(&metadata, &payload); err != nil {
			return nil, err
		}
		r, err := s.codec.Decode(metadata, payload)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, rows.Err()
}

// listSQL selects a page. Its texts are constant; what comes from outside is in args.
func listSQL(query sink.Query, size int) (text string, args []any) {
	var where []string
	add := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	order, follows := "ASC", ">"
	if query.Newest {
		order, follows = "DESC", "<"
	}
	if query.Tenant != "" {
		add("r.tenant = ?", query.Tenant)
	}
	if query.Status != "" {
		add("r.status = ?", query.Status)
	}
	if !query.Since.IsZero() {
		add("r.accepted >= ?", millis(query.Since))
	}
	if !query.Until.IsZero() {
		add("r.accepted < ?", millis(query.Until))
	}
	if p := query.After; p != nil {
		add("(r.accepted, r.tenant, r.request_id) "+follows+" (?, ?, ?)", millis(p.Accepted), p.Identity.Tenant, p.Identity.Request)
	}
	text = "SELECT r.metadata, NULL FROM results r"
	if query.Payload {
		text = "SELECT r.metadata, p.payload FROM results r LEFT JOIN payloads p ON p.id = r.id"
	}
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	text += fmt.Sprintf(" ORDER BY r.accepted %[1]s, r.tenant %[1]s, r.request_id %[1]s LIMIT ?", order)
	return text, append(args, size)
}
