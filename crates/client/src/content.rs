//! Files of any size, and whole directories, as streams.

use bytes::Bytes;
use reqwest::{Body, Method, Response};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use types::api;

use crate::sandboxes::sandbox;
use crate::{Client, Error};

/// Bytes read and sent at once.
const PIECE: usize = 64 * 1024;

impl Client {
    /// Writes a file of any size, atomically, making its parents. `mode`: octal, like `0644`.
    pub async fn upload(
        &self,
        id: &str,
        path: &str,
        mode: Option<&str>,
        from: impl AsyncRead + Send + 'static,
    ) -> Result<api::Written, Error> {
        let mut call = self.call(Method::PUT, &sandbox(id, "/files/content"));
        call = call.query(&[("path", path)]);
        if let Some(mode) = mode {
            call = call.query(&[("mode", mode)]);
        }
        let response = self.send(call.body(streamed(from))).await?;
        self.read_json(response).await
    }

    /// Begins to read a file of any size.
    pub async fn download(&self, id: &str, path: &str) -> Result<Content, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files/content"));
        self.content(call.query(&[("path", path)])).await
    }

    /// Writes what a tar archive holds beneath a directory; plain, gzip or zstd.
    pub async fn upload_archive(
        &self,
        id: &str,
        path: &str,
        from: impl AsyncRead + Send + 'static,
    ) -> Result<(), Error> {
        let call = self.call(Method::PUT, &sandbox(id, "/files/archive")).query(&[("path", path)]);
        let response = self.send(call.body(streamed(from))).await?;
        self.read_json::<api::Status>(response).await.map(drop)
    }

    /// Begins to read a directory as a tar archive; `format`: `tar`, `gzip` or `zstd`.
    pub async fn download_archive(
        &self,
        id: &str,
        path: &str,
        format: &str,
    ) -> Result<Content, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files/archive"));
        self.content(call.query(&[("path", path), ("format", format)])).await
    }

    async fn content(&self, call: reqwest::RequestBuilder) -> Result<Content, Error> {
        let response = self.send(call).await?;
        let size = response.content_length();
        Ok(Content { client: self.clone(), response, size })
    }
}

fn streamed(from: impl AsyncRead + Send + 'static) -> Body {
    Body::wrap_stream(ReaderStream::with_capacity(from, PIECE))
}

/// Content on its way. An end that comes too early is an error.
pub struct Content {
    client: Client,
    response: Response,
    size: Option<u64>,
}

impl Content {
    /// How many bytes there are, where that was said.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.response.chunk().await.map_err(|e| self.client.failed(e))
    }
}
