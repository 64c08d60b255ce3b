//! Names of answers' headers in the spelling that old clients need.
//!
//! Header names have no case (RFC 9110 §5.1), and the HTTP library writes them small. The C SDK
//! compares them byte by byte and finds a command's lock only in `ETag`, its content type in
//! `ContentType`. So the head of an answer that has one of these is corrected on its way to the socket:
//! same length, other case.
//!
//! Only an announced head is touched: what begins like an answer in a body passes as it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As the library writes them, and as they shall be.
const NAMES: [(&str, &str); 3] =
    [("etag", "ETag"), ("contenttype", "ContentType"), ("contentencoding", "ContentEncoding")];

/// Tells the stream that the next head has such a name.
#[derive(Clone, Debug)]
pub(super) struct Cased(Arc<AtomicBool>);

impl Cased {
    /// To be called before an answer is written.
    pub(super) fn expect_head<B>(&self, response: &Response<B>) {
        let expected = NAMES.iter().any(|(name, _)| response.headers().contains_key(*name));
        self.0.store(expected, Ordering::Release);
    }
}

/// A stream whose announced heads are corrected.
pub(super) struct CasedIo<I> {
    io: I,
    announced: Arc<AtomicBool>,
    /// A corrected head, and how much of it is written.
    head: Option<(Vec<u8>, usize)>,
}

pub(super) fn wrap<I>(io: I) -> (CasedIo<I>, Cased) {
    let announced = Arc::new(AtomicBool::new(false));
    (CasedIo { io, announced: announced.clone(), head: None }, Cased(announced))
}

/// The head at the beginning of `bytes` with its names corrected; `None` when none begins there.
fn corrected(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut head = bytes[..end + 4].to_vec();
    for (name, spelling) in NAMES {
        let wanted = [b"\r\n", name.as_bytes(), b":"].concat();
        if let Some(at) = head.windows(wanted.len()).position(|window| window == wanted) {
            head[at + 2..at + 2 + name.len()].copy_from_slice(spelling.as_bytes());
        }
    }
    Some(head)
}

impl<I: AsyncRead + Unpin> AsyncRead for CasedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for CasedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.head.is_none()
            && this.announced.load(Ordering::Acquire)
            && let Some(head) = corrected(bytes)
        {
            this.announced.store(false, Ordering::Release);
            this.head = Some((head, 0));
        }
        let Some((head, done)) = &mut this.head else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        // The caller offers the same bytes again until they are taken.
        let written = std::task::ready!(Pin::new(&mut this.io).poll_write(cx, &head[*done..]))?;
        *done += written;
        if *done == head.len() {
            this.head = None;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.head.is_some() || self.announced.load(Ordering::Acquire) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn announced_heads_are_corrected_and_bodies_are_not() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: x\r\netag: \"etag: 1\"\r\ncontenttype: y\r\n\r\n";
        let body = "HTTP/1.1 200 OK\r\netag: no\r\n\r\n";
        let (near, mut far) = tokio::io::duplex(16);
        let (mut io, cased) = wrap(near);
        let response = Response::builder().header("ETag", "x").body(()).unwrap();
        cased.expect_head(&response);
        let writing = tokio::spawn(async move {
            io.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            // One that isn't announced.
            io.write_all(head.as_bytes()).await.unwrap();
        });
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        writing.await.unwrap();
        let expected = head.replace("\r\netag:", "\r\nETag:").replace("contenttype", "ContentType");
        assert_eq!(text, format!("{expected}{body}{head}"));
    }
}
