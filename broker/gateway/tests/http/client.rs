//! A client that writes HTTP as text and keeps answers as they came.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The head as it came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value, found in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let pairs = lines.filter_map(|line| line.split_once(": "));
        pairs.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no json: {self:?}"))
    }

    /// The name of the error, which header and body must agree on.
    pub fn error(&self) -> String {
        let name = self.header("iothub-errorcode").unwrap_or_else(|| panic!("no error: {self:?}"));
        let message = self.json()["Message"].as_str().unwrap().to_owned();
        let (first, text) = message.split_once(';').unwrap();
        assert_eq!(first, format!("ErrorCode:{name}"));
        assert!(!text.contains(';') && !text.is_empty());
        name.to_owned()
    }
}

/// Reads one answer.
pub async fn read_reply(io: &mut (impl AsyncRead + Unpin), is_head: bool) -> Reply {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = io.read(&mut byte).await.unwrap();
        assert!(read > 0, "closed within a head: {}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut reply = Reply { status, head, body: Vec::new() };
    if status == 100 {
        return Box::pin(read_reply(io, is_head)).await;
    }
    assert_eq!(reply.header("transfer-encoding"), None);
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    if !is_head {
        reply.body = vec![0; length];
        io.read_exact(&mut reply.body).await.unwrap();
    }
    reply
}

/// A connection.
pub struct Client {
    pub io: DuplexStream,
}

impl Client {
    /// Sends a request whose headers are lines, and reads the answer.
    pub async fn call(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: hub.example:8443\r\n");
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let (mut reading, mut writing) = tokio::io::split(&mut self.io);
        let sending = async {
            // The server may answer, and close, before it has all of a body.
            let _ = writing.write_all(text.as_bytes()).await;
            let _ = writing.write_all(body).await;
        };
        let (reply, ()) = tokio::join!(read_reply(&mut reading, method == "HEAD"), sending);
        reply
    }

    /// Sends text as it is, and gives all that comes until the connection ends.
    pub async fn raw(mut self, text: &[u8]) -> String {
        let (mut reading, mut writing) = tokio::io::split(&mut self.io);
        let mut all = Vec::new();
        let sending = async { writing.write_all(text).await };
        let (read, _) = tokio::join!(reading.read_to_end(&mut all), sending);
        read.unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }
}
