//! A keep-alive HTTP client that costs as little as one can: it shares the machine with what it
//! measures.

use std::io::Read;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Of a file that is sent.
const PIECE: usize = 256 << 10;

/// One connection.
pub struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    /// What has been read and not yet used.
    buf: Vec<u8>,
    at: usize,
}

/// How the body of an answer is framed.
enum Framing {
    Length(usize),
    Chunked,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|e| format!("connecting: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self { stream, out: Vec::new(), buf: Vec::with_capacity(256 << 10), at: 0 })
    }

    /// The body of a good answer.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        self.read_through(method, path, body, |piece| all.extend_from_slice(piece)).await?;
        Ok(all)
    }

    pub async fn json(&mut self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let text = self.ask(method, path, body).await?;
        serde_json::from_slice(&text).map_err(|e| format!("{method} {path}: {e}"))
    }

    /// Gives each piece of the body away as it comes.
    pub async fn read_through(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        mut piece: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        let failed = |e: String| format!("{method} {path}: {e}");
        self.send(method, path, body).await.map_err(failed)?;
        self.answer(&mut piece).await.map_err(failed)
    }

    /// Reads an answer; the body of a good one goes to `piece`.
    async fn answer(&mut self, mut piece: impl FnMut(&[u8])) -> Result<(), String> {
        let (status, framing) = self.head().await?;
        let mut wrong = Vec::new();
        let mut take = |data: &[u8]| match status {
            200..300 => piece(data),
            _ => wrong.extend_from_slice(data),
        };
        match framing {
            Framing::Length(n) => self.exactly(n, &mut take).await,
            Framing::Chunked => self.chunks(&mut take).await,
        }?;
        match status {
            200..300 => Ok(()),
            _ => Err(format!("{status} {}", String::from_utf8_lossy(&wrong))),
        }
    }

    /// Sends a file as a body.
    pub async fn put(&mut self, path: &str, file: &mut std::fs::File) -> Result<(), String> {
        let failed = |e: String| format!("PUT {path}: {e}");
        let length = file.metadata().map_err(|e| failed(e.to_string()))?.len();
        let head = format!(
            "PUT /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
        );
        let sent = async {
            self.stream.write_all(head.as_bytes()).await?;
            let mut piece = vec![0; PIECE];
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok::<_, std::io::Error>(()),
                    n => self.stream.write_all(&piece[..n]).await?,
                }
            }
        };
        sent.await.map_err(|e| failed(e.to_string()))?;
        self.answer(|_| {}).await.map_err(failed)
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<(), String> {
        self.out.clear();
        let head = format!("{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        self.out.extend_from_slice(head.as_bytes());
        if method == "POST" {
            let more =
                format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            self.out.extend_from_slice(more.as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.out).await.map_err(|e| e.to_string())
    }

    async fn head(&mut self) -> Result<(u16, Framing), String> {
        let end = loop {
            let unread = &self.buf[self.at..];
            if let Some(end) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            self.fill().await?;
        };
        let text = std::str::from_utf8(&self.buf[self.at..self.at + end])
            .map_err(|e| e.to_string())?
            .to_ascii_lowercase();
        self.at += end + 4;
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
        let header = |name: &str| {
            let mut lines = text.split("\r\n").filter_map(|l| l.split_once(':'));
            lines.find(|(n, _)| *n == name).map(|(_, value)| value.trim().to_owned())
        };
        let length = header("content-length").and_then(|n| n.parse().ok());
        let chunked = header("transfer-encoding").is_some_and(|t| t == "chunked");
        let framing = match (chunked, length) {
            (true, _) => Framing::Chunked,
            (false, Some(n)) => Framing::Length(n),
            (false, None) if status == 204 => Framing::Length(0),
            (false, None) => return Err("an answer without a length".to_owned()),
        };
        Ok((status, framing))
    }

    async fn chunks(&mut self, take: &mut impl FnMut(&[u8])) -> Result<(), String> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|e| format!("a chunk: {e}"))?;
            self.exactly(size, take).await?;
            self.line().await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        loop {
            let unread = &self.buf[self.at..];
            if let Some(end) = unread.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.at += end + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn exactly(
        &mut self,
        mut left: usize,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(), String> {
        while left > 0 {
            if self.at == self.buf.len() {
                self.fill().await?;
            }
            let n = left.min(self.buf.len() - self.at);
            take(&self.buf[self.at..self.at + n]);
            self.at += n;
            left -= n;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), String> {
        self.buf.drain(..self.at);
        self.at = 0;
        if self.buf.len() == self.buf.capacity() {
            self.buf.reserve(64 << 10);
        }
        match self.stream.read_buf(&mut self.buf).await {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }
}
