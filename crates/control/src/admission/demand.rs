//! What a spawn asks for, with the defaults filled in and nonsense refused.

use std::collections::BTreeMap;
use std::time::Duration;

use store::{Limits, NameOf, SpawnKey};
use types::{Fault, OwnerId, SandboxName, SandboxSize, TenantId, Timestamp};

use crate::control::Inner;
use crate::fault::{limit, shown};
use crate::sandboxes::{KEY_LIFE, RepeatKey, SpawnInput};
use crate::{Context, Defaults};

/// Above these a size is a slip of the pen, not a wish: no host has them.
const MAX_MEMORY_MB: u32 = 16 * 1024 * 1024;
const MAX_VCPUS: u32 = 4096;
const MAX_DISK_MB: u32 = 64 * 1024 * 1024;
/// A reference is at most this long in every registry.
const MAX_IMAGE: usize = 512;
/// Metadata is labels; it is read back with each list.
const MAX_METADATA: usize = 64 * 1024;
/// Each is found by an index of its own.
const MAX_LABELS: usize = 256;

/// A sandbox that is asked for.
#[derive(Clone)]
pub(crate) struct Wish {
    pub provider: String,
    pub provider_is_known: bool,
    /// Named by the caller, so that not knowing it is the caller's mistake.
    pub provider_is_explicit: bool,
    pub image: String,
    pub size: SandboxSize,
    pub ttl: Duration,
    pub owner: Option<OwnerId>,
    pub tenant: Option<TenantId>,
    pub metadata: BTreeMap<String, String>,
    pub name: Option<SandboxName>,
    pub key: Option<SpawnKey>,
}

impl Wish {
    pub fn resolve(inner: &Inner, ctx: &Context, input: SpawnInput) -> Result<Self, Fault> {
        let defaults = &inner.config.defaults;
        let named = input.provider.as_deref().map(str::trim).filter(|p| !p.is_empty());
        let asked = named.unwrap_or(&defaults.provider);
        let known = inner.workers.provider(asked);
        let image = input.image.as_deref().map(str::trim).filter(|i| !i.is_empty());
        let image = image.unwrap_or(&defaults.image).to_owned();
        if image.len() > MAX_IMAGE {
            return Err(Fault::bad_request(format!("image is longer than {MAX_IMAGE} bytes")));
        }
        let written: usize = input.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if written > MAX_METADATA {
            return Err(Fault::bad_request(format!(
                "metadata is larger than {MAX_METADATA} bytes"
            )));
        }
        if input.metadata.len() > MAX_LABELS {
            let text = format!("metadata has more than {MAX_LABELS} entries");
            return Err(Fault::bad_request(text));
        }
        let ttl = input.ttl.unwrap_or(defaults.ttl);
        if ttl.is_zero() {
            return Err(Fault::bad_request("ttl must be above zero"));
        }
        Ok(Self {
            provider_is_known: known.is_some(),
            provider_is_explicit: named.is_some(),
            provider: known.unwrap_or_else(|| asked.to_owned()),
            image,
            size: size(defaults, &input)?,
            ttl,
            owner: ctx.owner.clone().or(input.owner),
            tenant: ctx.tenant.clone(),
            metadata: input.metadata,
            name: input.name,
            key: input.key.map(|key| stored(key, inner.clock.wall())),
        })
    }

    /// The name in its owner's room.
    pub fn name_of(&self) -> Option<NameOf> {
        let (owner, tenant) = (self.owner.clone(), self.tenant.clone());
        self.name.clone().map(|name| NameOf { name, owner, tenant })
    }

    /// An explicit provider that no worker ever had.
    pub fn check_provider(&self) -> Result<(), Fault> {
        if self.provider_is_explicit && !self.provider_is_known {
            return Err(Fault::not_found(format!("provider {} not found", shown(&self.provider))));
        }
        Ok(())
    }

    pub fn limits(&self, inner: &Inner) -> Limits {
        Limits {
            max_sandboxes: inner.config.defaults.max_sandboxes,
            max_per_owner: inner.config.defaults.max_sandboxes_per_owner,
        }
    }
}

fn stored(key: RepeatKey, now: Timestamp) -> SpawnKey {
    let life = i128::try_from(KEY_LIFE.as_nanos()).unwrap_or(i128::MAX);
    let since = Timestamp::from_unix_nanos(now.unix_nanos().saturating_sub(life));
    SpawnKey { key: key.key, request: key.request, since }
}

/// `ttl` against the largest that is given.
pub(crate) fn check_ttl(defaults: &Defaults, ttl: Duration) -> Result<(), Fault> {
    if !defaults.max_ttl.is_zero() && ttl > defaults.max_ttl {
        return Err(limit(format!(
            "ttl {} is above max_ttl ({})",
            types::duration::format(ttl),
            types::duration::format(defaults.max_ttl)
        )));
    }
    Ok(())
}

fn size(defaults: &Defaults, input: &SpawnInput) -> Result<SandboxSize, Fault> {
    let pick = |name, asked: Option<u32>, default, max| {
        let value = asked.filter(|v| *v != 0).unwrap_or(default);
        if value > max {
            return Err(Fault::bad_request(format!("{name} is above {max}")));
        }
        Ok(value)
    };
    Ok(SandboxSize {
        memory_mb: pick("memory_mb", input.memory_mb, defaults.memory_mb, MAX_MEMORY_MB)?,
        vcpus: pick("vcpus", input.vcpus, defaults.vcpus, MAX_VCPUS)?,
        disk_size_mb: pick("disk_size_mb", input.disk_size_mb, defaults.disk_size_mb, MAX_DISK_MB)?,
    })
}
