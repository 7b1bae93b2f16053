package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

var errReadOnly = errors.New("the store was opened to read only")

const (
	insertResult = `INSERT INTO results (tenant, request_id, accepted, started, finished, model, op, priority, status, code,
	prompt_tokens, completion_tokens, total_tokens, attempts, first_token_ms, duration_ms, worker, cache, bytes, erased_through, metadata, cost, currency)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?)
ON CONFLICT (tenant, request_id, accepted) DO NOTHING`
	insertPayload = `INSERT INTO payloads (id, payload) VALUES (?, ?)`
	selectErasure = `SELECT EXISTS (SELECT 1 FROM results WHERE erased_through IS NOT NULL)`
	selectErased  = `SELECT EXISTS (SELECT 1 FROM results WHERE tenant = ? AND request_id = ? AND erased_through >= ?)`

	selectErasable = `SELECT id, metadata FROM results WHERE tenant = ? AND request_id = ? AND accepted <= ?`
	updateErased   = `UPDATE results SET status = ?, code = '', worker = '', bytes = 0, metadata = ?,
	erased_through = max(coalesce(erased_through, 0), ?) WHERE id = ?`
	deletePayload = `DELETE FROM payloads WHERE id = ?`
)

// Put implements [sink.Store].
func (s *Store) Put(ctx context.Context, results []*schemas.Result) error {
	return s.transact(ctx, "store results", func(ctx context.Context, tx *sql.Tx) error {
		b := batch{tx: tx, codec: s.codec, now: time.Now(), puts: s.puts.within(ctx, tx)}
		if err := b.puts.erasure.QueryRowContext(ctx).Scan(&b.erasures); err != nil {
			return err
		}
		for i, r := range results {
			if err := b.put(ctx, r); permanent(err) {
				return &sink.RecordError{Index: i, Err: err}
			} else if err != nil {
				return err
			}
		}
		return nil
	})
}

// Erase implements [sink.Store].
func (s *Store) Erase(ctx context.Context, id schemas.Identity) error {
	err := s.transact(ctx, "erase "+id.String(), func(ctx context.Context, tx *sql.Tx) error {
		b := batch{tx: tx, codec: s.codec, now: time.Now()}
		n, err := b.erase(ctx, id, b.now)
		if err == nil && n == 0 {
			return sink.ErrNotFound
		}
		return err
	})
	if err != nil {
		return err
	}
	// The erased pages are still in the log. A reader may keep some of it in use, then the next checkpoint gets it.
	if _, err := s.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return fmt.Errorf("erase %s from the write-ahead log: %w", id, err)
	}
	return nil
}

func (s *Store) transact(ctx context.Context, what string, do func(context.Context, *sql.Tx) error) error {
	if s.write == nil {
		return fmt.Errorf("%s: %w", what, errReadOnly)
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	// A transaction is short and runs to its end: the driver starts a goroutine for every statement to watch a context
	// that can end.
	ctx = context.WithoutCancel(ctx)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := do(ctx, tx); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", what, err), rollback(tx))
	}
	if err := tx.Commit(); err != nil {
		return errors.Join(fmt.Errorf("%s: commit: %w", what, err), rollback(tx))
	}
	return nil
}

// rollback leaves the connection free. SQLite rolls back by itself when the disk is full, which is no second error.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) && code(err) != sqlite3.SQLITE_ERROR {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// batch is one transaction.
type batch struct {
	tx    *sql.Tx
	codec *sink.Codec
	now   time.Time

	// Of puts alone.
	puts     statements // they end with the transaction
	parts    sink.Parts
	erasures bool // there are tombstones, so that every record must be looked up among them
}

// statements are what puts run. They are compiled once, because compiling costs more than running.
type statements struct{ erasure, isErased, result, payload *sql.Stmt }

func prepare(ctx context.Context, db *sql.DB) (s statements, err error) {
	for text, stmt := range map[string]**sql.Stmt{
		selectErasure: &s.erasure, selectErased: &s.isErased, insertResult: &s.result, insertPayload: &s.payload,
	} {
		if *stmt, err = db.PrepareContext(ctx, text); err != nil {
			return s, err
		}
	}
	return s, nil
}

