//! `cp`: files between here and a sandbox, or two of them; directories as archives, and pipes.

mod across;
mod place;
mod progress;
mod tree;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use client::api::FileInfo;
use client::{Client, Content};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use self::place::{Place, base};
use self::progress::{Counted, Progress};
use super::client;
use crate::cli::{Cp, Global};
use crate::failure::Failure;

pub async fn run(global: &Global, args: Cp) -> Result<(), Failure> {
    let client = client(global)?;
    match (Place::parse(&args.src), Place::parse(&args.dst)) {
        (Place::Pipe, Place::Inside { id, path }) => {
            put(&client, id, path, None, tokio::io::stdin(), Progress::new(None)).await
        }
        (Place::Here(from), Place::Inside { id, path }) => into(&client, from, id, path).await,
        (Place::Inside { id, path }, Place::Pipe) => {
            let out = tokio::io::stdout();
            if stat(&client, id, path).await?.is_some_and(|info| info.is_dir) {
                let mut archive = client.download_archive(id, path, "tar").await?;
                return drain(&mut archive, out, Progress::new(None)).await;
            }
            let mut content = client.download(id, path).await?;
            let progress = Progress::new(content.size());
            drain(&mut content, out, progress).await
        }
        (Place::Inside { id, path }, Place::Here(to)) => out_of(&client, id, path, to).await,
        (Place::Inside { id, path }, Place::Inside { id: other, path: to }) => {
            across::run(&client, (id, path), (other, to)).await
        }
        (Place::Here(_) | Place::Pipe, Place::Here(_) | Place::Pipe) => {
            Err(Failure { text: "one side has to be a sandbox's, like ID:/path".into(), code: 2 })
        }
    }
}

async fn into(client: &Client, from: &Path, id: &str, path: &str) -> Result<(), Failure> {
    let doing = |e| Failure::because(&format!("cannot read {}", from.display()), &e);
    let about = tokio::fs::metadata(from).await.map_err(doing)?;
    let there = stat(client, id, path).await?;
    let is_dir = path.ends_with('/') || there.is_some_and(|info| info.is_dir);
    if about.is_dir() {
        // As `cp -r` does: into a directory that is there, else as it.
        let to = if is_dir { place::joined(path, &base(from)?) } else { path.to_owned() };
        let (archive, packing) = tree::pack(from.to_owned());
        let counted = Counted::new(archive, Progress::new(None));
        let sent = client.upload_archive(id, &to, counted).await;
        // What went wrong here says more than that the server got half of it.
        tree::finish(packing).await?;
        return Ok(sent?);
    }
    let to = if is_dir { place::joined(path, &base(from)?) } else { path.to_owned() };
    let mode = format!("{:04o}", about.permissions().mode() & 0o777);
    let file = File::open(from).await.map_err(doing)?;
    let size = about.is_file().then_some(about.len());
    put(client, id, &to, Some(&mode), file, Progress::new(size)).await
}

async fn put(
    client: &Client,
    id: &str,
    path: &str,
    mode: Option<&str>,
    from: impl AsyncRead + Send + 'static,
    progress: Progress,
) -> Result<(), Failure> {
    client.upload(id, path, mode, Counted::new(from, progress)).await?;
    Ok(())
}

async fn out_of(client: &Client, id: &str, path: &str, to: &Path) -> Result<(), Failure> {
    let Some(info) = stat(client, id, path).await? else {
        return Err(Failure::new(format!("{path}: there is no such file in the sandbox")));
    };
    let inside = if to.is_dir() { to.join(base(Path::new(&info.path))?) } else { to.to_owned() };
    if info.is_dir {
        let archive = client.download_archive(id, path, "tar").await?;
        return tree::unpack(archive, inside).await;
    }
    let mut content = client.download(id, path).await?;
    let progress = Progress::new(content.size());
    // Beside its place, so that a break leaves the old one.
    let part = inside.with_file_name(format!(".{}.part", base(&inside)?));
    let doing = |e| Failure::because(&format!("cannot write {}", inside.display()), &e);
    let file = File::create(&part).await.map_err(doing)?;
    let mode = u32::from_str_radix(&info.mode, 8).unwrap_or(0o644) & 0o777;
    let done = async {
        drain(&mut content, file, progress).await?;
        tokio::fs::set_permissions(&part, Permissions::from_mode(mode)).await.map_err(doing)?;
        tokio::fs::rename(&part, &inside).await.map_err(doing)
    };
    let done = done.await;
    if done.is_err() {
        // It may be gone already; the reason that counts is the first.
        let _ = tokio::fs::remove_file(&part).await;
    }
    done
}

async fn drain(
    content: &mut Content,
    mut to: impl AsyncWrite + Unpin,
    mut progress: Progress,
) -> Result<(), Failure> {
    while let Some(piece) = content.next().await? {
        to.write_all(&piece).await?;
        progress.add(piece.len());
    }
    to.flush().await?;
    Ok(())
}

/// What lies there; `None` where nothing does.
async fn stat(client: &Client, id: &str, path: &str) -> Result<Option<FileInfo>, Failure> {
    match client.stat_file(id, path).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.code() == Some("FILE_NOT_FOUND") => Ok(None),
        Err(error) => Err(error.into()),
    }
}
