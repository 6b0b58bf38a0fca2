//! `spawn`.

use client::api::SpawnRequest;
use serde_json::json;
use types::duration;

use super::client;
use crate::cli::{Global, Spawn};
use crate::failure::Failure;
use crate::output::{self, tame};

pub async fn run(global: &Global, args: Spawn) -> Result<(), Failure> {
    let request = SpawnRequest {
        image: args.shape.image,
        provider: args.provider,
        memory_mb: args.shape.memory.map(i64::from),
        vcpus: args.shape.vcpus.map(i64::from),
        disk_size_mb: args.shape.disk.map(i64::from),
        ttl: args.ttl.map(duration::format),
        name: args.name,
        metadata: (!args.metadata.is_empty()).then(|| args.metadata.into_iter().collect()),
        ..SpawnRequest::default()
    };
    let sandbox = client(global)?.spawn(&request).await?;
    if args.format.json {
        output::json(&json!(sandbox))?;
    } else {
        let text = [&sandbox.id, &sandbox.provider, &sandbox.image].map(|t| tame(t));
        output::line(&text.join("  "))?;
    }
    Ok(())
}
