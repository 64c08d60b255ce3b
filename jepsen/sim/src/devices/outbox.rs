//! What a leader does by itself: events of the outbox become records, and commands that are too old end. Here
//! everybody who believes to lead does it, at once if two do; the log decides.

use std::time::Duration;

use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{ExpireCommands, OUTBOX_PRODUCER, Op};
use fleetline_partition::Partition;
use fleetline_types::ProducerId;
use tokio::time::{sleep, timeout};

use super::{Clients, PATIENCE};
use crate::rng::Rng;

/// Events in one append: few, so that an outbox takes several.
const EVENTS_MAX: u64 = 5;

/// Runs until the run stops.
pub(super) async fn run(clients: Clients) {
    let mut rng = Rng::new(clients.seed, 2400);
    while !clients.stop.get() {
        if let Some(partition) = clients.some(&mut rng) {
            append(&partition, 1 + rng.below(EVENTS_MAX) as usize).await;
        }
        if rng.below(10) == 0 {
            let keys = (0..clients.devices).map(Clients::key).collect();
            clients.change(&mut rng, Op::ExpireCommands(ExpireCommands { keys })).await;
        }
        sleep(Duration::from_millis(1 + rng.below(10))).await;
    }
}

async fn append(partition: &Partition, limit: usize) {
    let Ok((first_sequence, events)) = partition.devices().outbox(limit) else { return };
    let mut builder = BatchBuilder::default();
    for event in &events {
        let record = RecordRef { device: event.device.as_bytes(), body: &event.body, ..RecordRef::default() };
        if builder.push(&record).is_err() {
            return;
        }
    }
    let producer = Producer { id: ProducerId(OUTBOX_PRODUCER), epoch: 1, first_sequence };
    if let Some(batch) = builder.finish(producer, Compression::None) {
        // Whether it was stored shows in the outbox.
        let _unknown_or_not = timeout(PATIENCE, partition.append(batch)).await;
    }
}
