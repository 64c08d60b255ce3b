//! Append streams: batches of one partition in, answers in the same order out.
//!
//! ```text
//!   QUIC stream ─► frame ─► window (≤ 64 batches, ≤ 4 MiB) ─► answers ─► QUIC stream
//!                  │          each an open `Hub::append`        │
//!                  └── not read while the window is full        └── all that are ready in one write
//! ```
//!
//! No task per batch: the window is a `FuturesOrdered` in the stream's own task. It polls new
//! futures in the order of their frames, so the hub sees batches in the client's order as long as
//! `Hub::append` takes its place in the partition's order when it is first polled.
//!
//! When a batch fails, later ones of the window are already with the hub. They can't get past it:
//! an idempotent producer's batch carries its sequence number, and the partition refuses a gap
//! (`OutOfSequence`). The client gives the stream up at the first error, and sends everything from
//! the failed batch on again, in order, on a new stream; what had been stored is recognised. For
//! batches without a producer id there is no order after a failure, and none is promised.
//!
//! The front never retries: it would have to keep the order of what it retries, and the client
//! must be able to do it anyway, for when this node is gone.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use fleetline_native::connection::ResetCode;
use fleetline_native::frame::{Frame, FrameKind, put_frame};
use fleetline_native::{HubError, ProtocolError, error_map, proto};
use fleetline_types::PartitionId;
use futures::future::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};
use quinn::SendStream;

use super::connection::StreamContext;
use super::stream::{FrameReader, StreamEnd, finish};
use crate::hub::Appended;
use crate::meters::{Held, Meters};

/// Answers not yet taken by QUIC, in bytes, beyond which no more are collected: a client that
/// doesn't read its answers stops its own stream.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What came of one batch.
struct Done {
    sequence: u64,
    bytes: usize,
    result: Result<Appended, HubError>,
    _held: (Held, Held),
}

/// Serves the append stream that `first` opens, until the client finishes it.
pub(super) async fn run(
    context: &StreamContext,
    first: Frame,
    mut reader: FrameReader,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let partition = PartitionId(first.decode_head::<proto::AppendOpen>()?.partition);
    let shared = &*context.shared;
    let (limits, meters) = (&shared.limits, &shared.meters);
    let mut draining = shared.draining.clone();
    let mut window = FuturesOrdered::new();
    let mut window_bytes = 0;
    let mut was_full = false;
    let mut answers = BytesMut::new();
    let mut writing = Bytes::new();
    let mut reading = true;
    while reading || !window.is_empty() || !answers.is_empty() || !writing.is_empty() {
        if writing.is_empty() {
            writing = answers.split().freeze();
        }
        let has_room = window.len() < limits.append_window_batches
            && (window.is_empty() || window_bytes < limits.append_window_bytes);
        if !has_room && !was_full {
            meters.append_window_full.increment(1);
        }
        was_full = !has_room;
        tokio::select! {
            biased;
            Some(done) = window.next(), if !window.is_empty() && answers.len() < ANSWER_BYTES_MAX => {
                window_bytes -= put_answer(&mut answers, done, meters);
                while let Some(Some(done)) = window.next().now_or_never() {
                    window_bytes -= put_answer(&mut answers, done, meters);
                }
            }
            written = send.write_chunks(std::slice::from_mut(&mut writing)), if !writing.is_empty() => {
                written?;
            }
            frame = reader.next(), if reading && has_room => match frame? {
                Some(frame) => {
                    let (sequence, batch) = batch_of(frame)?;
                    window_bytes += batch.len();
                    window.push_back(append(context, partition, sequence, batch));
                }
                None => reading = false,
            },
            _ = draining.wait_for(|draining| *draining), if reading => {
                reader.stop(ResetCode::ShuttingDown);
                reading = false;
            }
        }
    }
    finish(&mut send).await;
    Ok(())
}

fn batch_of(frame: Frame) -> Result<(u64, Bytes), StreamEnd> {
    if frame.kind != FrameKind::Append {
        return Err(ProtocolError::UnexpectedFrame { expected: "append", found: frame.kind }.into());
    }
    Ok((frame.decode_head::<proto::Append>()?.sequence, frame.body))
}

/// One batch on its way through the hub.
fn append(
    context: &StreamContext,
    partition: PartitionId,
    sequence: u64,
    batch: Bytes,
) -> impl Future<Output = Done> + Send + '_ {
    let shared = &*context.shared;
    let bytes = batch.len();
    shared.meters.append_batches.increment(1);
    shared.meters.append_bytes.increment(bytes as u64);
    let held = (
        Held::one(&shared.meters.append_batches_in_flight),
        Held::new(&shared.meters.append_bytes_in_flight, bytes as f64),
    );
    async move {
        let max = shared.limits.batch_bytes_max;
        let result = if bytes > max {
            Err(HubError::Invalid(format!("batch has {bytes} bytes, the limit is {max}")))
        } else {
            shared.hub.append(partition, batch).await
        };
        Done { sequence, bytes, result, _held: held }
    }
}

/// Adds the answer to one batch, and gives back the bytes that leave the window.
fn put_answer(out: &mut BytesMut, done: Done, meters: &Meters) -> usize {
    match done.result {
        Ok(appended) => {
            put_frame(out, FrameKind::Appended, &proto::Appended::of(done.sequence, appended), 0);
        }
        Err(error) => {
            meters.append_errors.increment(1);
            let mut wire = error_map::to_wire(&error);
            wire.sequence = Some(done.sequence);
            put_frame(out, FrameKind::Error, &wire, 0);
        }
    }
    done.bytes
}
