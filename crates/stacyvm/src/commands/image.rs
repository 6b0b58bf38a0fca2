//! `image …`: the images on this machine, beside a live server too.

use std::path::{Path, PathBuf};

use ::providers::images::{
    ImageInfo, ImageStore, Naming, Progress, Prune, PullEvent, PullProgress,
};
use serde_json::json;

use super::load_options;
use crate::assemble::{self, DataDir, Runtime, Signals};
use crate::cli::{Global, Image, PruneImages};
use crate::config;
use crate::failure::Failure;
use crate::output::{self, size, tame};

pub fn run(global: &Global, command: Image) -> Result<(), Failure> {
    let (options, env) = load_options(global);
    let config = config::load(&options, &env)?.config;
    let data_dir =
        DataDir::open(Path::new(&config.data_dir)).map_err(|e| Failure::new(e.to_string()))?;
    Runtime::multi_thread()?.block_on(async {
        let store = assemble::image_store(&config, &data_dir)?;
        match command {
            Image::Pull { name, format } => pull(&store, &name, format.json).await,
            Image::Import { path, tag, pick, format } => {
                let naming = Naming { otherwise: tag_of(&path).ok(), tag, pick };
                import(&store, path, naming, format.json).await
            }
            Image::Ls(format) => list(&store, format.json).await,
            Image::Inspect { name, format } => inspect(&store, &name, format.json).await,
            Image::Tag { name, tag } => {
                let info = store.tag(&name, &tag).await?;
                output::line(&format!("{}  {}", tame(&tag), short(&info.digest)))?;
                Ok(())
            }
            Image::Prune(what) => prune(&store, what).await,
            Image::Rm { name } => {
                store.remove(&name).await?;
                output::line(&format!("{} removed", tame(&name)))?;
                Ok(())
            }
        }
    })
}

async fn pull(store: &ImageStore, name: &str, as_json: bool) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let mut pull = store.pull(name)?;
    let pulled = loop {
        tokio::select! {
            event = pull.next() => match event {
                PullEvent::Progress(progress) => output::progress(&pulling(&progress)),
                PullEvent::Done(done) => break done,
            },
            signal = signals.next() => {
                output::progress("");
                // It clears up first.
                store.close().await;
                return Err(Failure { text: "the pull was given up".into(), code: signal.exit_code() });
            }
        }
    };
    output::progress("");
    told(*pulled?, as_json)
}

fn pulling(p: &PullProgress) -> String {
    match p.layers {
        0 => "pulling: asking the registry".to_owned(),
        layers => format!(
            "pulling: {} of {}, {} of {layers} layers done",
            size(p.bytes),
            size(p.total_bytes),
            p.layers_done
        ),
    }
}

async fn import(
    store: &ImageStore,
    path: PathBuf,
    naming: Naming,
    as_json: bool,
) -> Result<(), Failure> {
    if naming.tag.is_none() && naming.otherwise.is_none() {
        tag_of(&path)?;
    }
    let mut signals = Signals::catch()?;
    let imported = tokio::select! {
        imported = store.import_as(&path, naming, show_progress) => imported,
        // The import stops and leaves nothing.
        signal = signals.next() => {
            output::progress("");
            return Err(Failure { text: "the import was given up".into(), code: signal.exit_code() });
        }
    };
    output::progress("");
    let info =
        imported.map_err(|e| Failure::because(&format!("cannot import {}", path.display()), &e))?;
    told(info, as_json)
}

/// What an image that came in is called.
fn told(info: ImageInfo, as_json: bool) -> Result<(), Failure> {
    if as_json {
        output::json(&json!(info))?;
        return Ok(());
    }
    for note in &info.notes {
        output::note(&format!("note: {}", tame(note)));
    }
    let known = if info.existed { ", which was here already" } else { "" };
    let names = if info.names.is_empty() { &info.known_as } else { &info.names };
    let names = tame(&names.join(" "));
    output::line(&format!("{names}  {}  {}{known}", short(&info.digest), size(info.size_bytes)))?;
    Ok(())
}

