//! Commands that outlive their requests.

use std::time::Duration;

use reqwest::Method;
use types::api;

use crate::client::segment;
use crate::sandboxes::sandbox;
use crate::{Client, Error};

impl Client {
    /// Starts a command that belongs to nobody.
    pub async fn exec_detached(
        &self,
        id: &str,
        request: &api::ExecRequest,
    ) -> Result<api::Started, Error> {
        let request = api::ExecRequest { detach: Some(true), stream: None, ..request.clone() };
        self.json_unhurried(self.call(Method::POST, &sandbox(id, "/exec")), &request).await
    }

    /// The newest commands of a sandbox, newest first: 1,000 of them.
    pub async fn execs(&self, id: &str) -> Result<Vec<api::Exec>, Error> {
        self.json(self.call(Method::GET, &sandbox(id, "/execs"))).await
    }

    /// A page of its commands, as `query` asks (`state`, `limit`, `cursor`), and the cursor of the
    /// next one if there is one.
    pub async fn execs_page(
        &self,
        id: &str,
        query: &[(&str, &str)],
    ) -> Result<(Vec<api::Exec>, Option<String>), Error> {
        let call = self.call(Method::GET, &sandbox(id, "/execs")).query(query);
        let response = self.send(call.timeout(self.timeout())).await?;
        let next = response.headers().get("x-next-cursor").and_then(|v| v.to_str().ok());
        let next = next.map(str::to_owned);
        Ok((self.read_json(response).await?, next))
    }

    pub async fn exec_record(&self, id: &str, exec_id: &str) -> Result<api::Exec, Error> {
        self.json(self.call(Method::GET, &command(id, exec_id, ""))).await
    }

    /// Waits until a command has ended, at most so long; the record as it then is.
    pub async fn exec_wait(
        &self,
        id: &str,
        exec_id: &str,
        timeout: Duration,
    ) -> Result<api::Exec, Error> {
        let call = self.call(Method::GET, &command(id, exec_id, "/wait"));
        let call = call.query(&[("timeout", types::duration::format(timeout))]);
        let response = self.send(call.timeout(timeout + self.timeout())).await?;
        self.read_json(response).await
    }

    pub async fn exec_signal(
        &self,
        id: &str,
        exec_id: &str,
        signal: &str,
    ) -> Result<api::Status, Error> {
        let request = api::SignalRequest { signal: Some(signal.to_owned()) };
        let call = self.call(Method::POST, &command(id, exec_id, "/signal"));
        self.json(call.json(&request)).await
    }
}

fn command(id: &str, exec_id: &str, action: &str) -> String {
    sandbox(id, &format!("/execs/{}{action}", segment(exec_id)))
}
