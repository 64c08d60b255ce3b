//! The operations port: metrics, health and status over plain HTTP, on loopback by default.
//!
//! | Path | Answer |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/healthz` | 200 while the process answers at all |
//! | `/readyz` | 200, or 503 with the reason why this node should get no traffic |
//! | `/status` | JSON, as the node describes itself |
//!
//! What they say comes from closures that `broker/node` gives. There is no authentication: the
//! port is for the machine's own agents, and a warning is logged when it listens elsewhere.
//! Connections are bounded, and idle ones are closed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// A connection that sends nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Renders the metrics as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Tells whether the node should get traffic, or why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Describes the node.
pub type Status = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = serde_json::Value> + Send>> + Send + Sync>;

/// What the port needs.
#[derive(Clone)]
pub struct OpsOptions {
    /// Where to listen; keep it on loopback.
    pub listen: SocketAddr,
    /// Answers `/metrics`.
    pub metrics: RenderMetrics,
    /// Answers `/readyz`.
    pub ready: Ready,
    /// Answers `/status`.
    pub status: Status,
}

/// The running port.
pub struct OpsServer {
    local: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
}

impl OpsServer {
    /// Opens the port and begins to answer.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn start(options: OpsOptions) -> io::Result<OpsServer> {
        let listener = TcpListener::bind(options.listen).await?;
        let local = listener.local_addr()?;
        if !local.ip().is_loopback() {
            tracing::warn!(%local, "the operations port has no authentication and is not on loopback");
        }
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/status", get(status))
            .with_state(options);
        let (stop, mut stopped) = watch::channel(false);
        let bounded = Bounded { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let serving = tokio::spawn(async move {
            let until = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            axum::serve(bounded, router).with_graceful_shutdown(until).await
        });
        Ok(OpsServer { local, stop, serving })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops accepting and waits up to `grace` for open requests.
    pub async fn shutdown(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(grace, &mut self.serving).await;
    }
}

impl Drop for OpsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn metrics(State(options): State<OpsOptions>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], (options.metrics)())
}

async fn readyz(State(options): State<OpsOptions>) -> (StatusCode, String) {
    match (options.ready)() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn status(State(options): State<OpsOptions>) -> Json<serde_json::Value> {
    Json((options.status)().await)
}

/// A listener with a bound on its connections.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permit = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, remote) = Listener::accept(&mut self.listener).await;
        let idle = Box::pin(tokio::time::sleep(IDLE));
        (BoundedStream { stream, idle, _permit: permit }, remote)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that holds a place, and gives it back when nothing comes for [`IDLE`].
struct BoundedStream {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.idle.as_mut().reset(Instant::now() + IDLE);
                Poll::Ready(result)
            }
            Poll::Pending if self.idle.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Each path answers with what its closure says; readiness turns into a status code.
    #[tokio::test]
    async fn paths_answer() {
        let (ready, is_ready) = watch::channel(Err("no quorum of p3".to_owned()));
        let server = OpsServer::start(OpsOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: Arc::new(|| "fleetline_up 1\n".into()),
            ready: Arc::new(move || is_ready.borrow().clone()),
            status: Arc::new(|| Box::pin(async { serde_json::json!({ "node": 7 }) })),
        })
        .await
        .unwrap();
        let address = server.local_addr();
        assert!(fetch(address, "/metrics").await.ends_with("fleetline_up 1\n"));
        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/status").await.ends_with("{\"node\":7}"));
        let refused = fetch(address, "/readyz").await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.ends_with("no quorum of p3\n"), "{refused}");
        ready.send(Ok(())).unwrap();
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));
        server.shutdown(Duration::from_secs(5)).await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
