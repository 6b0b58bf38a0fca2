-- What is remembered. Times are nanoseconds since the epoch, UTC.

CREATE TABLE schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sandboxes (
    id             TEXT PRIMARY KEY NOT NULL,
    state          TEXT NOT NULL,
    provider       TEXT NOT NULL,
    image          TEXT NOT NULL,
    memory_mb      INTEGER NOT NULL,
    vcpus          INTEGER NOT NULL,
    disk_size_mb   INTEGER NOT NULL,
    owner_id       TEXT,
    tenant_id      TEXT,
    vm_id          TEXT,
    worker_id      TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    metadata       TEXT,                -- a JSON object of strings, NULL when empty
    preview_domain TEXT,
    ended_reason   TEXT,
    answered       INTEGER NOT NULL,
    ended_at       INTEGER,             -- when the state became destroyed
    -- What the indexes ask of the state, so that its other changes leave them alone: an index that
    -- named the state itself would be rewritten with each.
    live           INTEGER NOT NULL CHECK (live = (state <> 'destroyed')),
    ending         INTEGER NOT NULL CHECK (ending = (state = 'destroying'))
) STRICT;

-- One index for each question that is asked, over the rows it can name and no others: what a
-- request costs does not depend on how many destroyed rows are still kept.
CREATE INDEX live_newest ON sandboxes (created_at DESC, id) WHERE live = 1;
CREATE INDEX live_of_tenant ON sandboxes (tenant_id, created_at DESC, id)
    WHERE live = 1 AND tenant_id IS NOT NULL;
CREATE INDEX live_of_worker ON sandboxes (worker_id, created_at DESC, id) WHERE live = 1;
CREATE INDEX due ON sandboxes (expires_at, id) WHERE live = 1 AND ending = 0;
CREATE INDEX being_destroyed ON sandboxes (ending, created_at, id) WHERE ending = 1;
CREATE INDEX unanswered ON sandboxes (created_at, id)
    WHERE live = 1 AND ending = 0 AND (state = 'creating' OR answered = 0);
CREATE INDEX ended ON sandboxes (ended_at) WHERE live = 0;

CREATE TABLE workers (
    id             TEXT PRIMARY KEY NOT NULL,
    hostname       TEXT NOT NULL,
    status         TEXT NOT NULL,
    providers      TEXT,                -- a JSON array of strings
    capabilities   TEXT,                -- a JSON array of strings
    capacity       TEXT,                -- JSON, as the worker sent it
    last_heartbeat INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
