//! An image from a registry until a sandbox could be made of it, beside the tools that fetch and
//! unpack one without any store.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::Bench;
use crate::ground::{Ground, succeed};
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
    let ground = Ground::pulling(&registry.entry()).await;
    let mut client = ground.client().await?;
    let name = registry.image();
    let order = json!({ "image": name }).to_string();
    let path = format!("/images/{}", name.replace('/', "%2F").replace(':', "%3A"));
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    // The first round warms up: the registry's files, and both sides' programs.
    for round in 0..=bench.args.times(ROUNDS) {
        let (mut pulled, mut copied) = (Samples::default(), Samples::default());
        rustix::fs::sync();
        let begun = Instant::now();
        client.ask("POST", "/images/pull", &order).await?;
        pulled.add(begun.elapsed());
        client.ask("DELETE", &path, "").await?;
        rustix::fs::sync();
        copied.add(copy_and_unpack(&registry)?);
        if round > 0 {
            ours.extend(pulled);
            theirs.extend(copied);
        }
    }
    ground.finish().await?;
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
fn copy_and_unpack(registry: &Registry) -> Result<Duration, String> {
    let (layout, tree) = (registry.place("copied"), registry.place("tree"));
    fs::create_dir_all(&tree).map_err(|e| e.to_string())?;
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
    let took = begun.elapsed();
    fs::remove_dir_all(layout).map_err(|e| e.to_string())?;
    fs::remove_dir_all(tree).map_err(|e| e.to_string())?;
    Ok(took)
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
