//! Every key there is, with its type and default.

mod auth;
mod behaviour;
mod providers;
mod serving;
mod storage;

pub use auth::Auth;
pub use behaviour::{Defaults, Exec, Pool, RateLimit, SpawnOverflow};
pub use providers::{NativeStorage, Providers};
pub use serving::{LogFormat, LogLevel, Logging, Server, Worker};
pub use storage::{Database, DatabaseDriver, Images, PullPolicy, Retention};

use super::section::section;

section! {
    /// The whole configuration.
    Config {
        /// Images, journals, sandboxes' layers, the default database. Empty until resolved.
        data_dir: String,
        server: Server,
        worker: Worker,
        providers: Providers,
        images: Images,
        defaults: Defaults,
        exec: Exec,
        auth: Auth,
        rate_limit: RateLimit,
        database: Database,
        retention: Retention,
        logging: Logging,
        pool: Pool,
    }
}
