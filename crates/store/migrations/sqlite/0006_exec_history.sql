-- Every command has a record, also one that belongs to its caller: a plain one, whose fingerprint is
-- empty, since nobody can ask for it again. Plain ones come by the thousands, so they are counted.

ALTER TABLE execs ADD COLUMN kind TEXT NOT NULL DEFAULT 'detached';
ALTER TABLE execs ADD COLUMN workdir TEXT;

-- Pages begin behind a row, which its time and its id name.
DROP INDEX exec_newest;
DROP INDEX exec_running;
CREATE INDEX exec_newest ON execs (sandbox_id, created_at DESC, exec_id DESC);
CREATE INDEX exec_running ON execs (sandbox_id, created_at DESC, exec_id DESC)
    WHERE ended_at IS NULL;
CREATE INDEX exec_plain ON execs (sandbox_id, created_at)
    WHERE fingerprint = '' AND ended_at IS NOT NULL;

-- Plain ones of each sandbox.
CREATE TABLE exec_counts (
    sandbox_id TEXT PRIMARY KEY,
    plain      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER exec_counted AFTER INSERT ON execs WHEN NEW.fingerprint = ''
BEGIN
    INSERT INTO exec_counts (sandbox_id, plain) VALUES (NEW.sandbox_id, 1)
        ON CONFLICT (sandbox_id) DO UPDATE SET plain = plain + 1;
END;

CREATE TRIGGER exec_uncounted AFTER DELETE ON execs WHEN OLD.fingerprint = ''
BEGIN
    UPDATE exec_counts SET plain = plain - 1 WHERE sandbox_id = OLD.sandbox_id;
    DELETE FROM exec_counts WHERE sandbox_id = OLD.sandbox_id AND plain = 0;
END;

-- The newest outputs of a sandbox are kept: found among its outputs, not among all its commands.
ALTER TABLE exec_outputs ADD COLUMN sandbox_id TEXT NOT NULL DEFAULT '';
ALTER TABLE exec_outputs ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
UPDATE exec_outputs SET (sandbox_id, created_at) =
    (SELECT sandbox_id, created_at FROM execs WHERE execs.id = exec_outputs.exec);
CREATE INDEX output_newest ON exec_outputs (sandbox_id, created_at DESC, exec DESC);
