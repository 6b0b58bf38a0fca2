//! Files in a sandbox.

use bytes::Bytes;
use reqwest::Method;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use types::api;

use crate::sandboxes::sandbox;
use crate::{Client, Error};

/// How much [`Client::read_file`] holds at once; [`Client::read_file_to`] has no bound.
const MAX_FILE: usize = 64 * 1024 * 1024;

impl Client {
    /// Writes text to a file, making its parents. `mode`: octal, like `0644`.
    pub async fn write_file(
        &self,
        id: &str,
        path: &str,
        content: &str,
        mode: Option<&str>,
    ) -> Result<(), Error> {
        let body = api::WriteRequest {
            path: Some(path.to_owned()),
            content: Some(content.to_owned()),
            mode: mode.map(str::to_owned),
        };
        let call = self.call(Method::POST, &sandbox(id, "/files"));
        self.json_unhurried::<api::Status>(call, &body).await.map(drop)
    }

    /// Reads a file of at most 64 MiB.
    pub async fn read_file(&self, id: &str, path: &str) -> Result<Bytes, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files")).query(&[("path", path)]);
        let response = self.send(call).await?;
        let (body, whole) = self.read_bounded(response, MAX_FILE).await?;
        if !whole {
            return Err(Error::Options("the file is larger than 64 MiB: stream it".to_owned()));
        }
        Ok(body.into())
    }

    /// Reads a file of any size into `to`, and says how many bytes it had.
    pub async fn read_file_to(
        &self,
        id: &str,
        path: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files")).query(&[("path", path)]);
        let mut response = self.send(call).await?;
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(e))? {
            to.write_all(&chunk).await.map_err(Error::Output)?;
            size += chunk.len() as u64;
        }
        to.flush().await.map_err(Error::Output)?;
        Ok(size)
    }

    pub async fn list_files(&self, id: &str, path: &str) -> Result<Vec<api::FileInfo>, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files/list"));
        self.json(call.query(&[("path", path)])).await
    }

    pub async fn stat_file(&self, id: &str, path: &str) -> Result<api::FileInfo, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files/stat"));
        self.json(call.query(&[("path", path)])).await
    }

    pub async fn glob_files(&self, id: &str, pattern: &str) -> Result<Vec<String>, Error> {
        let call = self.call(Method::GET, &sandbox(id, "/files/glob"));
        self.json(call.query(&[("pattern", pattern)])).await
    }

    pub async fn delete_file(&self, id: &str, path: &str, recursive: bool) -> Result<(), Error> {
        let mut call = self.call(Method::DELETE, &sandbox(id, "/files")).query(&[("path", path)]);
        if recursive {
            call = call.query(&[("recursive", "true")]);
        }
        self.json::<api::Status>(call).await.map(drop)
    }

    pub async fn move_file(&self, id: &str, from: &str, to: &str) -> Result<(), Error> {
        let body =
            api::MoveRequest { old_path: Some(from.to_owned()), new_path: Some(to.to_owned()) };
        let call = self.call(Method::POST, &sandbox(id, "/files/move")).json(&body);
        self.json::<api::Status>(call).await.map(drop)
    }

    pub async fn chmod_file(&self, id: &str, path: &str, mode: &str) -> Result<(), Error> {
        let body = api::ChmodRequest { path: Some(path.to_owned()), mode: Some(mode.to_owned()) };
        let call = self.call(Method::POST, &sandbox(id, "/files/chmod")).json(&body);
        self.json::<api::Status>(call).await.map(drop)
    }
}
