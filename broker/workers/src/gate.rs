//! The gRPC server that workers connect to: one on each node, on loopback only.
//!
//! A process is expected before it is started: [`Gate::expect`] gives it an id and a secret, and waits
//! for the stream that brings both. Ids are visible to every user of the machine (arguments), secrets
//! reach a process through a pipe; each lets one stream in, once. Everything else is refused without a
//! reason.
//!
//! The service is written out by hand: it is one method, and the stream's two halves are handed over
//! instead of being handled here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fleetline_worker::rpc::{EVENT_STREAM, StreamingMessage};
use futures::{FutureExt, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, StreamingService};
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::options::MOST_CONNECTIONS;

/// Bytes that a worker may have on their way before the node has read them, a stream and a connection.
const WINDOW_BYTES: u32 = 4 << 20;
/// Messages to a worker that wait for the stream beyond its invocations.
const SPARE_MESSAGES: usize = 16;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
const ID_HEADER: &str = "fleetline-worker";
const SECRET_HEADER: &str = "fleetline-secret";

/// Both halves of a worker's stream.
pub(crate) struct Link {
    pub(crate) inbound: Streaming<StreamingMessage>,
    /// Closes the stream when it is dropped.
    pub(crate) outbound: mpsc::Sender<StreamingMessage>,
}

/// Where workers connect.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    expected: Mutex<HashMap<String, Expected>>,
    message_bytes: usize,
    in_flight: usize,
}

struct Expected {
    secret: String,
    link: oneshot::Sender<Link>,
}

/// A process that is expected. Dropping it closes the gate for the process again.
pub(crate) struct Ticket {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) link: oneshot::Receiver<Link>,
    shared: Arc<Shared>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.expected.lock().remove(&self.id);
    }
}

impl Gate {
    pub(crate) async fn open(message_bytes: usize, in_flight: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { expected: Mutex::default(), message_bytes, in_flight });
        let front = Front { shared: Arc::clone(&shared) };
        let server = tokio::spawn(async move {
            let server = Server::builder()
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .tcp_nodelay(true);
            // It ends only with this task: the listener's errors are passed over in `incoming`.
            let _ = { server }.serve_with_incoming(front, incoming(listener)).await;
        });
        Ok(Self { address, shared, server })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets one process in, under the id and the secret of the ticket.
    pub(crate) fn expect(&self) -> io::Result<Ticket> {
        let id = random_hex(16)?;
        let secret = random_hex(SECRET_BYTES)?;
        let (sender, link) = oneshot::channel();
        let expected = Expected { secret: secret.clone(), link: sender };
        self.shared.expected.lock().insert(id.clone(), expected);
        Ok(Ticket { id, secret, link, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Connections, never more than the limit at a time: the next is accepted when one has ended.
fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    futures::stream::unfold((listener, permits), |(listener, permits)| async move {
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        let accepted = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // No descriptors, or the peer went away meanwhile: neither ends the gate.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        };
        // Small messages are not held back; without the option they only are slower.
        let _ = accepted.set_nodelay(true);
        Some((Ok(Connection { stream: accepted, _permit: permit }), (listener, permits)))
    })
}

/// A connection that counts while it is open.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Requests by their path; there is one.
#[derive(Clone)]
struct Front {
    shared: Arc<Shared>,
}

impl Service<http::Request<tonic::body::Body>> for Front {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        async move {
            if request.uri().path() != EVENT_STREAM {
                return Ok(Status::unimplemented("").into_http());
            }
            let codec = ProstCodec::<StreamingMessage, StreamingMessage>::default();
            let mut grpc = Grpc::new(codec)
                .max_decoding_message_size(shared.message_bytes)
                .max_encoding_message_size(shared.message_bytes);
            Ok(grpc.streaming(EventStream { shared }, request).await)
        }
        .boxed()
    }
}

type Outbound = Pin<Box<dyn Stream<Item = Result<StreamingMessage, Status>> + Send>>;

struct EventStream {
    shared: Arc<Shared>,
}

impl StreamingService<StreamingMessage> for EventStream {
    type Response = StreamingMessage;
    type ResponseStream = Outbound;
    type Future = std::future::Ready<Result<Response<Outbound>, Status>>;

    fn call(&mut self, request: Request<Streaming<StreamingMessage>>) -> Self::Future {
        std::future::ready(self.shared.admit(request))
    }
}

impl Shared {
    fn admit(&self, request: Request<Streaming<StreamingMessage>>) -> Result<Response<Outbound>, Status> {
        let refused = || Status::unauthenticated("");
        let header = |name| request.metadata().get(name).map(tonic::metadata::MetadataValue::as_bytes);
        let (Some(id), Some(secret)) = (header(ID_HEADER), header(SECRET_HEADER)) else {
            return Err(refused());
        };
        let id = std::str::from_utf8(id).map_err(|_| refused())?;
        let expected = {
            let mut all = self.expected.lock();
            // A wrong secret doesn't use the place up: it may be anyone's.
            if !all.get(id).is_some_and(|expected| is_equal(expected.secret.as_bytes(), secret)) {
                return Err(refused());
            }
            all.remove(id).ok_or_else(refused)?
        };
        let (outbound, queue) = mpsc::channel(self.in_flight + SPARE_MESSAGES);
        let link = Link { inbound: request.into_inner(), outbound };
        expected.link.send(link).map_err(|_| refused())?;
        let stream =
            futures::stream::unfold(queue, |mut queue| async { queue.recv().await.map(|m| (Ok(m), queue)) });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Compares in a time that doesn't tell how much is equal.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
