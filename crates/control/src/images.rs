//! The images of the workers. Which image a sandbox may have is no matter of this room: these are
//! for who runs the whole.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{ImageInfo, ImageOp, ImageReply, Prune, Pruned, PullStream, WorkerLink};
use types::Fault;

use crate::Control;
use crate::fault::within;

/// Looking and naming take moments; removing a large image may take longer.
const DEADLINE: Duration = Duration::from_secs(120);

impl Control {
    /// Newest first.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, Fault> {
        match self.ask_for_images(ImageOp::List).await? {
            ImageReply::Images(images) => Ok(images),
            _ => Err(odd()),
        }
    }

    pub async fn image(&self, name: &str) -> Result<ImageInfo, Fault> {
        one(self.ask_for_images(ImageOp::Inspect { image: name.to_owned() }).await?)
    }

    /// Starts a pull, or joins one. It goes on when the stream is dropped.
    pub async fn pull_image(&self, name: &str) -> Result<PullStream, Fault> {
        match self.ask_for_images(ImageOp::Pull { image: name.to_owned() }).await? {
            ImageReply::Pull(stream) => Ok(stream),
            _ => Err(odd()),
        }
    }

    pub async fn tag_image(&self, name: &str, tag: &str) -> Result<ImageInfo, Fault> {
        let op = ImageOp::Tag { image: name.to_owned(), tag: tag.to_owned() };
        one(self.ask_for_images(op).await?)
    }

    pub async fn remove_image(&self, name: &str) -> Result<(), Fault> {
        match self.ask_for_images(ImageOp::Remove { image: name.to_owned() }).await? {
            ImageReply::Done => Ok(()),
            _ => Err(odd()),
        }
    }

    pub async fn prune_images(&self, what: Prune) -> Result<Pruned, Fault> {
        match self.ask_for_images(ImageOp::Prune(what)).await? {
            ImageReply::Pruned(pruned) => Ok(pruned),
            _ => Err(odd()),
        }
    }

    /// The worker whose images are meant: the one that wins a tie, else the first.
    async fn ask_for_images(&self, op: ImageOp) -> Result<ImageReply, Fault> {
        let links = &self.0.links;
        let first = || links.all().into_iter().next().map(|(_, link)| link);
        let link: Option<Arc<dyn WorkerLink>> =
            links.get(&self.0.config.local_worker).or_else(first);
        let link = link.ok_or_else(|| Fault::unavailable("the worker cannot be reached; retry"))?;
        within(DEADLINE, "the work on images", link.images(op)).await
    }
}

fn one(reply: ImageReply) -> Result<ImageInfo, Fault> {
    match reply {
        ImageReply::Image(image) => Ok(*image),
        _ => Err(odd()),
    }
}

fn odd() -> Fault {
    Fault::internal("the worker answered something else than it was asked")
}
