//! The images of this worker: of the provider that stores some.

use futures_util::stream;
use protocol::worker::{ImageOp, ImageReply, PullEvent};
use types::Fault;

use crate::core::Core;

impl Core {
    pub(crate) async fn images(&self, op: ImageOp) -> Result<ImageReply, Fault> {
        let store = self.providers.iter().find_map(|(_, provider)| provider.images());
        let store =
            store.ok_or_else(|| Fault::not_found("no provider of this worker stores images"))?;
        Ok(match op {
            ImageOp::List => ImageReply::Images(store.list().await?),
            ImageOp::Inspect { image } => ImageReply::Image(Box::new(store.inspect(&image).await?)),
            ImageOp::Pull { image } => {
                let pull = Some(store.pull(&image)?);
                ImageReply::Pull(Box::pin(stream::unfold(pull, |pull| async {
                    let mut pull = pull?;
                    let event = pull.next().await;
                    let more = matches!(event, PullEvent::Progress(_)).then_some(pull);
                    Some((event, more))
                })))
            }
            ImageOp::Tag { image, tag } => {
                ImageReply::Image(Box::new(store.tag(&image, &tag).await?))
            }
            ImageOp::Remove { image } => {
                store.remove(&image).await?;
                ImageReply::Done
            }
            ImageOp::Prune(what) => ImageReply::Pruned(store.prune(what).await?),
        })
    }
}
