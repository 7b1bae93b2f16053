// Package sqlite keeps results in one SQLite file, without cgo. It is the store of a single machine: one process writes,
// which a lock beside the file makes sure of, and any number may read.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/weir-llm/weir/sink"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers bounds the reads that run at once.
const readers = 4

// Config of a [Store].
type Config struct {
	Path string // required: the file, made if it is not there; its directory must exist
	// ReadOnly opens a file that another process may be writing, for replay and listings: no lock, no migration, and
	// Put and Erase fail.
	ReadOnly bool
}

// Store is a [sink.Store] in a SQLite file.
type Store struct {
	path  string
	codec *sink.Codec
	write *sql.DB    // one connection; nil if read-only
	puts  statements // of write
	read  *sql.DB
	lock  *os.File
}

var _ sink.Store = (*Store)(nil)

// Open locks the file, brings its tables up to date and checks that it can be used. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("open store: no file is named")
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Path, err)
	}
	s := &Store{path: path}
	if err := s.open(ctx, cfg.ReadOnly); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, readOnly bool) (err error) {
	if s.codec, err = sink.NewCodec(); err != nil {
		return err
	}
	if readOnly {
		if _, err := os.Stat(s.path); err != nil {
			return err
		}
		return s.openReaders(ctx, "ro")
	}
	// goose has no lock for SQLite, and two sinks on one file would only wait for each other.
	if s.lock, err = lockFile(s.path + ".lock"); err != nil {
		return err
	}
	if err := s.create(); err != nil {
		return err
	}
	if err := s.openWriter(ctx); err != nil {
		return err
	}
	return s.openReaders(ctx, "rw")
}

// create makes a file that only its owner reads: it holds what was asked and answered. SQLite would let everybody read it,
// and gives its log the mode of the file. One that is there keeps the mode it was given.
func (s *Store) create() error {
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// openWriter opens the only connection that writes: SQLite has one writer at a time, and waiting for a connection is
// fair while waiting for a lock is polling.
//
// WAL lets reads go on meanwhile. synchronous is FULL because what is committed is acknowledged to the bus, which
// forgets it: NORMAL may lose the last commits when power fails. secure_delete overwrites what is erased. The log is
// folded into the file every 16 MiB: pages at the end of tables change with every commit, and each is written once.
func (s *Store) openWriter(ctx context.Context) (err error) {
	s.write, err = sql.Open("sqlite", s.dsn("rwc", "immediate",
		"busy_timeout(10000)", "auto_vacuum(incremental)", "journal_mode(WAL)", "synchronous(FULL)",
		"foreign_keys(1)", "secure_delete(1)", "wal_autocheckpoint(4000)", "journal_size_limit(67108864)"))
	if err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := s.migrate(ctx); err != nil {
		return err
	}
	s.puts, err = prepare(ctx, s.write)
	return err
}

func (s *Store) openReaders(ctx context.Context, mode string) (err error) {
	s.read, err = sql.Open("sqlite", s.dsn(mode, "deferred", "busy_timeout(10000)", "query_only(1)"))
	if err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(1)
	return s.read.PingContext(ctx)
}

func (s *Store) dsn(mode, lock string, pragmas ...string) string {
	query := url.Values{"mode": {mode}, "_txlock": {lock}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: s.path, RawQuery: query.Encode()}).String()
}

func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the tables: %w", err)
	}
	if current > known {
		return fmt.Errorf("its tables have version %d and this program knows up to %d: start the newer program that wrote it", current, known)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the tables from version %d to %d: %w", current, known, err)
	}
	return nil
}

// Close waits for the calls under way, folds the write-ahead log into the file and releases the lock.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
