//! The warm pools of a worker, as the configuration has them.

use types::SandboxSize;
use worker::{WarmConfig, WarmPool};

use crate::config::Config;
use crate::failure::Failure;

/// Of the host's memory: sandboxes that wait may hold one part in so many, if nothing else is said.
const SHARE: u64 = 10;

/// With the defaults filled in. Reads how much memory the host has.
pub fn pools(config: &Config) -> Result<WarmConfig, Failure> {
    let d = &config.defaults;
    if d.warm_pool.is_empty() {
        return Ok(WarmConfig::default());
    }
    let or = |asked: u32, default| if asked == 0 { default } else { asked };
    let pools = d.warm_pool.iter().map(|pool| WarmPool {
        provider: pool.provider.clone(),
        image: if pool.image.is_empty() { d.image.clone() } else { pool.image.clone() },
        size: SandboxSize {
            memory_mb: or(pool.memory_mb, d.memory_mb),
            vcpus: or(pool.vcpus, d.vcpus),
            disk_size_mb: or(pool.disk_size_mb, d.disk_size_mb),
        },
        count: pool.count as usize,
    });
    let memory_bytes = match d.warm_pool_memory_mb {
        0 => host_memory()? / SHARE,
        mb => mb.saturating_mul(1 << 20),
    };
    Ok(WarmConfig { pools: pools.collect(), max_age: d.warm_pool_max_age, memory_bytes })
}

fn host_memory() -> Result<u64, Failure> {
    let failed = |e: &dyn std::error::Error| Failure::because("cannot tell the host's memory", e);
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|e| failed(&e))?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()
    });
    let kib: u64 = kib.ok_or_else(|| Failure::new("cannot tell the host's memory".to_owned()))?;
    Ok(kib << 10)
}
