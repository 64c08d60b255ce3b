//! Forming a batch anew without the records of sessions that are over.

use std::sync::Arc;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchReader, RecordRef, RecordView};

use crate::devices::connections::Link;

/// Records of one connection that stand together in a batch.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) link: Arc<Link>,
    pub(super) count: u32,
    /// The number of its last record.
    pub(super) up_to: u64,
}

/// Puts the records of `batch` that still count into `builder`, which is empty. Gives their runs.
///
/// A record that is lost on the way ends its session, because nothing behind it may be acknowledged: the
/// device sends it again in its next session. What of its run is in the batch already stays, as a run
/// that acknowledges nothing.
pub(super) fn refill(batch: &Bytes, runs: &[Run], builder: &mut BatchBuilder) -> Vec<Run> {
    let mut kept = Vec::with_capacity(runs.len());
    let mut records = match BatchReader::new(batch.clone()) {
        Ok(records) => records.map(Some).chain(std::iter::repeat_with(|| None)),
        Err(error) => {
            tracing::error!(%error, "own batch can't be read, the sessions of its records end");
            runs.iter().for_each(end);
            return kept;
        }
    };
    for run in runs {
        let mut over = run.link.is_over();
        let before = builder.count();
        for view in records.by_ref().take(run.count as usize) {
            if !over && !matches!(view, Some(Ok(view)) if push_view(builder, &view)) {
                end(run);
                over = true;
            }
        }
        match (over, builder.count() - before) {
            (false, _) => kept.push(run.clone()),
            (true, 0) => {}
            (true, count) => kept.push(Run { count, up_to: 0, ..run.clone() }),
        }
    }
    kept
}

/// Ends the session that a run is of.
fn end(run: &Run) {
    tracing::error!(device = run.link.key.text(), "a record of an open batch is lost, its session ends");
    metrics::counter!("fleetline_ingest_sessions_ended_total").increment(1);
    run.link.end_up_to(run.link.epoch());
}

/// Adds a record; `false` when it doesn't fit.
fn push_view(builder: &mut BatchBuilder, view: &RecordView) -> bool {
    let system: Vec<(u8, Bytes)> = view.system().collect();
    let system: Vec<(u8, &[u8])> = system.iter().map(|(id, value)| (*id, value.as_ref())).collect();
    let properties: Vec<(Bytes, Bytes)> = view.properties().collect();
    let properties: Vec<(&[u8], &[u8])> =
        properties.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    let record = RecordRef {
        device: &view.device,
        time: view.time,
        endpoints: view.endpoints,
        system: &system,
        properties: &properties,
        body: &view.body,
    };
    builder.push(&record).is_ok()
}

#[cfg(test)]
mod tests {
    use fleetline_batch::{Compression, Producer};
    use fleetline_devices::DeviceKey;
    use fleetline_types::TimestampMs;

    use super::*;
    use crate::devices::connections::{Connections, Registered};

    /// Three connections, and a batch with two records of each, of so many bytes.
    fn world(sizes: [usize; 6]) -> (Vec<Registered>, Bytes, Vec<Run>) {
        let connections = Connections::new(1);
        let mut builder = BatchBuilder::new(64 << 10);
        let mut runs = Vec::new();
        let mut devices = Vec::new();
        for (device, sizes) in ["a", "b", "c"].into_iter().zip(sizes.chunks(2)) {
            let registered = connections.register(DeviceKey::device(device));
            registered.link.opened(7);
            for size in sizes {
                let body = vec![0; *size];
                let record = RecordRef {
                    device: device.as_bytes(),
                    time: TimestampMs(1),
                    endpoints: 0,
                    system: &[],
                    properties: &[],
                    body: &body,
                };
                builder.push(&record).unwrap();
            }
            runs.push(Run { link: registered.link.clone(), count: 2, up_to: 2 });
            devices.push(registered);
        }
        (devices, builder.finish(Producer::default(), Compression::None).unwrap(), runs)
    }

    /// Device, count and acknowledged number of each run, and which devices' sessions are over.
    fn outcome(kept: &[Run], devices: &[Registered]) -> (Vec<(String, u32, u64)>, Vec<bool>) {
        let kept = kept.iter().map(|run| (run.link.key.text(), run.count, run.up_to)).collect();
        (kept, devices.iter().map(|registered| registered.link.is_over()).collect())
    }

    /// Records of sessions that are over leave, the others stay.
    #[test]
    fn what_is_over_leaves() {
        let (devices, batch, runs) = world([10; 6]);
        devices[1].link.end_up_to(7);
        let mut builder = BatchBuilder::new(64 << 10);
        let kept = refill(&batch, &runs, &mut builder);
        let expected = vec![("a".into(), 2, 2), ("c".into(), 2, 2)];
        assert_eq!(outcome(&kept, &devices), (expected, vec![false, true, false]));
        assert_eq!(builder.count(), 4);
    }

    /// A record that doesn't fit ends its session; what is there of its run is counted and not acknowledged.
    #[test]
    fn a_record_that_does_not_fit() {
        let (devices, batch, runs) = world([10, 10, 10, 2000, 10, 10]);
        let mut builder = BatchBuilder::new(1000);
        let kept = refill(&batch, &runs, &mut builder);
        let expected = vec![("a".into(), 2, 2), ("b".into(), 1, 0), ("c".into(), 2, 2)];
        assert_eq!(outcome(&kept, &devices), (expected, vec![false, true, false]));
        // The counts are those of the records, so it can be done again.
        let batch = builder.finish(Producer::default(), Compression::None).unwrap();
        let again = refill(&batch, &kept, &mut builder);
        let expected = vec![("a".into(), 2, 2), ("c".into(), 2, 2)];
        assert_eq!(outcome(&again, &devices).0, expected);
        assert_eq!(builder.count(), 4);
    }

    /// Nothing of a batch that can't be read is acknowledged, and every session in it ends; so does that
    /// of a run that the batch has too few records for.
    #[test]
    fn a_batch_that_can_not_be_read() {
        let (devices, batch, mut runs) = world([10; 6]);
        let mut builder = BatchBuilder::new(64 << 10);
        let kept = refill(&batch.slice(..batch.len() - 1), &runs, &mut builder);
        assert_eq!(outcome(&kept, &devices), (vec![], vec![true; 3]));
        assert!(builder.is_empty());
        let (devices, batch, _) = world([10; 6]);
        for (run, registered) in runs.iter_mut().zip(&devices) {
            run.link = registered.link.clone();
        }
        runs[2].count = 3;
        let kept = refill(&batch, &runs, &mut builder);
        let expected = vec![("a".into(), 2, 2), ("b".into(), 2, 2), ("c".into(), 2, 0)];
        assert_eq!(outcome(&kept, &devices), (expected, vec![false, false, true]));
    }
}