// within are the statements in a transaction, with which they end.
func (s statements) within(ctx context.Context, tx *sql.Tx) statements {
	return statements{
		erasure: tx.StmtContext(ctx, s.erasure), isErased: tx.StmtContext(ctx, s.isErased),
		result: tx.StmtContext(ctx, s.result), payload: tx.StmtContext(ctx, s.payload),
	}
}

func (b *batch) put(ctx context.Context, r *schemas.Result) error {
	if r.Status == schemas.StatusDeleted {
		b.erasures = true
		through := sink.ErasedThrough(r, b.now)
		if _, err := b.erase(ctx, r.Identity(), through); err != nil {
			return err
		}
		return b.insert(ctx, sink.Tombstone(r), through)
	}
	erased := b.erasures
	if erased {
		if err := b.puts.isErased.QueryRowContext(ctx, r.Tenant, r.RequestID, millis(r.Accepted)).Scan(&erased); err != nil {
			return err
		}
	}
	if erased {
		return b.insert(ctx, sink.Tombstone(r), r.Accepted)
	}
	return b.insert(ctx, r, time.Time{})
}

// insert keeps r unless it is there. erasedThrough is that of a tombstone, else zero.
func (b *batch) insert(ctx context.Context, r *schemas.Result, erasedThrough time.Time) error {
	b.codec.Encode(&b.parts, r)
	var usage schemas.Usage
	if r.Usage != nil {
		usage = *r.Usage
	}
	var cost schemas.Cost
	if r.Cost != nil {
		cost = *r.Cost
	}
	// Each value has the type that the driver takes, so that none is converted by reflection.
	done, err := b.puts.result.ExecContext(ctx,
		r.Tenant, r.RequestID, millis(r.Accepted), optional(r.Started), optional(r.Finished), r.Model, string(r.Op), string(r.Priority),
		string(r.Status), string(sink.ErrorCode(r)), usage.PromptTokens, usage.CompletionTokens, usage.TotalTokens, int64(r.Attempts),
		r.FirstTokenMS, r.DurationMS, r.Worker, string(r.Cache), int64(len(b.parts.Payload)), optional(erasedThrough), b.parts.Metadata,
		int64(cost.Amount), cost.Currency)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 || b.parts.Payload == nil {
		return err
	}
	id, err := done.LastInsertId()
	if err != nil {
		return err
	}
	_, err = b.puts.payload.ExecContext(ctx, id, b.parts.Payload)
	return err
}

// erase turns the records of an id that were accepted until through into tombstones.
func (b *batch) erase(ctx context.Context, id schemas.Identity, through time.Time) (int, error) {
	found, err := b.erasable(ctx, id, through)
	if err != nil {
		return 0, err
	}
	for row, metadata := range found {
		r, err := b.codec.Decode([]byte(metadata), nil)
		if err != nil {
			return 0, err
		}
		tombstone := sink.Tombstone(r).Encode()
		if _, err := b.tx.ExecContext(ctx, updateErased, schemas.StatusDeleted, string(tombstone), millis(through), row); err != nil {
			return 0, err
		}
		if _, err := b.tx.ExecContext(ctx, deletePayload, row); err != nil {
			return 0, err
		}
	}
	return len(found), nil
}

func (b *batch) erasable(ctx context.Context, id schemas.Identity, through time.Time) (map[int64]string, error) {
	rows, err := b.tx.QueryContext(ctx, selectErasable, id.Tenant, id.Request, millis(through))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[int64]string)
	for rows.Next() {
		var row int64
		var metadata string
		if err := rows.Scan(&row, &metadata); err != nil {
			return nil, err
		}
		found[row] = metadata
	}
	return found, rows.Err()
}

// permanent reports whether err is about the record and not about the store.
func permanent(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH:
		return true
	}
	return false
}

// code is the primary SQLite result code of err, or 0.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

func millis(t time.Time) int64 { return t.UnixMilli() }

// optional stores the zero time as NULL.
func optional(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return millis(t)
}
