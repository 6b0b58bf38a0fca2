//! From one sandbox to another: bytes pass through here, and none is kept.

use std::io;

use client::{Client, Content};
use futures_util::stream;
use tokio::io::AsyncRead;
use tokio::sync::oneshot;
use tokio_util::io::StreamReader;

use super::place::{base, joined};
use super::progress::{Counted, Progress};
use super::stat;
use crate::failure::Failure;

/// A sandbox, and a path in it.
type End<'a> = (&'a str, &'a str);

pub async fn run(client: &Client, from: End<'_>, to: End<'_>) -> Result<(), Failure> {
    if from.0 == to.0 {
        return Err(Failure {
            text: "both sides are of one sandbox: copy inside it, with exec".into(),
            code: 2,
        });
    }
    let Some(info) = stat(client, from.0, from.1).await? else {
        return Err(Failure::new(format!("{}: there is no such file in the sandbox", from.1)));
    };
    let there = stat(client, to.0, to.1).await?;
    let is_dir = to.1.ends_with('/') || there.is_some_and(|there| there.is_dir);
    let path = if is_dir { joined(to.1, &base(info.path.as_ref())?) } else { to.1.to_owned() };
    let content = if info.is_dir {
        client.download_archive(from.0, from.1, "tar").await?
    } else {
        client.download(from.0, from.1).await?
    };
    let progress = Progress::new(content.size());
    let (passing, broken) = passing(content);
    let passing = Counted::new(passing, progress);
    let sent = if info.is_dir {
        client.upload_archive(to.0, &path, passing).await
    } else {
        let mode = u32::from_str_radix(&info.mode, 8).unwrap_or(0o644) & 0o777;
        client.upload(to.0, &path, Some(&format!("{mode:04o}")), passing).await.map(drop)
    };
    // What broke off there says more than that it did not come here.
    match (sent, broken.await) {
        (Ok(()), _) => Ok(()),
        (Err(_), Ok(first)) => Err(first.into()),
        (Err(error), Err(_)) => Err(error.into()),
    }
}

/// What comes from one side, to be read by the other. If it breaks off it does not look like an
/// end, and the second says with what.
fn passing(content: Content) -> (impl AsyncRead + Send, oneshot::Receiver<client::Error>) {
    let (broken, told) = oneshot::channel();
    let pieces = stream::unfold(Some((content, broken)), |from| async move {
        let (mut content, broken) = from?;
        match content.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some((content, broken)))),
            Ok(None) => None,
            Err(error) => {
                let text = io::Error::other(error.to_string());
                // Whoever listens no more does not want to know.
                let _ = broken.send(error);
                Some((Err(text), None))
            }
        }
    });
    (StreamReader::new(Box::pin(pieces)), told)
}
