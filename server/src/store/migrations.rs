//! What the database looks like, as the steps that led there.
//!
//! In: a database of any version. Out: the SQL that makes it one of today's.

/// From an empty database to today's, a step a version: never changed once released.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE users (id TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE call_types (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE calls (
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        wake_up INTEGER, -- nanoseconds UTC, as all times here
        state TEXT NOT NULL,
        PRIMARY KEY (type, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX calls_wake_up ON calls (wake_up) WHERE wake_up IS NOT NULL;
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE TABLE transcripts (
        egress_id TEXT PRIMARY KEY,
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        start_time INTEGER NOT NULL,
        end_time INTEGER, -- where nothing more comes
        filename TEXT, -- where the file is written
        expires_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX transcripts_call ON transcripts (type, id);
    CREATE TABLE fragments (
        number INTEGER PRIMARY KEY,
        egress_id TEXT NOT NULL,
        fragment TEXT NOT NULL
    ) STRICT;
    CREATE INDEX fragments_transcript ON fragments (egress_id);
",
    "
    CREATE TABLE roles (name TEXT PRIMARY KEY, created_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    DROP TABLE outbox; -- nobody but those who watched was told
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        webhook_id TEXT NOT NULL,
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        at INTEGER NOT NULL,
        event_type TEXT NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE TABLE deliveries (
        hook TEXT NOT NULL,
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (hook, type, id, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX deliveries_number ON deliveries (number);
    CREATE TABLE dead_letters (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        webhook_id TEXT NOT NULL,
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        at INTEGER NOT NULL,
        event_type TEXT NOT NULL,
        event TEXT NOT NULL,
        hook TEXT NOT NULL,
        given_up_at INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        error TEXT NOT NULL
    ) STRICT;
    CREATE TABLE app (one INTEGER PRIMARY KEY CHECK (one = 1), state TEXT NOT NULL) STRICT;
    CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
    CREATE TABLE storages (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
    ALTER TABLE transcripts ADD COLUMN storage TEXT; -- none: the server's disk
    ALTER TABLE transcripts ADD COLUMN is_external INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE transcripts ADD COLUMN has_failed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE transcripts ADD COLUMN bucket TEXT; -- where the file was put, and is also when the storage is set anew
    ALTER TABLE transcripts ADD COLUMN object TEXT;
    ALTER TABLE transcripts ADD COLUMN url TEXT; -- plain
    CREATE TABLE captions ( -- of sessions that go on
        type TEXT NOT NULL,
        id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        number INTEGER NOT NULL, -- counts in the session
        at INTEGER NOT NULL,
        caption TEXT NOT NULL,
        PRIMARY KEY (type, id, session_id, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX transcripts_unfinished ON transcripts (end_time) WHERE filename IS NULL;
    CREATE INDEX transcripts_expiring ON transcripts (expires_at) WHERE expires_at IS NOT NULL;
",
];
