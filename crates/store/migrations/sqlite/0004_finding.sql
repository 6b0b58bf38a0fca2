-- Lists by state, by provider, by label, and of what has ended: an index for each, so that none of
-- them looks at rows that it does not name.

-- Of those that are on their way somewhere, or stuck: few at any time. Most rows are `running`, and
-- stay out of it.
CREATE INDEX live_in_state ON sandboxes (state, created_at DESC, id)
    WHERE live = 1 AND state <> 'running';
CREATE INDEX live_of_provider ON sandboxes (provider, created_at DESC, id) WHERE live = 1;
CREATE INDEX ended_newest ON sandboxes (created_at DESC, id) WHERE live = 0;
CREATE INDEX ended_of_tenant ON sandboxes (tenant_id, created_at DESC, id)
    WHERE live = 0 AND tenant_id IS NOT NULL;

-- A row for each entry of a sandbox's metadata.
CREATE TABLE labels (
    label_key   TEXT NOT NULL,
    label_value TEXT NOT NULL,
    of_living   INTEGER NOT NULL,
    made_at     INTEGER NOT NULL,       -- the sandbox's created_at
    sandbox_id  TEXT NOT NULL,
    PRIMARY KEY (label_key, label_value, of_living, made_at DESC, sandbox_id)
) STRICT, WITHOUT ROWID;

INSERT INTO labels
    SELECT entry.key, entry.value, sandboxes.live, sandboxes.created_at, sandboxes.id
    FROM sandboxes, json_each(sandboxes.metadata) AS entry;
