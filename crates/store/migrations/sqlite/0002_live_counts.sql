-- How many sandboxes are not destroyed: in all, by owner and by provider. Kept by triggers, so that
-- no statement can forget them, and read by key, so that counting costs the same at any number.

CREATE TABLE live_counts (
    kind TEXT NOT NULL,                 -- total, owner or provider
    name TEXT NOT NULL,                 -- empty for total
    live INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO live_counts SELECT 'total', '', count(*) FROM sandboxes
    WHERE live = 1 HAVING count(*) > 0;
INSERT INTO live_counts SELECT 'owner', owner_id, count(*) FROM sandboxes
    WHERE live = 1 AND owner_id IS NOT NULL GROUP BY owner_id;
INSERT INTO live_counts SELECT 'provider', provider, count(*) FROM sandboxes
    WHERE live = 1 GROUP BY provider;

CREATE TRIGGER sandbox_inserted AFTER INSERT ON sandboxes WHEN NEW.live = 1
BEGIN
    INSERT INTO live_counts VALUES ('total', '', 1)
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
    INSERT INTO live_counts VALUES ('provider', NEW.provider, 1)
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
    INSERT INTO live_counts SELECT 'owner', NEW.owner_id, 1 WHERE NEW.owner_id IS NOT NULL
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
END;

CREATE TRIGGER sandbox_entered AFTER UPDATE OF live, owner_id, provider ON sandboxes
WHEN NEW.live = 1 AND (OLD.live = 0
    OR OLD.owner_id IS NOT NEW.owner_id OR OLD.provider <> NEW.provider)
BEGIN
    INSERT INTO live_counts VALUES ('total', '', 1)
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
    INSERT INTO live_counts VALUES ('provider', NEW.provider, 1)
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
    INSERT INTO live_counts SELECT 'owner', NEW.owner_id, 1 WHERE NEW.owner_id IS NOT NULL
        ON CONFLICT (kind, name) DO UPDATE SET live = live + 1;
END;

CREATE TRIGGER sandbox_left AFTER UPDATE OF live, owner_id, provider ON sandboxes
WHEN OLD.live = 1 AND (NEW.live = 0
    OR OLD.owner_id IS NOT NEW.owner_id OR OLD.provider <> NEW.provider)
BEGIN
    UPDATE live_counts SET live = live - 1 WHERE kind = 'total' AND name = '';
    UPDATE live_counts SET live = live - 1 WHERE kind = 'provider' AND name = OLD.provider;
    UPDATE live_counts SET live = live - 1 WHERE kind = 'owner' AND name = OLD.owner_id;
    DELETE FROM live_counts WHERE kind = 'total' AND name = '' AND live <= 0;
    DELETE FROM live_counts WHERE kind = 'provider' AND name = OLD.provider AND live <= 0;
    DELETE FROM live_counts WHERE kind = 'owner' AND name = OLD.owner_id AND live <= 0;
END;

CREATE TRIGGER sandbox_deleted AFTER DELETE ON sandboxes WHEN OLD.live = 1
BEGIN
    UPDATE live_counts SET live = live - 1 WHERE kind = 'total' AND name = '';
    UPDATE live_counts SET live = live - 1 WHERE kind = 'provider' AND name = OLD.provider;
    UPDATE live_counts SET live = live - 1 WHERE kind = 'owner' AND name = OLD.owner_id;
    DELETE FROM live_counts WHERE kind = 'total' AND name = '' AND live <= 0;
    DELETE FROM live_counts WHERE kind = 'provider' AND name = OLD.provider AND live <= 0;
    DELETE FROM live_counts WHERE kind = 'owner' AND name = OLD.owner_id AND live <= 0;
END;
