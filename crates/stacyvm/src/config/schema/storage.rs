//! What is kept, where, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use ::providers::images::Registry;
use types::Secret;

use crate::config::section::{choice, section};

section! {
    /// `database.*`
    Database {
        driver: DatabaseDriver = DatabaseDriver::Sqlite,
        /// Empty until resolved to `stacyvm.db` in the data directory. A relative one starts at
        /// the working directory.
        path: String,
        dsn: Secret,
    }
}

choice! {
    /// Which database remembers.
    DatabaseDriver {
        Sqlite = "sqlite" | "sqlite3",
        Postgres = "postgres" | "postgresql",
    }
}

section! {
    /// `images.*`
    Images {
        /// One name means another.
        aliases: BTreeMap<String, String>,
        /// Where we may connect, and with which key; empty: any public one, over https.
        registries: Vec<Registry>,
        pull: PullPolicy = PullPolicy::Missing,
        /// Docker's own file of keys to registries. Empty until resolved; `none`: not read.
        docker_config: String,
    }
}

choice! {
    /// When a registry is asked for an image.
    PullPolicy {
        Missing = "missing",
        Never = "never",
        Always = "always",
    }
}

section! {
    /// `retention.*`
    Retention {
        /// How long the record of a destroyed sandbox is kept.
        sandboxes: Duration = Duration::from_secs(24 * 3600),
        /// How long the record of a command is kept after its end.
        execs: Duration = Duration::from_secs(24 * 3600),
        /// Records of commands of one sandbox; 0: no bound.
        execs_per_sandbox: u64 = 10_000,
        /// Images that no sandbox was made of for so long are removed; 0: none.
        images: Duration,
        /// The images unused for longest are removed until the rest is no larger; 0: none.
        images_size_mb: u64,
    }
}
