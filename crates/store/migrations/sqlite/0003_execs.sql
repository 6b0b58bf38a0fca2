-- Who ran which command, when, and how it ended. Rows outlive their sandboxes until retention.

CREATE TABLE execs (
    id           INTEGER PRIMARY KEY,
    sandbox_id   TEXT NOT NULL,
    exec_id      TEXT NOT NULL,
    tenant_id    TEXT,
    owner_id     TEXT,
    command      TEXT NOT NULL,         -- the beginning of what was asked for
    fingerprint  TEXT NOT NULL,         -- of the whole request: the same id asks for the same again
    run_as       TEXT,
    tty          INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,               -- when the sandbox said that it runs
    ended_at     INTEGER,
    exit_code    INTEGER,               -- NULL while it runs, and where its end is not known
    signal       INTEGER,
    timed_out    INTEGER NOT NULL DEFAULT 0,
    oom_killed   INTEGER NOT NULL DEFAULT 0,
    lost         TEXT,                  -- why its end is not known
    UNIQUE (sandbox_id, exec_id)
) STRICT;

CREATE INDEX exec_newest ON execs (sandbox_id, created_at DESC, id DESC);
CREATE INDEX exec_running ON execs (sandbox_id) WHERE ended_at IS NULL;
CREATE INDEX exec_ended ON execs (ended_at) WHERE ended_at IS NOT NULL;

-- The last output of detached commands, as it was when it was fetched from the sandbox.
CREATE TABLE exec_outputs (
    exec  INTEGER PRIMARY KEY REFERENCES execs (id) ON DELETE CASCADE,
    first INTEGER NOT NULL,             -- how much came before
    runs  TEXT NOT NULL,                -- JSON: [stream, length] of each piece
    bytes BLOB NOT NULL
) STRICT;

-- Whatever ends a sandbox ends what runs in it: no statement can forget that.
CREATE TRIGGER sandbox_ended_execs AFTER UPDATE OF live ON sandboxes
WHEN OLD.live = 1 AND NEW.live = 0
BEGIN
    UPDATE execs SET ended_at = NEW.ended_at, lost = coalesce(NEW.ended_reason, 'destroyed')
        WHERE sandbox_id = NEW.id AND ended_at IS NULL;
END;
