//! The interface, put on the threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, params};
use types::clock::{SharedClock, SystemClock};
use types::{ExecId, OwnerId, Sandbox, SandboxId, Timestamp, WorkerId};

use super::lane::Lane;
use super::living::Living;
use super::writer::Writer;
use super::{
    checkpoint, claims, errors, execs, lists, open, readers, rows, sandboxes, statements, workers,
};
use crate::interface::Answer;
use crate::{
    BoxFuture, Change, Counts, ExecEnd, ExecOutput, ExecPage, ExecRecord, InsertOutcome, Limits,
    ListFilter, NameOf, SpawnKey, Store, StoreError, WorkerRecord,
};

/// How the store waits and how wide it is.
#[derive(Clone)]
pub struct SqliteOptions {
    /// How long a call waits for a lock, or for its turn, before it is answered `Busy`.
    pub busy_timeout: Duration,
    /// Calls that may wait for the writer, and as many for the readers.
    pub queue: usize,
    /// Threads that read; 1 to 16.
    pub readers: usize,
    /// When a sandbox ended is taken from here.
    pub clock: SharedClock,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            queue: 1024,
            readers: 3,
            clock: Arc::new(SystemClock),
        }
    }
}

/// One SQLite file. Dropping it without [`Store::close`] loses nothing that was answered, but the
/// threads, and with them the lock on the file, end a moment later.
pub struct SqliteStore {
    installation_id: String,
    pub(super) writer: Lane,
    readers: Lane,
    living: Arc<Living>,
    clock: SharedClock,
    threads: Mutex<Option<Threads>>,
}

impl SqliteStore {
    /// Opens or makes the database, brings its schema up to date and starts the threads. Blocks on
    /// the disk: call it from `spawn_blocking` or before serving. What is not ours, is newer or is
    /// in use is refused with [`StoreError::Foreign`], untouched.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>, StoreError> {
        let SqliteOptions { busy_timeout, queue, readers, clock } = options;
        let opened = open::open(path, busy_timeout, &clock)?;
        let records = lists::list(&opened.writer, &ListFilter::default());
        let living = Arc::new(Living::new(records.map_err(errors::at_opening)?));
        let (checkpoints, checkpointer) = checkpoint::pair(open::for_checkpoints(&opened.path)?);
        let mut reading = Vec::new();
        for _ in 0..readers.clamp(1, 16) {
            reading.push(open::for_reading(&opened.path, busy_timeout)?);
        }
        let writer =
            Writer::new(opened.writer, opened.lock, checkpoints).map_err(errors::at_opening)?;

        let (write_lane, writes) = Lane::new(queue, busy_timeout);
        let (read_lane, reads) = Lane::new(queue, busy_timeout);
        let reads = Arc::new(Mutex::new(reads));
        let mut helpers = vec![start("store-log", move || checkpointer.run())?];
        for connection in reading {
            let inbox = Arc::clone(&reads);
            helpers.push(start("store-reader", move || readers::run(&connection, &inbox))?);
        }
        let writer = start("store-writer", move || writer.run(writes))?;
        Ok(Arc::new(Self {
            installation_id: opened.installation_id,
            writer: write_lane,
            readers: read_lane,
            living,
            clock,
            threads: Mutex::new(Some(Threads { helpers, writer })),
        }))
    }
}

/// What is waited for when closing.
struct Threads {
    helpers: Vec<JoinHandle<()>>,
    writer: JoinHandle<super::writer::Ended>,
}

impl Threads {
    /// The writer's connection goes last, and the lock after it: what is closed is complete.
    fn join(self) {
        let Ok(ended) = self.writer.join() else {
            tracing::error!("the store's writer had panicked");
            return;
        };
        for helper in self.helpers {
            if helper.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
        ended.close();
    }
}

fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(errors::from_io)
}

impl Store for SqliteStore {
    fn installation_id(&self) -> &str {
        &self.installation_id
    }

