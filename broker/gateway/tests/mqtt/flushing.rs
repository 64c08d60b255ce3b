//! A stream that keeps what is written until it is flushed, and takes its time for that, as TLS may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fleetline_mqtt::Version;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::world::World;

/// Passes on what was written only when it is flushed twice.
struct Held {
    io: DuplexStream,
    held: Vec<u8>,
    asked: bool,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.held.is_empty() && !std::mem::replace(&mut this.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while !this.held.is_empty() {
            match Pin::new(&mut this.io).poll_write(cx, &this.held) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(written) => drop(this.held.drain(..written?)),
            }
        }
        this.asked = false;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.as_mut().poll_flush(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.io).poll_shutdown(cx),
            other => other,
        }
    }
}

/// The last answer arrives although nothing is written behind it.
#[tokio::test(start_paused = true)]
async fn flushes_that_take_their_time() {
    let world = World::new().await;
    let client = world.open_through(256 << 10, |io| Held { io, held: Vec::new(), asked: false });
    let (mut client, answer) = world.login_on(client, "a", Version::V311, |_| {}).await;
    assert!(answer.starts_with("connack 0x00"), "{answer}");
    assert_eq!(client.ping().await, "pingresp");
    client.telemetry("a", "x", 7).await;
    assert_eq!(client.next().await, "puback 7");
}
