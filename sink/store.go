package sink

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Store keeps results for good. Package storetest defines what an engine must do; every method is safe for concurrent
// use, and reads go on while a write is under way.
//
// A record is known by its identity and its time of acceptance, to the millisecond: the identity alone may be used again
// once the bus has forgotten it.
type Store interface {
	// Put keeps all of results or none, and returns nil only when they would survive a loss of power. A record that is
	// there already changes nothing, whatever it holds. A record with [schemas.StatusDeleted] erases what is there, as
	// Erase does, and keeps what it erases from coming back. A [RecordError] says which of them can never be kept.
	Put(ctx context.Context, results []*schemas.Result) error
	// Get gives the record of the id that was accepted last, or ErrNotFound.
	Get(ctx context.Context, id schemas.Identity) (*schemas.Result, error)
	// List yields the records that match, in the order of their acceptance. An error ends the sequence. No lock and no
	// transaction is held while the caller looks at a record.
	List(ctx context.Context, query Query) iter.Seq2[*schemas.Result, error]
	// Days sums up what matches tenant and time of the query, in the order of day, tenant and model. What was erased counts: it
	// cost the same.
	Days(ctx context.Context, query Query) ([]Day, error)
	// Erase removes the payload of every record of the id and leaves tombstones, or ErrNotFound.
	Erase(ctx context.Context, id schemas.Identity) error
	// Close waits for the calls under way. The store cannot be used afterwards.
	Close() error
}

// ErrNotFound says that the store has no such record.
var ErrNotFound = errors.New("no such result")

// RecordError says that the store works but can never keep the record at Index of what was put.
type RecordError struct {
	Index int
	Err   error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("record %d cannot be kept: %v", e.Index, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// Query selects records. The zero value selects all of them, without payloads.
type Query struct {
	Tenant  string         // empty: of every tenant
	Status  schemas.Status // empty: any
	Since   time.Time      // accepted then or later; zero: no bound
	Until   time.Time      // accepted before; zero: no bound
	After   *Position      // only what follows this record, to go on from a page
	Newest  bool           // newest first
	Limit   int            // at most so many; 0: all
	Payload bool           // with request, response and events
}

// Position is a record's place in a listing.
type Position struct {
	Accepted time.Time
	Identity schemas.Identity
}

// PositionOf is the place of r.
func PositionOf(r *schemas.Result) *Position {
	return &Position{Accepted: r.Accepted, Identity: r.Identity()}
}
