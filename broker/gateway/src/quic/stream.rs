//! What the stream loops share: frames out of a QUIC stream, and the ends of a stream.

use bytes::Bytes;
use fleetline_native::connection::ResetCode;
use fleetline_native::frame::{FrameKind, frame_bytes};
use fleetline_native::{Frame, FrameDecoder, FrameError, HubError, ProtocolError, error_map};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use thiserror::Error;

/// Bytes taken from QUIC in one piece.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a stream ended before its work was done.
#[derive(Debug, Error)]
pub(crate) enum StreamEnd {
    /// The peer broke the protocol; its connection is closed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer gave up the stream, or the connection is gone.
    #[error("reading: {0}")]
    Read(#[from] ReadError),
    /// The peer stopped reading, or the connection is gone.
    #[error("writing: {0}")]
    Write(#[from] WriteError),
}

impl From<FrameError> for StreamEnd {
    fn from(error: FrameError) -> StreamEnd {
        StreamEnd::Protocol(error.into())
    }
}

/// Frames of the receiving half of a stream.
pub(crate) struct FrameReader {
    recv: RecvStream,
    decoder: FrameDecoder,
    /// Bytes read and not yet decoded.
    pending: Bytes,
}

impl FrameReader {
    pub(crate) fn new(recv: RecvStream, frame_bytes_max: usize) -> FrameReader {
        FrameReader { recv, decoder: FrameDecoder::new(frame_bytes_max), pending: Bytes::new() }
    }

    /// The next frame; `None` when the peer finished the stream between two frames.
    ///
    /// Cancel-safe: bytes taken from QUIC are kept here.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, StreamEnd> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.pending)? {
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.pending = chunk.bytes,
                None if self.decoder.is_at_boundary() => return Ok(None),
                None => return Err(ProtocolError::UnexpectedEnd { expected: "the rest of a frame" }.into()),
            }
        }
    }

    /// Like [`FrameReader::next`], where the peer may not end.
    pub(crate) async fn expect(&mut self, expected: &'static str) -> Result<Frame, StreamEnd> {
        self.next().await?.ok_or(StreamEnd::Protocol(ProtocolError::UnexpectedEnd { expected }))
    }

    /// Tells the peer to send no more.
    pub(crate) fn stop(&mut self, code: ResetCode) {
        let _ = self.recv.stop(VarInt::from_u32(code.code()));
    }
}

/// The frame of an error that answers a call or ends a stream.
pub(crate) fn error_frame(error: &HubError) -> Bytes {
    frame_bytes(FrameKind::Error, &error_map::to_wire(error), 0)
}

/// Writes the last frames of a stream and ends it.
pub(crate) async fn finish_with(send: &mut SendStream, mut last: Bytes) -> Result<(), StreamEnd> {
    send.write_all_chunks(std::slice::from_mut(&mut last)).await?;
    finish(send).await;
    Ok(())
}

/// Ends the sending half and waits until the peer has everything, so that a connection closed
/// right after takes nothing with it. Ends early with the connection.
pub(crate) async fn finish(send: &mut SendStream) {
    if send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}
