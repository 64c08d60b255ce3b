//! Applying appends to a partition's state, in rounds as a replica does.

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, restamp};
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{StreamCommand, StreamLimits, StreamQuery, StreamReply, StreamState};
use fleetline_types::{LogId, Offset, PartitionId, ProducerId, TimestampMs};

use crate::{Outcome, Report, batch, bytes_like_data, same, timed};

const PARTITION: PartitionId = PartitionId(0);
/// Entries that a replica applies before it writes its rows.
const ROUND: usize = 64;

pub(crate) fn run(report: &mut Report<'_>) -> Outcome<()> {
    commands(report)?;
    for (records, producers) in [(1, 1), (1, 1000), (140, 10)] {
        appends(report, records, producers)?;
    }
    Ok(())
}

fn commands(report: &mut Report<'_>) -> Outcome<()> {
    let command = StreamCommand::Append { time: TimestampMs(1_700_000_000_000) };
    let calls = report.effort.operations;
    report.bench("append command, encode and decode".to_owned(), "call", || {
        let (took, wrong) = timed(|| {
            let mut wrong = 0;
            for _ in 0..calls {
                wrong += u64::from(StreamCommand::decode(&command.encode())? != command);
            }
            Ok(wrong)
        })?;
        same("wrong commands", 0, wrong)?;
        Ok((took, calls))
    })
}

/// Batches of `producers` in turn, each numbered on, with the first sequence of each.
fn inputs(records: u32, producers: u64, count: u64) -> Outcome<Vec<Bytes>> {
    let sample = batch(&mut BatchBuilder::default(), &bytes_like_data(100), records, 0, Compression::None)?;
    let numbered = |n: u64| {
        let first_sequence = n / producers * u64::from(records);
        let producer = Producer { id: ProducerId(1 + n % producers), epoch: 1, first_sequence };
        Ok(restamp(&sample, producer)?)
    };
    (0..count).map(numbered).collect()
}

fn appends(report: &mut Report<'_>, records: u32, producers: u64) -> Outcome<()> {
    let count = report.effort.fewer(1 + u64::from(records) / 14);
    let name = format!("apply append, {records} records a batch, {producers} producers");
    if !name.contains(report.only) {
        // The inputs are large: they are made only for who asks.
        return Ok(());
    }
    let batches = inputs(records, producers, count)?;
    report.bench(name, "batch", || {
        let store = MemState::new();
        let mut state = StreamState::load(&store, PARTITION, 1, StreamLimits::default())?;
        let (took, stored) = timed(|| apply_all(&mut state, &store, &batches))?;
        let end = Offset(count * u64::from(records));
        same("stored batches", count, stored)?;
        same("end of the stream", end, state.head().next)?;
        same("end of the stored stream", end, StreamQuery::new(&store, PARTITION).head()?.next)?;
        Ok((took, count))
    })
}

/// Applies all, a round at a time, and gives how many were stored as new.
fn apply_all(state: &mut StreamState, store: &MemState, batches: &[Bytes]) -> Outcome<u64> {
    let (mut index, mut stored) = (0, 0);
    for round in batches.chunks(ROUND) {
        let mut rows = StateBatch::default();
        for body in round {
            let command = StreamCommand::Append { time: TimestampMs(1_700_000_000_000 + index) };
            let reply = state.apply(LogId::new(1, index), &command, body, &mut rows)?;
            stored += u64::from(matches!(reply, StreamReply::Appended { duplicate: false, .. }));
            index += 1;
        }
        state.end_of_round(&mut rows);
        store.write(rows)?;
    }
    Ok(stored)
}
