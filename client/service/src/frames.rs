//! Frames out of a QUIC stream, and why a stream ended.

use bytes::Bytes;
use fleetline_native::limits::FRAME_BYTES_MAX;
use fleetline_native::{Frame, FrameDecoder, FrameError, ProtocolError};
use quinn::{ReadError, RecvStream, WriteError};
use thiserror::Error;

/// Bytes taken from QUIC in one piece.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a stream, or the connection below it, ended.
#[derive(Debug, Error)]
pub(crate) enum StreamEnd {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("{0}")]
    Lost(String),
}

impl From<FrameError> for StreamEnd {
    fn from(error: FrameError) -> StreamEnd {
        StreamEnd::Protocol(error.into())
    }
}

impl From<ReadError> for StreamEnd {
    fn from(error: ReadError) -> StreamEnd {
        match error {
            ReadError::ConnectionLost(error) => StreamEnd::Lost(format!("connection lost: {error}")),
            error => StreamEnd::Lost(error.to_string()),
        }
    }
}

impl From<WriteError> for StreamEnd {
    fn from(error: WriteError) -> StreamEnd {
        match error {
            WriteError::ConnectionLost(error) => StreamEnd::Lost(format!("connection lost: {error}")),
            error => StreamEnd::Lost(error.to_string()),
        }
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
    pub(crate) fn new(recv: RecvStream) -> FrameReader {
        FrameReader { recv, decoder: FrameDecoder::new(FRAME_BYTES_MAX), pending: Bytes::new() }
    }

    /// The next frame. A node ends a stream only after an error frame or when it shuts down, so the
    /// end is an error here.
    ///
    /// Cancel-safe: bytes taken from QUIC are kept here.
    pub(crate) async fn next(&mut self) -> Result<Frame, StreamEnd> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.pending)? {
                return Ok(frame);
            }
            match self.recv.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.pending = chunk.bytes,
                None => return Err(StreamEnd::Lost("the node ended the stream".into())),
            }
        }
    }
}
