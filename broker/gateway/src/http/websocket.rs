//! MQTT and AMQP over WebSocket: the upgrade, and binary frames as a stream of bytes.
//!
//! Frames are no message boundaries: "Node splits one CONNECT over many frames of 1, 2 and 4 bytes;
//! paho sends one packet per frame". A read gathers whatever frames have come, so that small ones cost
//! no turn of the protocol above each.
//!
//! Extensions are declined. Text frames end the connection (MQTT 5.0 §6: "MQTT Control Packets MUST be
//! sent in WebSocket binary data frames").

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use fleetline_iothub::errors::ErrorCode;
use futures::{Sink, Stream};
use http::{Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as FrameError, Message};

use super::call::Call;
use super::errors::HttpError;
use super::reply::{self, Answer, Body};
use super::{PeerInfo, WebSocketHandler};

/// The subprotocol of MQTT.
const MQTT: &str = "mqtt";
/// The subprotocol of AMQP, as the public SDKs name it.
const AMQP: &str = "AMQPWSB10";

/// Bytes of a frame, and of a message in several frames: a whole MQTT packet of the hub, and then some.
const FRAME_BYTES_MAX: usize = 512 << 10;

/// Bytes that are allocated for reading. Small, as there is one a connection.
const READ_BUFFER: usize = 4 << 10;

/// Bytes that gather before they are written without being asked.
const WRITE_BUFFER: usize = 16 << 10;

/// Bytes of one frame that is sent.
const SEND_FRAME_MAX: usize = 64 << 10;

/// A WebSocket as a stream of bytes.
pub struct WebSocketStream {
    frames: tokio_tungstenite::WebSocketStream<TokioIo<Upgraded>>,
    /// What came and isn't read yet.
    unread: Bytes,
    peer: PeerInfo,
}

impl WebSocketStream {
    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl AsyncRead for WebSocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            let taken = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread[..taken]);
            this.unread.advance(taken);
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut this.frames).poll_next(cx) {
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => this.unread = bytes,
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
                Poll::Ready(Some(Ok(Message::Text(_)))) => return Poll::Ready(Err(not_binary())),
                Poll::Ready(Some(Ok(Message::Close(_))) | None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(end_of(error)),
                Poll::Pending if buffer.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn not_binary() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a text frame came, only binary ones are spoken")
}

/// A connection that breaks without a close frame has ended like any other.
fn end_of(error: FrameError) -> io::Result<()> {
    match error {
        FrameError::ConnectionClosed | FrameError::AlreadyClosed => Ok(()),
        FrameError::Io(error) => Err(error),
        error => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

fn broken(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(broken)?;
        let taken = bytes.len().min(SEND_FRAME_MAX);
        let frame = Message::Binary(Bytes::copy_from_slice(&bytes[..taken]));
        Pin::new(&mut self.frames).start_send(frame).map_err(broken)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.frames).poll_close(cx)) {
            Ok(()) | Err(FrameError::ConnectionClosed | FrameError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

/// Switches the connection over. Who is at the other end is checked by MQTT.
pub(super) fn upgrade(mut call: Call) -> Answer {
    let key = handshake_key(&call)?.to_owned();
    let (protocol, handler) = spoken(&call)?;
    let upgrade = call.upgrade.take();
    let upgrade = upgrade.ok_or_else(|| HttpError::invalid("the connection can't be switched over"))?;
    let peer = call.peer.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => handler(stream(upgraded, peer).await).await,
            Err(error) => tracing::debug!(%error, "websocket was not switched over"),
        }
    });
    let mut response: Response<Body> = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    reply::put(&mut response, header::CONNECTION.as_str(), "Upgrade");
    reply::put(&mut response, header::UPGRADE.as_str(), "websocket");
    reply::put(&mut response, header::SEC_WEBSOCKET_ACCEPT.as_str(), &derive_accept_key(key.as_bytes()));
    // "Always echo: an empty subprotocol in the reply breaks Node."
    reply::put(&mut response, header::SEC_WEBSOCKET_PROTOCOL.as_str(), protocol);
    Ok(response)
}

async fn stream(upgraded: Upgraded, peer: PeerInfo) -> WebSocketStream {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER;
    config.write_buffer_size = WRITE_BUFFER;
    config.max_message_size = Some(FRAME_BYTES_MAX);
    config.max_frame_size = Some(FRAME_BYTES_MAX);
    let io = TokioIo::new(upgraded);
    let frames = tokio_tungstenite::WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    WebSocketStream { frames, unread: Bytes::new(), peer }
}

/// The first of the offered subprotocols that is spoken here, and who speaks it.
fn spoken(call: &Call) -> Result<(&'static str, WebSocketHandler), HttpError> {
    let values = call.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let offered = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for protocol in offered.map(str::trim) {
        if protocol.eq_ignore_ascii_case(MQTT) {
            return Ok((MQTT, call.context.websocket.clone()));
        }
        if let Some(handler) = &call.context.amqp_websocket
            && protocol.eq_ignore_ascii_case(AMQP)
        {
            return Ok((AMQP, handler.clone()));
        }
    }
    let text = "one of the subprotocols mqtt and AMQPWSB10 must be offered, others are not spoken";
    Err(HttpError::new(ErrorCode::FeatureNotSupported, text))
}

/// Checks the client's side of the handshake (RFC 6455 §4.2.1) and gives its key.
fn handshake_key(call: &Call) -> Result<&str, HttpError> {
    let has_word = |name: http::HeaderName, word: &str| {
        let values = call.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    if !has_word(header::UPGRADE, "websocket") || !has_word(header::CONNECTION, "upgrade") {
        return Err(HttpError::invalid("this path is for websockets"));
    }
    if call.header(header::SEC_WEBSOCKET_VERSION.as_str()) != Some("13") {
        return Err(HttpError::invalid("version 13 of the websocket protocol is spoken"));
    }
    call.header(header::SEC_WEBSOCKET_KEY.as_str())
        .filter(|key| key.len() == 24)
        .ok_or_else(|| HttpError::invalid("sec-websocket-key is missing or malformed"))
}
