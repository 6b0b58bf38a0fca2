//! Sandboxes: spawn, look up, extend, destroy.

use std::time::Duration;

use reqwest::Method;
use types::api;

use crate::client::segment;
use crate::{Client, Error};

impl Client {
    /// Makes a sandbox. May take as long as its image takes to be had.
    pub async fn spawn(&self, request: &api::SpawnRequest) -> Result<api::Sandbox, Error> {
        self.json_unhurried(self.call(Method::POST, "/sandboxes"), request).await
    }

    /// As [`Client::spawn`]; repeated with the same key and request, it makes no second sandbox.
    pub async fn spawn_once(
        &self,
        key: &str,
        request: &api::SpawnRequest,
    ) -> Result<api::Sandbox, Error> {
        let call = self.call(Method::POST, "/sandboxes").header("Idempotency-Key", key);
        self.json_unhurried(call, request).await
    }

    /// Whether a spawn would be let in.
    pub async fn admission(&self, request: &api::SpawnRequest) -> Result<api::Admission, Error> {
        self.json(self.call(Method::POST, "/sandboxes/admission").json(request)).await
    }

    pub async fn get(&self, id: &str) -> Result<api::Sandbox, Error> {
        self.json(self.call(Method::GET, &sandbox(id, ""))).await
    }

    /// Every sandbox that is not destroyed, newest first.
    pub async fn list(&self) -> Result<Vec<api::Sandbox>, Error> {
        self.json(self.call(Method::GET, "/sandboxes")).await
    }

    /// A page of the list that such a query means (`state`, `provider`, `metadata.KEY`, `limit`,
    /// `cursor`), and the cursor of the next one if there is one.
    pub async fn list_page(
        &self,
        query: &[(&str, &str)],
    ) -> Result<(Vec<api::Sandbox>, Option<String>), Error> {
        let call = self.call(Method::GET, "/sandboxes").query(query).timeout(self.timeout());
        let response = self.send(call).await?;
        let next = response.headers().get("x-next-cursor").and_then(|v| v.to_str().ok());
        let next = next.map(str::to_owned);
        Ok((self.read_json(response).await?, next))
    }

    /// Ends a sandbox; `grace`: asks it first. `destroying` when it needs longer than the server
    /// waits.
    pub async fn destroy(&self, id: &str, grace: Option<Duration>) -> Result<api::Status, Error> {
        let mut call = self.call(Method::DELETE, &sandbox(id, ""));
        if let Some(grace) = grace {
            call = call.query(&[("grace", types::duration::format(grace))]);
        }
        self.json(call).await
    }

    /// Destroys those whose time is up, and says how many.
    pub async fn prune(&self) -> Result<u64, Error> {
        let pruned: api::Pruned = self.json(self.call(Method::DELETE, "/sandboxes")).await?;
        Ok(pruned.pruned)
    }

    /// A new end of life: now and `ttl`.
    pub async fn extend(&self, id: &str, ttl: Duration) -> Result<api::Sandbox, Error> {
        let body = api::ExtendRequest { ttl: Some(types::duration::format(ttl)) };
        self.json(self.call(Method::POST, &sandbox(id, "/extend")).json(&body)).await
    }

    /// The last lines of the console.
    pub async fn logs(&self, id: &str, lines: u32) -> Result<Vec<String>, Error> {
        self.json(self.call(Method::GET, &sandbox(id, "/logs")).query(&[("lines", lines)])).await
    }

    pub async fn stats(&self, id: &str) -> Result<api::Stats, Error> {
        self.json(self.call(Method::GET, &sandbox(id, "/stats"))).await
    }
}

/// The path of something of one sandbox.
pub(crate) fn sandbox(id: &str, rest: &str) -> String {
    format!("/sandboxes/{}{rest}", segment(id))
}
