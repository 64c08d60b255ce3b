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
pub(super) fn refill(batch: &Bytes, runs: &[Run], builder: &mut BatchBuilder) -> Vec<Run> {
    let mut kept = Vec::with_capacity(runs.len());
    // Made by this process: it can be read.
    let Ok(mut records) = BatchReader::new(batch.clone()) else {
        return kept;
    };
    for run in runs {
        let over = run.link.is_over();
        for _ in 0..run.count {
            let Some(Ok(view)) = records.next() else {
                return kept;
            };
            if !over {
                push_view(builder, &view);
            }
        }
        if !over {
            kept.push(run.clone());
        }
    }
    kept
}

fn push_view(builder: &mut BatchBuilder, view: &RecordView) {
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
    // It came out of a batch of the same size.
    if let Err(error) = builder.push(&record) {
        tracing::error!(%error, "a record did not fit the batch that it came from");
    }
}
