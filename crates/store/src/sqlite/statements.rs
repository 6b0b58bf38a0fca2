//! Every statement that runs while serving, in one place: a test asks SQLite for the plan of each.

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*

        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// The columns that [`super::rows::sandbox`] reads, in its order.
macro_rules! sandbox_columns {
    () => {
        "id, state, provider, image, memory_mb, vcpus, disk_size_mb, owner_id, tenant_id, vm_id, \
         worker_id, generation, created_at, expires_at, metadata, preview_domain, ended_reason, \
         answered, name, keys"
    };
}

macro_rules! worker_columns {
    () => {
        "id, hostname, status, providers, capabilities, capacity, last_heartbeat, created_at, \
         updated_at"
    };
}

/// The columns that [`super::rows::exec`] reads, in its order.
macro_rules! exec_columns {
    () => {
        "sandbox_id, exec_id, tenant_id, owner_id, command, fingerprint, run_as, tty, created_at, \
         started_at, ended_at, exit_code, signal, timed_out, oom_killed, lost, kind, workdir"
    };
}

statements! {
    BEGIN = "BEGIN IMMEDIATE";
    COMMIT = "COMMIT";
    ROLLBACK = "ROLLBACK";
    SAVEPOINT = "SAVEPOINT job";
    ROLLBACK_TO = "ROLLBACK TO job";
    RELEASE = "RELEASE job";

    SET_META = "INSERT INTO meta (key, value) VALUES (?1, ?2) \
        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    GET_META = "SELECT value FROM meta WHERE key = ?1";

    INSERT_SANDBOX = concat!(
        "INSERT INTO sandboxes (", sandbox_columns!(), ", ended_at, live, ending, holds_name) VALUES (?1, ?2, ?3, ?4, \
         ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24) \
         ON CONFLICT (id) DO NOTHING"
    );
    GET_SANDBOX = concat!("SELECT ", sandbox_columns!(), " FROM sandboxes WHERE id = ?1");
    /// One for each kind of step: SQLite rewrites every index that depends on a column that is
    /// set, also to what it was.
    UPDATE_STATE = "UPDATE sandboxes SET state = ?2 WHERE id = ?1";
    UPDATE_ENDING = "UPDATE sandboxes SET state = ?2, ending = 1, holds_name = 0 WHERE id = ?1";
    UPDATE_ENDED = "UPDATE sandboxes \
        SET state = ?2, live = 0, ending = 0, holds_name = 0, ended_at = ?3 WHERE id = ?1";
    UPDATE_ANSWERED = "UPDATE sandboxes SET answered = ?2 WHERE id = ?1";
    UPDATE_EXPIRY = "UPDATE sandboxes SET expires_at = ?2 WHERE id = ?1";
    UPDATE_DETAILS = "UPDATE sandboxes SET vm_id = ?2, ended_reason = ?3 WHERE id = ?1";

    /// `INDEXED BY` fails where the index could not serve: better than a scan nobody notices. What
    /// reads a list stops when it has enough.
    LIST = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY live_newest \
         WHERE live = 1 AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_OF_TENANT = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY live_of_tenant \
         WHERE live = 1 AND tenant_id = ?3 \
         AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_OF_PROVIDER = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY live_of_provider \
         WHERE live = 1 AND provider = ?3 \
         AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_IN_STATE = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY live_in_state \
         WHERE live = 1 AND state <> 'running' AND state = ?3 \
         AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_ENDED = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY ended_newest \
         WHERE live = 0 AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_ENDED_OF_TENANT = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY ended_of_tenant \
         WHERE live = 0 AND tenant_id = ?3 \
         AND created_at <= ?1 AND (created_at < ?1 OR id > ?2) \
         ORDER BY created_at DESC, id"
    );
    LIST_LABELLED = concat!(
        "SELECT ", sandbox_columns!(), " FROM labels CROSS JOIN sandboxes ON id = sandbox_id \
         WHERE label_key = ?3 AND label_value = ?4 AND of_living = ?5 \
         AND made_at <= ?1 AND (made_at < ?1 OR sandbox_id > ?2) \
         ORDER BY made_at DESC, sandbox_id"
    );
    ADD_LABEL = "INSERT INTO labels (label_key, label_value, of_living, made_at, sandbox_id) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    END_LABEL = "UPDATE labels SET of_living = 0 WHERE label_key = ?1 AND label_value = ?2 \
        AND of_living = 1 AND made_at = ?3 AND sandbox_id = ?4";
    DROP_LABEL = "DELETE FROM labels WHERE label_key = ?1 AND label_value = ?2 \
        AND of_living = 0 AND made_at = ?3 AND sandbox_id = ?4";
    LIST_OF_WORKER = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY live_of_worker \
         WHERE live = 1 AND worker_id = ?1 ORDER BY created_at DESC, id"
    );
    LIST_DUE = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY due \
         WHERE live = 1 AND ending = 0 AND expires_at <= ?1 \
         ORDER BY expires_at, id LIMIT ?2"
    );
    LIST_UNFINISHED = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY being_destroyed \
         WHERE ending = 1 \
         UNION ALL \
         SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY unanswered \
         WHERE live = 1 AND ending = 0 \
         AND (state = 'creating' OR answered = 0) AND created_at < ?1 \
         ORDER BY created_at, id LIMIT ?2"
    );
    PURGE = "DELETE FROM sandboxes WHERE rowid IN ( \
        SELECT rowid FROM sandboxes INDEXED BY forgettable \
        WHERE live = 0 AND keys = 0 AND ended_at < ?1 ORDER BY ended_at LIMIT ?2) \
        RETURNING id, created_at, metadata";

    HOLDER_OF_NAME = concat!(
        "SELECT ", sandbox_columns!(), " FROM sandboxes INDEXED BY held_names \
         WHERE holds_name = 1 AND name = ?1 \
         AND coalesce(owner_id, '') = coalesce(?2, '') \
         AND coalesce(tenant_id, '') = coalesce(?3, '')"
    );
    RELEASE_NAME = "UPDATE sandboxes SET holds_name = 0 WHERE id = ?1";
    GET_KEY = "SELECT request, sandbox_id, found, created_at FROM spawn_keys WHERE key = ?1";
    PUT_KEY = "INSERT INTO spawn_keys (key, request, sandbox_id, found, created_at) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    DELETE_KEY = "DELETE FROM spawn_keys WHERE key = ?1 RETURNING sandbox_id";
    OLD_KEYS = "SELECT key FROM spawn_keys INDEXED BY spawn_keys_oldest \
        WHERE created_at < ?1 ORDER BY created_at LIMIT ?2";
    COUNT_KEY = "UPDATE sandboxes SET keys = keys + ?2 WHERE id = ?1 AND keys + ?2 >= 0";

    COUNTS = "SELECT \
        coalesce((SELECT live FROM live_counts WHERE kind = 'total' AND name = ''), 0), \
        coalesce((SELECT live FROM live_counts WHERE kind = 'owner' AND name = ?1), 0)";
    COUNT_OF_PROVIDER = "SELECT coalesce( \
        (SELECT live FROM live_counts WHERE kind = 'provider' AND name = ?1), 0)";

    UPSERT_WORKER = concat!(
        "INSERT INTO workers (", worker_columns!(), ") \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO UPDATE SET \
         hostname = excluded.hostname, status = excluded.status, providers = excluded.providers, \
         capabilities = excluded.capabilities, capacity = excluded.capacity, \
         last_heartbeat = excluded.last_heartbeat, updated_at = excluded.updated_at \
         RETURNING ", worker_columns!()
    );
    GET_WORKER = concat!("SELECT ", worker_columns!(), " FROM workers WHERE id = ?1");
    LIST_WORKERS = concat!("SELECT ", worker_columns!(), " FROM workers ORDER BY id");
    INSERT_EXEC = "INSERT INTO execs (sandbox_id, exec_id, tenant_id, owner_id, command, \
        fingerprint, run_as, tty, created_at, started_at, kind, workdir) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
        ON CONFLICT (sandbox_id, exec_id) DO NOTHING";
    /// A plain one, new or now ended. Whatever ended it first stays.
    RECORD_EXEC = concat!(
        "INSERT INTO execs (", exec_columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
         ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
         ON CONFLICT (sandbox_id, exec_id) DO UPDATE SET ended_at = excluded.ended_at, \
         exit_code = excluded.exit_code, signal = excluded.signal, \
         timed_out = excluded.timed_out, oom_killed = excluded.oom_killed, lost = excluded.lost \
         WHERE execs.ended_at IS NULL AND execs.fingerprint = '' \
         AND excluded.ended_at IS NOT NULL"
    );
    WHY_ENDED = "SELECT ended_reason FROM sandboxes WHERE id = ?1";
    COUNT_PLAIN_EXECS = "SELECT plain FROM exec_counts WHERE sandbox_id = ?1";
    TRIM_PLAIN_EXECS = "DELETE FROM execs WHERE id IN ( \
        SELECT id FROM execs INDEXED BY exec_plain WHERE sandbox_id = ?1 AND fingerprint = '' \
        AND ended_at IS NOT NULL ORDER BY created_at LIMIT ?2)";
    GET_EXEC = concat!(
        "SELECT ", exec_columns!(), " FROM execs WHERE sandbox_id = ?1 AND exec_id = ?2"
    );
    LIST_EXECS = concat!(
        "SELECT ", exec_columns!(), " FROM execs INDEXED BY exec_newest \
         WHERE sandbox_id = ?1 AND created_at <= ?2 AND (created_at < ?2 OR exec_id < ?3) \
         ORDER BY created_at DESC, exec_id DESC LIMIT ?4"
    );
    LIST_RUNNING_EXECS_OF = concat!(
        "SELECT ", exec_columns!(), " FROM execs INDEXED BY exec_running \
         WHERE sandbox_id = ?1 AND ended_at IS NULL \
         AND created_at <= ?2 AND (created_at < ?2 OR exec_id < ?3) \
         ORDER BY created_at DESC, exec_id DESC LIMIT ?4"
    );
    LIST_RUNNING_EXECS = concat!(
        "SELECT ", exec_columns!(), " FROM execs INDEXED BY exec_running WHERE ended_at IS NULL"
    );
    EXEC_STARTED = "UPDATE execs SET started_at = ?3 \
        WHERE sandbox_id = ?1 AND exec_id = ?2 AND started_at IS NULL";
    FORGET_EXEC = "DELETE FROM execs \
        WHERE sandbox_id = ?1 AND exec_id = ?2 AND started_at IS NULL AND ended_at IS NULL";
    EXEC_ENDED = "UPDATE execs SET ended_at = ?3, exit_code = ?4, signal = ?5, timed_out = ?6, \
        oom_killed = ?7, lost = ?8 \
        WHERE sandbox_id = ?1 AND exec_id = ?2 AND ended_at IS NULL";
    KEEP_OUTPUT = "INSERT INTO exec_outputs (exec, sandbox_id, created_at, first, runs, bytes) \
        SELECT id, sandbox_id, created_at, ?3, ?4, ?5 FROM execs WHERE sandbox_id = ?1 AND exec_id = ?2 \
        ON CONFLICT (exec) DO UPDATE SET \
        first = excluded.first, runs = excluded.runs, bytes = excluded.bytes \
        WHERE excluded.first + length(excluded.bytes) >= first + length(bytes)";
    TRIM_OUTPUTS = "DELETE FROM exec_outputs WHERE exec IN ( \
        SELECT exec FROM exec_outputs INDEXED BY output_newest WHERE sandbox_id = ?1 \
        ORDER BY created_at DESC, exec DESC LIMIT -1 OFFSET ?2)";
    GET_OUTPUT = "SELECT first, runs, bytes FROM exec_outputs WHERE exec = \
        (SELECT id FROM execs WHERE sandbox_id = ?1 AND exec_id = ?2)";
    PURGE_EXECS = "DELETE FROM execs WHERE id IN ( \
        SELECT id FROM execs INDEXED BY exec_ended \
        WHERE ended_at IS NOT NULL AND ended_at < ?1 ORDER BY ended_at LIMIT ?2)";

    DELETE_WORKER = "DELETE FROM workers WHERE id = ?1";
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::sqlite::migrations;

    fn plan(db: &Connection, sql: &str) -> Vec<String> {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = statement.parameter_count();
        let nulls = vec![rusqlite::types::Null; unbound];
        let lines = statement.query_map(rusqlite::params_from_iter(nulls), |row| row.get(3));
        lines.unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn bug_37_no_statement_scans_or_sorts_sandboxes() {
        let mut db = Connection::open_in_memory().unwrap();
        migrations::run(&mut db, 0).unwrap();
        for (name, sql) in ALL {
            for line in plan(&db, sql) {
                let scans = line.contains("SCAN sandboxes")
                    || line.contains("SCAN live_counts")
                    || line.contains("SCAN spawn_keys")
                    || line.contains("SCAN labels")
                    || line.contains("SCAN exec_counts")
                    || line.contains("SCAN exec_outputs")
                    || (line.contains("SCAN execs") && *name != "LIST_RUNNING_EXECS");
                assert!(!scans && !line.contains("TEMP B-TREE"), "{name}: {line}");
            }
        }
        // What a trigger does cannot name its index.
        let of_trigger = "UPDATE execs SET lost = 'x' WHERE sandbox_id = ?1 AND ended_at IS NULL";
        let lines = plan(&db, of_trigger);
        assert!(lines.iter().all(|line| line.contains("exec_running")), "{lines:?}");
        // The check itself can fail.
        let scan = plan(&db, "SELECT id FROM sandboxes WHERE image = 'x'");
        assert!(scan.iter().any(|line| line.contains("SCAN sandboxes")), "{scan:?}");
    }
}
