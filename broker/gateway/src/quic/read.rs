//! Read streams: committed batches pushed to a client while its credit lasts.
//!
//! Credit is counted in bytes of batches. A batch is sent while credit is left, even if it is
//! larger than what is left (otherwise a large batch would never come); the client's bound is
//! therefore its credit and one read of the partition ([`crate::limits::QuicLimits::read_bytes_max`]).
//! The next read runs while the last one is being written, as long as no more than one read waits.
//!
//! Bodies are the stored bytes: they go from the hub to QUIC as `Bytes` and are never copied here.
//!
//! The stream ends with an error frame when the hub can't go on (the offset is gone, the replica
//! has moved, …); the client opens a new one elsewhere, from where it is.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use fleetline_native::connection::ResetCode;
use fleetline_native::frame::{Frame, FrameKind, frame_bytes};
use fleetline_native::{HubError, ProtocolError, proto};
use fleetline_types::{Offset, PartitionId};
use quinn::SendStream;

use super::connection::StreamContext;
use super::stream::{FrameReader, StreamEnd, error_frame, finish, finish_with};
use crate::hub::{Hub, ReadReply};
use crate::limits::QuicLimits;
use crate::meters::Meters;

type Reading<'a> = Pin<Box<dyn Future<Output = Result<ReadReply, HubError>> + Send + 'a>>;

/// Serves the read stream that `first` opens, until either side ends it.
pub(super) async fn run(
    context: &StreamContext,
    first: Frame,
    reader: FrameReader,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let open: proto::ReadOpen = first.decode_head()?;
    let (partition, place) = (PartitionId(open.partition), open.place()?);
    let shared = &*context.shared;
    let next = match shared.hub.resolve(partition, place).await {
        Ok(offset) => offset,
        Err(error) => return finish_with(&mut send, error_frame(&error)).await,
    };
    let opened = frame_bytes(FrameKind::ReadOpened, &proto::ReadOpened { offset: next.0 }, 0);
    let mut stream = Stream {
        hub: &*shared.hub,
        limits: &shared.limits,
        meters: &shared.meters,
        partition,
        next,
        credit: open.credit_bytes.min(shared.limits.read_credit_bytes_max) as i64,
        backlog: VecDeque::from([opened]),
        backlog_bytes: 0,
        last: None,
    };
    let mut draining = shared.draining.clone();
    tokio::select! {
        ended = stream.pump(reader, &mut send) => ended?,
        // Readers lose nothing by an end at any place: they go on from the last whole batch.
        _ = draining.wait_for(|draining| *draining) => {
            let _ = send.reset(quinn::VarInt::from_u32(ResetCode::ShuttingDown.code()));
            return Ok(());
        }
    }
    finish(&mut send).await;
    Ok(())
}

/// The state of one read stream.
struct Stream<'a> {
    hub: &'a dyn Hub,
    limits: &'a QuicLimits,
    meters: &'a Meters,
    partition: PartitionId,
    /// Where the next read begins.
    next: Offset,
    /// Bytes of batches that may still be read; below zero after a batch larger than what was left.
    credit: i64,
    /// Frames and bodies that QUIC has not taken.
    backlog: VecDeque<Bytes>,
    /// Bytes of batches read since the backlog was last empty.
    backlog_bytes: u64,
    /// The error that ends the stream, once the backlog before it is written.
    last: Option<HubError>,
}

impl<'a> Stream<'a> {
    async fn pump(&mut self, mut reader: FrameReader, send: &mut SendStream) -> Result<(), StreamEnd> {
        let mut reading: Option<Reading<'a>> = None;
        loop {
            if reading.is_none() && self.may_read() {
                reading = Some(self.read());
            }
            tokio::select! {
                written = send.write_chunks(self.backlog.make_contiguous()), if !self.backlog.is_empty() => {
                    self.backlog.drain(..written?.chunks);
                    if self.backlog.is_empty() {
                        self.backlog_bytes = 0;
                        if self.last.is_some() {
                            return Ok(());
                        }
                    }
                }
                result = async { reading.as_mut().expect("guarded by is_some").await }, if reading.is_some() => {
                    reading = None;
                    self.on_read(result);
                }
                frame = reader.next() => match frame? {
                    Some(frame) => self.on_credit(frame)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn may_read(&self) -> bool {
        self.credit > 0 && self.last.is_none() && self.backlog_bytes < self.limits.read_bytes_max
    }

    fn read(&self) -> Reading<'a> {
        let bytes = (self.credit as u64).min(self.limits.read_bytes_max);
        self.hub.read(self.partition, self.next, bytes, self.limits.read_wait)
    }

    fn on_read(&mut self, result: Result<ReadReply, HubError>) {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                self.backlog.push_back(error_frame(&error));
                self.last = Some(error);
                return;
            }
        };
        self.next = reply.next;
        for stored in reply.batches {
            let bytes = stored.batch.len();
            let head = proto::Batch {
                base_offset: stored.base_offset.0,
                enqueued_ms: stored.enqueued.0,
                high_watermark: reply.high_watermark.0,
            };
            self.backlog.push_back(frame_bytes(FrameKind::Batch, &head, bytes));
            self.backlog.push_back(stored.batch);
            self.credit -= bytes as i64;
            self.backlog_bytes += bytes as u64;
            self.meters.read_batches.increment(1);
            self.meters.read_bytes.increment(bytes as u64);
        }
        if self.credit <= 0 {
            self.meters.read_credit_exhausted.increment(1);
        }
    }

    fn on_credit(&mut self, frame: Frame) -> Result<(), StreamEnd> {
        if frame.kind != FrameKind::Credit {
            return Err(ProtocolError::UnexpectedFrame { expected: "credit", found: frame.kind }.into());
        }
        let more = frame.decode_head::<proto::Credit>()?.bytes.min(self.limits.read_credit_bytes_max);
        self.credit = (self.credit + more as i64).min(self.limits.read_credit_bytes_max as i64);
        Ok(())
    }
}
