//! A client that says exactly what it is told, and reads answers without an HTTP library of its own to hide anything.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: String,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// An HTTP/1.1 connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
        }
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer; `None` when the connection closes before it has a head.
    pub async fn reply(&mut self) -> Option<Reply> {
        self.reply_to("GET").await
    }

    pub async fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let end = loop {
            match find(&self.buffer, b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if self.more().await => {}
                None => return None,
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.split("\r\n").map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}\n", name.to_lowercase()),
            None => format!("{line}\n"),
        });
        let mut reply = Reply {
            status,
            head: head.collect(),
            body: String::new(),
            whole: true,
        };
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Some(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.whole = self.chunks(&mut reply.body).await;
        } else if let Some(length) = reply
            .header("content-length")
            .map(|length| length.parse::<usize>().unwrap())
        {
            while self.buffer.len() < length && self.more().await {}
            reply.whole = self.buffer.len() >= length;
            let length = length.min(self.buffer.len());
            reply.body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        } else {
            while self.more().await {}
            reply.body = String::from_utf8(std::mem::take(&mut self.buffer)).unwrap();
        }
        Some(reply)
    }

    /// Chunks and trailers, trailers as text at the end of `body`.
    async fn chunks(&mut self, body: &mut String) -> bool {
        loop {
            let Some(line) = self.line().await else { return false };
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                loop {
                    let Some(line) = self.line().await else { return false };
                    if line == "\r\n" {
                        return true;
                    }
                    body.push_str(&line);
                }
            }
            while self.buffer.len() < size + 2 {
                if !self.more().await {
                    return false;
                }
            }
            body.push_str(std::str::from_utf8(&self.buffer[..size]).unwrap());
            self.buffer.drain(..size + 2);
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                return Some(String::from_utf8(self.buffer.drain(..end + 2).collect()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads until `text` has come.
    pub async fn until(&mut self, text: &str) {
        while find(&self.buffer, text.as_bytes()).is_none() {
            assert!(
                self.more().await,
                "closed before {text:?}: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
        let end = find(&self.buffer, text.as_bytes()).unwrap() + text.len();
        self.buffer.drain(..end);
    }

    /// Whether the other side closes (or resets) without saying anything more.
    pub async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}

/// One `GET` on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Reply {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, request: &str) -> Reply {
    let mut client = Client::connect(address).await;
    client.say(request).await;
    let method = request.split(' ').next().unwrap();
    client.reply_to(method).await.expect("an answer")
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