async fn inspect(store: &ImageStore, name: &str, as_json: bool) -> Result<(), Failure> {
    let info = store.inspect(name).await?;
    if as_json {
        output::json(&json!(info))?;
        return Ok(());
    }
    let row = |what: &str, value: String| vec![what.to_owned(), tame(&value)];
    let absent = || "-".to_owned();
    let rows = [
        row("names", info.names.join(" ")),
        row("digest", info.digest),
        row("known as", info.known_as.join(" ")),
        row("size", size(info.size_bytes)),
        row("files", info.entries.to_string()),
        row("layers", info.layers.len().to_string()),
        row("created", info.created.whole_seconds().to_string()),
        row("last used", info.last_used.whole_seconds().to_string()),
        row("variables", info.env.join(" ")),
        row("directory", info.workdir.unwrap_or_else(absent)),
        row("user", info.user.unwrap_or_else(absent)),
    ];
    output::table(&["WHAT", ""], &rows)?;
    Ok(())
}

async fn prune(store: &ImageStore, what: PruneImages) -> Result<(), Failure> {
    let pruned = store
        .prune(Prune {
            nameless: true,
            all: what.all,
            unused_for: what.unused_for,
            keep_bytes: what.keep.map(|mb| mb.saturating_mul(1 << 20)),
        })
        .await?;
    if what.format.json {
        output::json(&json!({ "removed": pruned.removed, "freed_bytes": pruned.freed_bytes }))?;
        return Ok(());
    }
    for info in &pruned.removed {
        let name = info.names.first().map_or("-", String::as_str);
        output::line(&format!("{}  {}  removed", tame(name), short(&info.digest)))?;
    }
    output::line(&format!("{} freed", size(pruned.freed_bytes)))?;
    Ok(())
}

fn show_progress(progress: Progress) {
    let read = size(progress.bytes);
    match progress.total_bytes {
        Some(total) => output::progress(&format!("importing: {read} of {}", size(total))),
        None => output::progress(&format!("importing: {read}")),
    }
}

async fn list(store: &ImageStore, as_json: bool) -> Result<(), Failure> {
    let images = store.list().await?;
    if as_json {
        output::json(&json!(images))?;
        return Ok(());
    }
    let built_in = ["host", "built in", "-", "-", "-"].map(str::to_owned).to_vec();
    let stored = images.iter().flat_map(rows_of);
    let rows: Vec<Vec<String>> = std::iter::once(built_in).chain(stored).collect();
    output::table(&["NAME", "DIGEST", "SIZE", "FILES", "CREATED"], &rows)?;
    Ok(())
}

/// One row for each of its names.
fn rows_of(image: &ImageInfo) -> Vec<Vec<String>> {
    let row = |name: &str| {
        vec![
            tame(name),
            short(&image.digest),
            size(image.size_bytes),
            image.entries.to_string(),
            image.created.whole_seconds().to_string(),
        ]
    };
    if image.names.is_empty() {
        return vec![row("-")];
    }
    image.names.iter().map(|name| row(name)).collect()
}

/// The name of a file without the endings of archives; a user who wants another says so.
fn tag_of(path: &Path) -> Result<String, Failure> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let bare = [".tar.gz", ".tgz", ".tar"].iter().find_map(|end| name.strip_suffix(end));
    let tag = bare.unwrap_or(name).to_ascii_lowercase();
    if tag.is_empty() {
        return Err(Failure::new("this path gives no name: name the image with --tag"));
    }
    Ok(tag)
}

/// Enough of a digest to name it.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_names_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(tag_of(Path::new("/x/Alpine.tar.gz")).unwrap(), "alpine");
        assert_eq!(tag_of(Path::new("/x/rootfs")).unwrap(), "rootfs");
        assert!(tag_of(Path::new("/")).is_err());
    }
}
