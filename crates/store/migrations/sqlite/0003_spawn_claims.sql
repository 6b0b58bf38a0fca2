-- What makes a repeat of a spawn find the first one: a name that one living sandbox of an owner
-- holds, and keys that callers choose for a request.

ALTER TABLE sandboxes ADD COLUMN name TEXT;
-- 1 from the spawn until the end begins, or until a spawn finds that its holder is dead.
ALTER TABLE sandboxes ADD COLUMN holds_name INTEGER NOT NULL DEFAULT 0
    CHECK (holds_name = 0 OR name IS NOT NULL);
-- How many keys remember it: a record is not forgotten before its keys are.
ALTER TABLE sandboxes ADD COLUMN keys INTEGER NOT NULL DEFAULT 0 CHECK (keys >= 0);

CREATE UNIQUE INDEX held_names
    ON sandboxes (name, coalesce(owner_id, ''), coalesce(tenant_id, '')) WHERE holds_name = 1;

DROP INDEX ended;
CREATE INDEX forgettable ON sandboxes (ended_at) WHERE live = 0 AND keys = 0;

CREATE TABLE spawn_keys (
    key        TEXT PRIMARY KEY NOT NULL,   -- a digest of the caller and the key
    request    TEXT NOT NULL,               -- a digest of the body
    sandbox_id TEXT NOT NULL,
    found      INTEGER NOT NULL,            -- whether the answer was a sandbox of that name
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX spawn_keys_oldest ON spawn_keys (created_at);
