//! Commands in a sandbox: captured, or streamed as they write.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use reqwest::{Method, Response};
use types::api;

use crate::sandboxes::sandbox;
use crate::{Client, Error};

/// The longest line of a stream that is accepted; the server cuts far earlier.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// The longest silence of a stream. The server sends a blank line far more often.
const MAX_SILENCE: Duration = Duration::from_secs(120);

impl Client {
    /// Runs a command to its end.
    pub async fn exec(
        &self,
        id: &str,
        request: &api::ExecRequest,
    ) -> Result<api::ExecResult, Error> {
        let request = api::ExecRequest { stream: None, ..request.clone() };
        self.json_unhurried(self.call(Method::POST, &sandbox(id, "/exec")), &request).await
    }

    /// Starts a command; its output comes line by line. Dropping the lines ends the command.
    pub async fn exec_stream(
        &self,
        id: &str,
        request: &api::ExecRequest,
    ) -> Result<ExecLines, Error> {
        let request = api::ExecRequest { stream: Some(true), ..request.clone() };
        let call = self.call(Method::POST, &sandbox(id, "/exec")).json(&request);
        let response = self.send(call).await?;
        Ok(ExecLines { client: self.clone(), response, buffer: LineBuffer::default() })
    }
}

/// The lines of a running command. The last has `stream: "exit"`; without it the stream broke.
pub struct ExecLines {
    client: Client,
    response: Response,
    buffer: LineBuffer,
}

impl ExecLines {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<api::StreamLine>, Error> {
        let line = self.buffer.next_line(&self.client, &mut self.response).await?;
        let line = line.map(|line| serde_json::from_slice(&line)).transpose();
        line.map_err(|e| self.client.protocol(&e.to_string()))
    }
}

/// Bytes as they arrive, lines as they are complete.
#[derive(Default)]
pub(crate) struct LineBuffer {
    bytes: BytesMut,
    /// How far the bytes are known to hold no line break.
    searched: usize,
}

impl LineBuffer {
    /// The next line that is not blank; `None` at the end of the answer.
    pub(crate) async fn next_line(
        &mut self,
        client: &Client,
        response: &mut Response,
    ) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.len() > MAX_LINE {
                return Err(client.protocol("a line without end"));
            }
            let chunk = tokio::time::timeout(MAX_SILENCE, response.chunk())
                .await
                .map_err(|_| client.protocol("nothing, for too long, in a stream"))?;
            match chunk.map_err(|e| client.failed(e))? {
                Some(chunk) => self.push(&chunk),
                None if self.len() == 0 => return Ok(None),
                None => self.push(b"\n"),
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn take_line(&mut self) -> Option<Bytes> {
        match self.bytes[self.searched..].iter().position(|b| *b == b'\n') {
            Some(at) => {
                let line = self.bytes.split_to(self.searched + at).freeze();
                self.bytes.advance(1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n";
        for cut in 1..text.len() {
            let mut buffer = LineBuffer::default();
            let mut lines = Vec::new();
            for piece in text.chunks(cut) {
                buffer.push(piece);
                while let Some(line) = buffer.take_line() {
                    lines.push(line);
                }
            }
            assert_eq!(lines, ["{\"a\":1}", "", "{\"b\":2}"], "cut at {cut}");
            assert_eq!(buffer.len(), 0);
        }
    }
}
