//! One connection: handshake, hello, then its streams.

use std::sync::Arc;

use fleetline_native::connection::{CloseCode, VERSION_MAX, VERSION_MIN, negotiate};
use fleetline_native::frame::{FrameKind, frame_bytes};
use fleetline_native::limits::ANONYMOUS_FRAME_BYTES_MAX;
use fleetline_native::{HubError, ProtocolError, proto};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use super::stream::{FrameReader, StreamEnd, error_frame, finish_with};
use super::{FEATURES, Handshaking, Shared, append, call, read};
use crate::access::Access;
use crate::meters::Held;

/// What a stream loop needs.
pub(super) struct StreamContext {
    pub shared: Arc<Shared>,
    pub access: Access,
}

/// Serves one connection until it ends or the node shuts down.
pub(super) async fn serve(incoming: Incoming, shared: Arc<Shared>, handshaking: Handshaking) {
    let _open = Held::one(&shared.meters.connections);
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%error, "connection was not accepted");
            return;
        }
    };
    let deadline = tokio::time::Instant::now() + shared.limits.hello_timeout;
    let connection = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "handshake failed");
            return;
        }
        Err(_) => {
            shared.meters.hello_timeouts.increment(1);
            return;
        }
    };
    let access = identify(&connection, &shared);
    match tokio::time::timeout_at(deadline, hello(&connection, &shared)).await {
        Ok(Ok(())) => {}
        Ok(Err(refused)) => {
            refused.close(&connection, &shared);
            return;
        }
        Err(_) => {
            shared.meters.hello_timeouts.increment(1);
            close(&connection, CloseCode::HelloTimeout, "hello did not come in time");
            return;
        }
    }
    drop(handshaking);
    if access > Access::Anonymous {
        connection.set_receive_window(VarInt::from_u32(shared.limits.connection_window));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(shared.limits.streams_per_connection));
    }
    serve_streams(&connection, Arc::new(StreamContext { shared, access })).await;
}

fn identify(connection: &Connection, shared: &Shared) -> Access {
    let identity = connection.peer_identity();
    let certs = identity.as_ref().and_then(|any| any.downcast_ref::<Vec<CertificateDer<'static>>>());
    shared.authorizer.identify(certs.map(Vec::as_slice))
}

/// Why a connection is closed at hello.
enum Refused {
    /// No common version, or another cluster.
    Close(CloseCode, String),
    /// The stream ended or broke the protocol.
    Stream(StreamEnd),
}

impl Refused {
    fn close(self, connection: &Connection, shared: &Shared) {
        match self {
            Refused::Close(code, reason) => close(connection, code, &reason),
            Refused::Stream(end) => close_if_broken(connection, shared, &end),
        }
    }
}

impl<E: Into<StreamEnd>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Stream(error.into())
    }
}

/// Takes and answers hello on the connection's first stream.
async fn hello(connection: &Connection, shared: &Shared) -> Result<(), Refused> {
    let lost = |error| StreamEnd::Read(quinn::ReadError::ConnectionLost(error));
    let (mut send, recv) = connection.accept_bi().await.map_err(lost)?;
    let mut reader = FrameReader::new(recv, ANONYMOUS_FRAME_BYTES_MAX);
    let frame = reader.expect("hello").await?;
    if frame.kind != FrameKind::Hello {
        let (expected, found) = ("hello", frame.kind);
        return Err(StreamEnd::from(ProtocolError::UnexpectedFrame { expected, found }).into());
    }
    let hello: proto::Hello = frame.decode_head()?;
    let metadata = shared.hub.metadata();
    if !hello.cluster.is_empty() && hello.cluster != metadata.cluster {
        let reason = format!("this is cluster {}, not {}", metadata.cluster, hello.cluster);
        return Err(Refused::Close(CloseCode::WrongCluster, reason));
    }
    let client = (hello.min_version, hello.max_version);
    let Some(version) = negotiate(client, (VERSION_MIN, VERSION_MAX)) else {
        let reason = format!("this node speaks versions {VERSION_MIN} to {VERSION_MAX}");
        return Err(Refused::Close(CloseCode::Version, reason));
    };
    tracing::debug!(client = %hello.client_name, version, remote = %connection.remote_address(), "hello");
    let limits = &shared.limits;
    let answer = proto::HelloAnswer {
        version,
        cluster: metadata.cluster,
        node: metadata.node.0,
        features: FEATURES.iter().map(|f| (*f).to_owned()).collect(),
        limits: Some(proto::Limits {
            batch_bytes_max: limits.batch_bytes_max as u64,
            append_window_batches: limits.append_window_batches as u32,
            append_window_bytes: limits.append_window_bytes as u64,
            read_credit_bytes_max: limits.read_credit_bytes_max,
            streams_max: limits.streams_per_connection,
        }),
    };
    let mut bytes = frame_bytes(FrameKind::HelloAnswer, &answer, 0);
    send.write_all_chunks(std::slice::from_mut(&mut bytes)).await?;
    let _ = send.finish();
    Ok(())
}

