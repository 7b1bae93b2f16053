package sqlite

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "odd name ?&#%.db")
		return func(t *testing.T) sink.Store { return open(t, Config{Path: path}) }
	})
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// setup opens a store in a new directory until the end of the test.
func setup(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "results.db")
	s := open(t, Config{Path: path})
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

func TestSettingsThatDurabilityNeeds(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "auto_vacuum": "2", "secure_delete": "1", "foreign_keys": "1"} {
		var got string
		if err := s.write.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", pragma, got, err, want)
		}
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	t.Parallel()
	_, path := setup(t)
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestFullDiskLosesNothingAndRecovers(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	first := storetest.Record("acme", "first", 0)
	if err := s.Put(t.Context(), []*schemas.Result{first}); err != nil {
		t.Fatal(err)
	}
	setMaxPages(t, s, 1) // as many as there are
	big := storetest.Record("acme", "big", 1)
	big.RequestRaw = randomBytes(1 << 20)
	err := s.Put(t.Context(), []*schemas.Result{storetest.Record("acme", "small", 2), big})
	if code(err) != sqlite3.SQLITE_FULL {
		t.Fatalf("put to a full disk: %v, want SQLITE_FULL", err)
	}
	if _, ok := errors.AsType[*sink.RecordError](err); ok {
		t.Error("a full disk is blamed on the record")
	}
	if got, err := s.Get(t.Context(), first.Identity()); err != nil || got.Response == nil {
		t.Errorf("what was kept before: %v, %v", got, err)
	}
	if _, err := s.Get(t.Context(), schemas.Identity{Tenant: "acme", Request: "small"}); !errors.Is(err, sink.ErrNotFound) {
		t.Errorf("part of the batch was kept: %v", err)
	}
	setMaxPages(t, s, 1<<30)
	if err := s.Put(t.Context(), []*schemas.Result{big}); err != nil {
		t.Errorf("put when there is room again: %v", err)
	}
}

func setMaxPages(t *testing.T, s *Store, n int) {
	t.Helper()
	var got int
	if err := s.write.QueryRowContext(t.Context(), "PRAGMA max_page_count = "+strconv.Itoa(n)).Scan(&got); err != nil {
		t.Fatal(err)
	}
}

func TestRecordThatCanNeverBeKeptIsNamed(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	if _, err := s.write.ExecContext(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON results WHEN NEW.request_id = 'bad'
BEGIN SELECT RAISE(ABORT, 'refused'); END`); err != nil {
		t.Fatal(err)
	}
	err := s.Put(t.Context(), []*schemas.Result{storetest.Record("acme", "good", 0), storetest.Record("acme", "bad", 1)})
	bad, ok := errors.AsType[*sink.RecordError](err)
	if !ok || bad.Index != 1 {
		t.Fatalf("put: %v, want a RecordError for index 1", err)
	}
	if err := s.Put(t.Context(), []*schemas.Result{storetest.Record("acme", "good", 0)}); err != nil {
		t.Errorf("put without the bad record: %v", err)
	}
}

func TestMigrationsAreIdempotent(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	if err := s.Put(t.Context(), []*schemas.Result{storetest.Record("acme", "kept", 0)}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.migrate(t.Context()); err != nil {
			t.Fatalf("migrate again: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Path: path})
	defer again.Close()
	if _, err := again.Get(t.Context(), schemas.Identity{Tenant: "acme", Request: "kept"}); err != nil {
		t.Errorf("after migrating again: %v", err)
	}
}

func TestTablesOfANewerProgramAreRefused(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Path: path})
	if err == nil || !strings.Contains(err.Error(), "start the newer program") {
		t.Errorf("open: %v, want what to do about a newer version", err)
	}
}

func TestOneWriterAnyReaders(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	r := storetest.Record("acme", "shared", 0)
	if err := s.Put(t.Context(), []*schemas.Result{r}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Path: path}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second writer: %v, want that another process writes", err)
	}
	reader := open(t, Config{Path: path, ReadOnly: true})
	defer reader.Close()
	if _, err := reader.Get(t.Context(), r.Identity()); err != nil {
		t.Errorf("read beside the writer: %v", err)
	}
	later := storetest.Record("acme", "later", 1)
	if err := s.Put(t.Context(), []*schemas.Result{later}); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Get(t.Context(), later.Identity()); err != nil {
		t.Errorf("read what was written since: %v", err)
	}
	if err := reader.Put(t.Context(), []*schemas.Result{r}); !errors.Is(err, errReadOnly) {
		t.Errorf("put through a reader: %v", err)
	}
	if err := reader.Erase(t.Context(), r.Identity()); !errors.Is(err, errReadOnly) {
		t.Errorf("erase through a reader: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	notSQLite := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(notSQLite, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no path":             {},
		"missing directory":   {Path: filepath.Join(t.TempDir(), "missing", "results.db")},
		"missing, read-only":  {Path: filepath.Join(t.TempDir(), "results.db"), ReadOnly: true},
		"not a database":      {Path: notSQLite},
		"a directory as file": {Path: t.TempDir()},
	} {
		if s, err := Open(t.Context(), cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// A process that is killed leaves its files as they are, without a checkpoint.
func TestWhatWasPutIsThereAfterAKill(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	want := storetest.Record("acme", "kept", 0)
	if err := s.Put(t.Context(), []*schemas.Result{want}); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "results.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, Config{Path: left})
	defer after.Close()
	if got, err := after.Get(t.Context(), want.Identity()); err != nil || !bytes.Equal(got.Response, want.Response) {
		t.Errorf("after the kill: %v, %v", got, err)
	}
}

// What is erased must not be found in the files either.
func TestErasedBytesAreGone(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	secret := storetest.Record("acme", "secret", 0)
	canary := randomBytes(4 << 10)
	secret.Error = schemas.Errorf(schemas.CodeUpstreamRejected, "the model said canary-in-the-error").Encode()
	secret.RequestRaw = canary
	if err := s.Put(t.Context(), []*schemas.Result{secret}); err != nil {
		t.Fatal(err)
	}
	record := payload(t, s)
	if err := s.Erase(t.Context(), secret.Identity()); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, record[:1024]) || bytes.Contains(data, []byte("canary-in-the-error")) {
			t.Errorf("results.db%s still holds what was erased", suffix)
		}
	}
}

func payload(t *testing.T, s *Store) (record []byte) {
	t.Helper()
	if err := s.read.QueryRowContext(t.Context(), `SELECT payload FROM payloads`).Scan(&record); err != nil {
		t.Fatal(err)
	}
	return record
}

// randomBytes do not compress, and are the same each time.
func randomBytes(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}