    fn check(&self) -> Answer<'_, ()> {
        let now = rows::nanos(self.clock.wall()).to_string();
        Box::pin(self.writer.ask(move |db| check(db, &now)))
    }

    fn insert_sandbox(
        &self,
        sandbox: Sandbox,
        limits: Limits,
        key: Option<SpawnKey>,
    ) -> Answer<'_, InsertOutcome> {
        let now = self.clock.wall();
        let living = Arc::clone(&self.living);
        let inserted = Sandbox { keyed: key.is_some(), ..sandbox.clone() };
        let note = move |outcome: &InsertOutcome| {
            if *outcome == InsertOutcome::Inserted {
                living.note(&inserted);
            }
        };
        let insert =
            move |db: &Connection| sandboxes::insert(db, &sandbox, limits, key.as_ref(), now);
        Box::pin(self.writer.ask_then(insert, note))
    }

    fn earlier_spawn(
        &self,
        key: Option<SpawnKey>,
        name: Option<NameOf>,
    ) -> Answer<'_, Option<InsertOutcome>> {
        let now = self.clock.wall();
        let find = move |db: &Connection| claims::find(db, key.as_ref(), name.as_ref(), now);
        Box::pin(self.readers.ask(find))
    }

    fn sandbox(&self, id: SandboxId) -> Answer<'_, Option<Sandbox>> {
        if let Some(known) = self.living.get(&id) {
            return Box::pin(std::future::ready(Ok(Some(known))));
        }
        Box::pin(self.readers.ask(move |db| sandboxes::get(db, &id)))
    }

    fn sandboxes(&self, filter: ListFilter) -> Answer<'_, Vec<Sandbox>> {
        Box::pin(self.readers.ask(move |db| lists::list(db, &filter)))
    }

    fn change_sandbox(&self, id: SandboxId, change: Change) -> Answer<'_, Option<Sandbox>> {
        let now = self.clock.wall();
        let living = Arc::clone(&self.living);
        let note = move |changed: &Option<Sandbox>| {
            changed.iter().for_each(|record| living.note(record));
        };
        let change = move |db: &Connection| sandboxes::change(db, &id, &change, now);
        Box::pin(self.writer.ask_then(change, note))
    }

    fn due_sandboxes(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>> {
        Box::pin(self.readers.ask(move |db| sandboxes::due(db, now, limit)))
    }

    fn unfinished_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>> {
        Box::pin(self.readers.ask(move |db| sandboxes::unfinished(db, before, limit)))
    }

    fn sandboxes_of_worker(&self, worker: WorkerId) -> Answer<'_, Vec<Sandbox>> {
        Box::pin(self.readers.ask(move |db| sandboxes::of_worker(db, &worker)))
    }

    fn counts(&self, owner: Option<OwnerId>) -> Answer<'_, Counts> {
        Box::pin(self.readers.ask(move |db| sandboxes::counts(db, owner.as_ref())))
    }

    fn count_by_provider(&self, provider: String) -> Answer<'_, u64> {
        Box::pin(self.readers.ask(move |db| sandboxes::count_of_provider(db, &provider)))
    }

    fn purge_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, u64> {
        Box::pin(self.writer.ask(move |db| sandboxes::purge(db, before, limit)))
    }

    fn purge_spawn_keys(&self, before: Timestamp, limit: u32) -> Answer<'_, u64> {
        Box::pin(self.writer.ask(move |db| claims::purge(db, before, limit)))
    }

    fn insert_exec(&self, exec: ExecRecord) -> Answer<'_, Option<ExecRecord>> {
        Box::pin(self.writer.ask(move |db| execs::insert(db, &exec)))
    }

    fn exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecRecord>> {
        Box::pin(self.readers.ask(move |db| execs::get(db, &of, &exec)))
    }

    fn record_execs(&self, records: Vec<ExecRecord>, keep: u64) -> Answer<'_, ()> {
        Box::pin(self.writer.ask(move |db| execs::record(db, &records, keep)))
    }

    fn execs(&self, of: SandboxId, page: ExecPage) -> Answer<'_, Vec<ExecRecord>> {
        Box::pin(self.readers.ask(move |db| execs::list(db, &of, &page)))
    }

    fn running_execs(&self) -> Answer<'_, Vec<ExecRecord>> {
        Box::pin(self.readers.ask(execs::running))
    }

    fn exec_started(&self, of: SandboxId, exec: ExecId, at: Timestamp) -> Answer<'_, bool> {
        Box::pin(self.writer.ask(move |db| execs::started(db, &of, &exec, at)))
    }

    fn end_exec(
        &self,
        of: SandboxId,
        exec: ExecId,
        end: Option<ExecEnd>,
        output: Option<ExecOutput>,
    ) -> Answer<'_, ()> {
        let work = move |db: &Connection| execs::end(db, &of, &exec, end.as_ref(), output.as_ref());
        Box::pin(self.writer.ask(work))
    }

    fn exec_output(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecOutput>> {
        Box::pin(self.readers.ask(move |db| execs::output(db, &of, &exec)))
    }

    fn forget_exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, bool> {
        Box::pin(self.writer.ask(move |db| execs::forget(db, &of, &exec)))
    }

    fn purge_execs(&self, before: Timestamp, limit: u32) -> Answer<'_, u64> {
        Box::pin(self.writer.ask(move |db| execs::purge(db, before, limit)))
    }

    fn upsert_worker(&self, worker: WorkerRecord) -> Answer<'_, WorkerRecord> {
        Box::pin(self.writer.ask(move |db| workers::upsert(db, &worker)))
    }

    fn worker(&self, id: WorkerId) -> Answer<'_, Option<WorkerRecord>> {
        Box::pin(self.readers.ask(move |db| workers::get(db, &id)))
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRecord>> {
        Box::pin(self.readers.ask(workers::list))
    }

    fn delete_worker(&self, id: WorkerId) -> Answer<'_, bool> {
        Box::pin(self.writer.ask(move |db| workers::delete(db, &id)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(threads) = threads else { return };
            self.writer.close().await;
            self.readers.close().await;
            self.living.clear();
            if tokio::task::spawn_blocking(move || threads.join()).await.is_err() {
                tracing::error!("closing the store had panicked");
            }
        })
    }
}

/// Writes and reads the same row, in one transaction.
fn check(db: &Connection, now: &str) -> rusqlite::Result<()> {
    db.prepare_cached(statements::SET_META)?.execute(params!["checked_at", now])?;
    db.prepare_cached(statements::GET_META)?.query_row(["checked_at"], |_| Ok(()))
}
