//! An image from a registry, by the command line, until a sandbox could be made of it, beside the tools that fetch and
//! unpack one without any store.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::System;
use tokio::time::Instant;

use super::Bench;
use crate::ground::succeed;
use crate::numbers::{Samples, thousands, times};
use crate::registry::Registry;

const BYTES: u64 = 200 << 20;
const ROUNDS: usize = 7;
const WHAT: &str = "pulling and unpacking an image of 200 MB";

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), String> {
    let registry = match Registry::start(BYTES).await {
        Ok(registry) => registry,
        Err(why) => {
            bench.report.note(format!("{WHAT}: skipped, {why}."));
            return Ok(());
        }
    };
    let name = registry.image();
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    // Removed at the end only: a file system is slow to make files where it has just removed some.
    let mut kept = Vec::new();
    // The first round warms up: the registry's files, and both sides' programs.
    for round in 0..=bench.args.times(ROUNDS) {
        let system = System::new(json!({ "images": { "registries": [registry.entry()] } }));
        rustix::fs::sync();
        let begun = Instant::now();
        succeed(&mut system.command(&["image", "pull", &name]))?;
        let pulled = begun.elapsed();
        kept.push(system);
        let copied = copy_and_unpack(&registry, &registry.place(&format!("round-{round}")))?;
        if round > 0 {
            ours.add(pulled);
            theirs.add(copied);
        }
    }
    let rate = registry.bytes as f64 / 1e6 / ours.p50().as_secs_f64();
    bench.report.row(
        WHAT,
        format!("{}, {} MB/s", ours.text(), thousands(rate)),
        format!("`skopeo copy` and `tar` {} ({})", theirs.text(), times(ours.p50(), theirs.p50())),
        "faster",
        Some(ours.p50() < theirs.p50()),
    );
    Ok(())
}

/// Into a layout, and its layers into a tree, one after the other.
fn copy_and_unpack(registry: &Registry, place: &Path) -> Result<Duration, String> {
    let (layout, tree) = (place.join("layout"), place.join("tree"));
    fs::create_dir_all(&tree).map_err(|e| e.to_string())?;
    rustix::fs::sync();
    let begun = Instant::now();
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
    copy.arg(format!("docker://{}", registry.image())).arg(format!("oci:{}:1", layout.display()));
    succeed(&mut copy)?;
    for blob in layers(&layout)? {
        let mut unpack = Command::new("tar");
        unpack.arg("-xzf").arg(layout.join("blobs/sha256").join(blob)).arg("-C").arg(&tree);
        succeed(&mut unpack)?;
    }
    Ok(begun.elapsed())
}

/// The names of an image's layers, undermost first.
fn layers(layout: &Path) -> Result<Vec<String>, String> {
    let document = |path: &Path| -> Result<serde_json::Value, String> {
        let text = fs::read(path).map_err(|e| e.to_string())?;
        serde_json::from_slice(&text).map_err(|e| e.to_string())
    };
    let hex = |digest: &serde_json::Value| -> Result<String, String> {
        let digest = digest.as_str().and_then(|d| d.strip_prefix("sha256:"));
        digest.map(str::to_owned).ok_or_else(|| "a layout without digests".to_owned())
    };
    let index = document(&layout.join("index.json"))?;
    let manifest = hex(&index["manifests"][0]["digest"])?;
    let manifest = document(&layout.join("blobs/sha256").join(manifest))?;
    let listed = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    listed.iter().map(|layer| hex(&layer["digest"])).collect()
}
