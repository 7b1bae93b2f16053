-- +goose Up

-- One row for each request that ended. Times are unix milliseconds.
CREATE TABLE results (
    id                INTEGER PRIMARY KEY,           -- in the order in which results landed
    tenant            TEXT    NOT NULL,
    request_id        TEXT    NOT NULL,
    accepted          INTEGER NOT NULL,
    started           INTEGER,
    finished          INTEGER,
    model             TEXT    NOT NULL,
    op                TEXT    NOT NULL,
    priority          TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    code              TEXT    NOT NULL,              -- of the error, or empty
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    total_tokens      INTEGER NOT NULL,
    attempts          INTEGER NOT NULL,
    first_token_ms    REAL    NOT NULL,
    duration_ms       REAL    NOT NULL,
    worker            TEXT    NOT NULL,
    cache             TEXT    NOT NULL,
    bytes             INTEGER NOT NULL,              -- of the stored payload
    erased_through    INTEGER,                       -- of a tombstone: payloads accepted until then stay away
    metadata          TEXT    NOT NULL,              -- the record without payload, JSON
    UNIQUE (tenant, request_id, accepted)
) STRICT;

CREATE INDEX results_by_time ON results (accepted, tenant, request_id);
CREATE INDEX results_by_tenant ON results (tenant, accepted, request_id);
CREATE INDEX results_erased ON results (tenant, request_id, erased_through) WHERE erased_through IS NOT NULL;

-- What was said. Kept apart, so that listing does not read it and erasing does not touch the rest.
CREATE TABLE payloads (
    id      INTEGER PRIMARY KEY REFERENCES results (id) ON DELETE CASCADE,
    payload BLOB    NOT NULL                         -- request, response and events, JSON; zstd above 1 KiB
) STRICT;
