//! What a sandbox and a command get when nobody says otherwise, and how much there may be.

use std::time::Duration;

use crate::config::WarmPool;
use crate::config::section::{choice, section};

const HOUR: Duration = Duration::from_secs(3600);

section! {
    /// `defaults.*`
    Defaults {
        ttl: Duration = HOUR / 2,
        image: String = "host".to_owned(),
        memory_mb: u32 = 1024,
        vcpus: u32 = 1,
        disk_size_mb: u32 = 1024,
        pool_size: u64,
        pool_template: String,
        /// Sandboxes kept ready; empty: none.
        warm_pool: Vec<WarmPool>,
        /// One that waited so long is replaced.
        warm_pool_max_age: Duration = HOUR / 6,
        /// What all that wait may hold together; 0: a tenth of the host's memory.
        warm_pool_memory_mb: u64,
        /// 0: unlimited.
        max_ttl: Duration = HOUR * 24,
        /// 0: none.
        default_exec_timeout: Duration,
        /// 0: none.
        max_exec_timeout: Duration = HOUR / 6,
        /// 0: unlimited.
        max_sandboxes: u64,
        /// 0: unlimited.
        max_sandboxes_per_owner: u64,
        spawn_overflow: SpawnOverflow = SpawnOverflow::Reject,
        spawn_queue_timeout: Duration = Duration::from_secs(30),
        max_spawn_queue: u64 = 100,
    }
}

choice! {
    /// What becomes of a spawn that finds the server full.
    SpawnOverflow {
        Reject = "reject",
        Queue = "queue",
    }
}

section! {
    /// `exec.*`
    Exec {
        /// Of each captured stream.
        max_output_bytes: usize = 16 * 1024 * 1024,
    }
}

section! {
    /// `rate_limit.*`
    RateLimit {
        enabled: bool,
        requests_per_minute: u64 = 120,
        burst: u64 = 60,
        key_by: KeyBy = KeyBy::Owner,
        bucket_ttl: Duration = HOUR / 4,
        cleanup_interval: Duration = HOUR / 60,
    }
}

choice! {
    /// Whose requests are counted together.
    KeyBy {
        Owner = "owner",
        ApiKey = "api_key",
        Ip = "ip",
    }
}

section! {
    /// `pool.*`
    Pool {
        enabled: bool,
        max_vms: u64 = 10,
        max_users_per_vm: u64 = 5,
        image: String = "alpine:latest".to_owned(),
        memory_mb: u32 = 2048,
        vcpus: u32 = 2,
        overflow: SpawnOverflow = SpawnOverflow::Reject,
    }
}