/// Accepts streams until the connection ends; at shutdown, waits for those that are open.
async fn serve_streams(connection: &Connection, context: Arc<StreamContext>) {
    let mut streams: JoinSet<Result<(), StreamEnd>> = JoinSet::new();
    let mut draining = context.shared.draining.clone();
    let drained = loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    streams.spawn(serve_stream(send, recv, context.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, remote = %connection.remote_address(), "connection ended");
                    break false;
                }
            },
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                stream_ended(connection, &context.shared, ended);
            }
            _ = draining.wait_for(|draining| *draining) => break true,
        }
    };
    if !drained {
        return;
    }
    while let Some(ended) = streams.join_next().await {
        stream_ended(connection, &context.shared, ended);
    }
    close(connection, CloseCode::ShuttingDown, "node is shutting down");
}

/// A stream that broke the protocol takes its connection with it; so does a bug of ours.
fn stream_ended(
    connection: &Connection,
    shared: &Shared,
    ended: Result<Result<(), StreamEnd>, tokio::task::JoinError>,
) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(end)) => close_if_broken(connection, shared, &end),
        Err(error) => {
            tracing::error!(%error, "a stream's task failed");
            close(connection, CloseCode::Internal, "internal error");
        }
    }
}

fn close_if_broken(connection: &Connection, shared: &Shared, end: &StreamEnd) {
    tracing::debug!(%end, remote = %connection.remote_address(), "stream ended");
    if let StreamEnd::Protocol(error) = end {
        shared.meters.protocol_errors.increment(1);
        close(connection, CloseCode::Protocol, &error.to_string());
    }
}

fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
}

/// Serves one stream by the kind of its first frame.
async fn serve_stream(
    mut send: SendStream,
    recv: RecvStream,
    context: Arc<StreamContext>,
) -> Result<(), StreamEnd> {
    let _open = Held::one(&context.shared.meters.streams);
    let frame_bytes_max = match context.access {
        Access::Anonymous => ANONYMOUS_FRAME_BYTES_MAX,
        _ => context.shared.limits.frame_bytes_max(),
    };
    let mut reader = FrameReader::new(recv, frame_bytes_max);
    let first = reader.expect("the first frame of a stream").await?;
    let kind = first.kind;
    if matches!(kind, FrameKind::AppendOpen | FrameKind::ReadOpen) && context.access < Access::Client {
        context.shared.meters.forbidden.increment(1);
        let error = HubError::Forbidden("streams need a client certificate".into());
        return finish_with(&mut send, error_frame(&error)).await;
    }
    match kind {
        FrameKind::Call => call::run(&context, first, send).await,
        FrameKind::AppendOpen => append::run(&context, first, reader, send).await,
        FrameKind::ReadOpen => read::run(&context, first, reader, send).await,
        found => {
            let expected = "a call, append open or read open";
            Err(ProtocolError::UnexpectedFrame { expected, found }.into())
        }
    }
}
