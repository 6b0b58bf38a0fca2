//! Providers, workers and the health family.

use reqwest::Method;
use types::api;

use crate::client::segment;
use crate::{Client, Error};

impl Client {
    pub async fn providers(&self) -> Result<Vec<api::ProviderHealth>, Error> {
        self.json(self.call(Method::GET, "/providers")).await
    }

    pub async fn provider(&self, name: &str) -> Result<api::ProviderDetail, Error> {
        self.json(self.call(Method::GET, &format!("/providers/{}", segment(name)))).await
    }

    pub async fn workers(&self) -> Result<Vec<api::Worker>, Error> {
        self.json(self.call(Method::GET, "/workers")).await
    }

    pub async fn worker(&self, id: &str) -> Result<api::Worker, Error> {
        self.json(self.call(Method::GET, &format!("/workers/{}", segment(id)))).await
    }

    /// The warm pools, if there are any.
    pub async fn pool_status(&self) -> Result<api::PoolStatus, Error> {
        self.json(self.call(Method::GET, "/pool/status")).await
    }

    pub async fn health(&self) -> Result<api::Health, Error> {
        self.json(self.call(Method::GET, "/health")).await
    }

    /// Whether the server can take work, and what it says of its providers: also when it can't.
    pub async fn ready(&self) -> Result<api::Ready, Error> {
        let call = self.call(Method::GET, "/ready").timeout(self.timeout());
        let response = call.send().await.map_err(|e| self.failed(e))?;
        let status = response.status().as_u16();
        if matches!(status, 200 | 503) {
            return self.read_json(response).await;
        }
        Err(Error::Api {
            status,
            code: String::new(),
            message: format!("{} answered {status}", self.server()),
        })
    }
}
