//! The schema's versions, each applied in one transaction and recorded.

use rusqlite::{Connection, Result, TransactionBehavior, params};

struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
        }
    };
}

/// Never edited once released: what a database has seen must stay what it was.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_records"),
    migration!(2, "0002_live_counts"),
    migration!(3, "0003_spawn_claims"),
    migration!(4, "0004_finding"),
    migration!(5, "0005_execs"),
    migration!(6, "0006_exec_history"),
];

/// The schema version that this program speaks.
pub(super) fn latest() -> u32 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Brings a database to the latest version. `now`: nanoseconds, for the record.
pub(super) fn run(db: &mut Connection, now: i64) -> Result<()> {
    run_to(db, latest(), now)
}

fn run_to(db: &mut Connection, target: u32, now: i64) -> Result<()> {
    let current: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in MIGRATIONS.iter().filter(|m| m.version > current && m.version <= target) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(migration.sql)?;
        step.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?1, ?2, ?3)",
            params![migration.version, migration.name, now],
        )?;
        step.pragma_update(None, "user_version", migration.version)?;
        step.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(db: &Connection) -> Vec<String> {
        let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema \
                   ORDER BY 1";
        let mut statement = db.prepare(sql).unwrap();
        let lines = statement.query_map([], |row| row.get(0)).unwrap();
        lines.collect::<Result<_>>().unwrap()
    }

    fn number(db: &Connection, sql: &str) -> u32 {
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn versions_count_up_from_one_and_name_their_file() {
        for (i, m) in MIGRATIONS.iter().enumerate() {
            assert_eq!(m.version as usize, i + 1);
            assert!(m.name.starts_with(&format!("{:04}_", m.version)), "{}", m.name);
        }
    }

    #[test]
    fn every_version_upgrades_with_what_it_holds() {
        let mut fresh = Connection::open_in_memory().unwrap();
        run(&mut fresh, 0).unwrap();
        for from in 0..=latest() {
            let mut db = Connection::open_in_memory().unwrap();
            run_to(&mut db, from, 1).unwrap();
            if from >= 1 {
                for (id, state, owner) in
                    [("a", "running", "me"), ("b", "creating", "me"), ("c", "destroyed", "me")]
                {
                    db.execute(
                        "INSERT INTO sandboxes (id, state, provider, image, memory_mb, vcpus, \
                         disk_size_mb, owner_id, worker_id, generation, created_at, expires_at, \
                         answered, live, ending) VALUES (?1, ?2, 'mock', 'host', 1, 1, 1, ?3, \
                         'local', 1, 1, 2, 1, ?2 <> 'destroyed', 0)",
                        [id, state, owner],
                    )
                    .unwrap();
                }
            }
            if (1..4).contains(&from) {
                let labelled = "UPDATE sandboxes SET metadata = '{\"k\":\"v\"}' WHERE id <> 'a'";
                db.execute(labelled, []).unwrap();
            }
            if from == 5 {
                db.execute(
                    "INSERT INTO execs (sandbox_id, exec_id, command, fingerprint, tty, \
                     created_at) VALUES ('a', 'job', 'sleep 1', 'f', 0, 1)",
                    [],
                )
                .unwrap();
            }
            run(&mut db, 2).unwrap();
            let kinds = number(&db, "SELECT count(*) FROM execs WHERE kind = 'detached'");
            assert_eq!(kinds, u32::from(from == 5));
            let labels = "SELECT count(*) FROM labels WHERE label_key = 'k' AND label_value = 'v'";
            assert_eq!(number(&db, labels), if (1..4).contains(&from) { 2 } else { 0 });
            assert_eq!(schema(&db), schema(&fresh), "from version {from}");
            assert_eq!(number(&db, "PRAGMA user_version"), latest());
            assert_eq!(number(&db, "SELECT count(*) FROM schema_migrations"), latest());
            if from >= 1 {
                assert_eq!(number(&db, "SELECT count(*) FROM sandboxes"), 3);
                let counted = "SELECT group_concat(kind || name || live, ' ') FROM live_counts";
                let counted: String = db.query_row(counted, [], |row| row.get(0)).unwrap();
                assert_eq!(counted, "ownerme2 providermock2 total2", "from version {from}");
            }
        }
    }
}
