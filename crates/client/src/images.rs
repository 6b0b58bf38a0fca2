//! The images of a server: for its administrators.

use reqwest::Method;
use types::api;

use crate::client::segment;
use crate::exec::LineBuffer;
use crate::{Client, Error};

impl Client {
    pub async fn images(&self) -> Result<Vec<api::Image>, Error> {
        self.json(self.call(Method::GET, "/images")).await
    }

    /// By a name, a digest or its first digits.
    pub async fn image(&self, name: &str) -> Result<api::Image, Error> {
        self.json(self.call(Method::GET, &image(name, ""))).await
    }

    /// Pulls an image; what happens comes line by line. Dropping the lines does not stop it.
    pub async fn pull_image(&self, name: &str) -> Result<PullLines, Error> {
        let request = api::PullRequest { image: name.to_owned(), stream: Some(true) };
        let response = self.send(self.call(Method::POST, "/images/pull").json(&request)).await?;
        Ok(PullLines { client: self.clone(), response, buffer: LineBuffer::default() })
    }

    pub async fn tag_image(&self, name: &str, tag: &str) -> Result<api::Image, Error> {
        let request = api::TagRequest { tag: tag.to_owned() };
        self.json(self.call(Method::POST, &image(name, "/tag")).json(&request)).await
    }

    pub async fn delete_image(&self, name: &str) -> Result<api::Status, Error> {
        self.json(self.call(Method::DELETE, &image(name, ""))).await
    }

    pub async fn prune_images(
        &self,
        request: &api::PruneImagesRequest,
    ) -> Result<api::PrunedImages, Error> {
        self.json_unhurried(self.call(Method::POST, "/images/prune"), request).await
    }
}

/// The lines of a pull. The last has the status `done` or `error`.
pub struct PullLines {
    client: Client,
    response: reqwest::Response,
    buffer: LineBuffer,
}

impl PullLines {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<api::PullLine>, Error> {
        let line = self.buffer.next_line(&self.client, &mut self.response).await?;
        let line = line.map(|line| serde_json::from_slice(&line)).transpose();
        line.map_err(|e| self.client.protocol(&e.to_string()))
    }
}

fn image(name: &str, rest: &str) -> String {
    format!("/images/{}{rest}", segment(name))
}
