//! Bridges: records and twin changes sent to a hub's clients, by configuration, without any code.
//!
//! The node that leads a partition follows its stream, from its end on, as long as there are bridges, and sends
//! what they let through. When another node becomes the leader, it starts at the end that it sees then: a
//! bridge shows what happens now, and what must not be missed is read from the stream itself.
//!
//! A hub that is busy holds its bridges up, not the other way round: the stream waits.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetline_batch::BatchReader;
use fleetline_gateway::hub::{HubError, ReadFrom, StoredBatch};
use fleetline_types::{Offset, PartitionId};
use tokio::task::JoinHandle;

use crate::fanout::Action;
use crate::outgoing::Outgoing;
use crate::tier::Realtime;

pub(crate) mod rule;

use rule::Place;

/// How long a read waits for records.
const READ_WAIT: Duration = Duration::from_secs(5);
/// Before a read that failed is tried again, and between tries to publish to a busy hub.
const RETRY: Duration = Duration::from_millis(200);
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// A task that ends when this is dropped.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The followers of a node's partitions.
#[derive(Default)]
pub(crate) struct Bridges {
    followers: HashMap<PartitionId, Follower>,
}

impl Bridges {
    /// Starts and ends followers, so that there is one for each partition that this node leads.
    pub(crate) fn look(&mut self, tier: &Arc<Realtime>) {
        if tier.settings().bridges.is_empty() {
            self.followers.clear();
            return;
        }
        for partition in (0..tier.registry.partitions()).map(PartitionId) {
            if tier.peers.leads(partition).is_none() {
                self.followers.remove(&partition);
            } else if self.followers.get(&partition).is_none_or(|follower| follower.0.is_finished()) {
                let task = tokio::spawn(follow(Arc::downgrade(tier), partition));
                self.followers.insert(partition, Follower(task));
            }
        }
    }
}

async fn follow(tier: Weak<Realtime>, partition: PartitionId) {
    let mut next = None;
    loop {
        let Some(tier) = tier.upgrade() else { return };
        let hub = tier.cluster.hub();
        let from = match next {
            Some(from) => Ok(from),
            None => hub.resolve(partition, ReadFrom::Latest).await,
        };
        let max = tier.options().limits.bridge_read_bytes;
        let read = match from {
            Ok(from) => hub.read(partition, from, max, READ_WAIT).await.map(|reply| (from, reply)),
            Err(error) => Err(error),
        };
        match read {
            Ok((from, reply)) => {
                next = Some(reply.next);
                for batch in reply.batches {
                    tier.bridge(partition, from, &batch).await;
                }
            }
            // Retention was faster than the bridge.
            Err(HubError::OffsetGone { start, .. }) => next = Some(start),
            Err(error) => {
                tracing::debug!(%partition, %error, "a bridge can't read now");
                drop(tier);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Realtime {
    /// Sends what the bridges let through of a batch, from an offset on.
    async fn bridge(&self, partition: PartitionId, from: Offset, batch: &StoredBatch) {
        let records = match BatchReader::new(batch.batch.clone()) {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%partition, %error, "a bridge skips a batch that can't be read");
                return;
            }
        };
        let settings = self.settings();
        for (offset, record) in (batch.base_offset.0..).zip(records) {
            let Ok(record) = record else { return };
            if offset < from.0 {
                continue;
            }
            let place = Place { partition: partition.0, offset, enqueued_ms: batch.enqueued.0 };
            let mut seen = rule::Record::new(record, place);
            for bridge in &settings.bridges {
                if let Some((to, message)) = bridge.pass(&mut seen) {
                    metrics::counter!("fleetline_realtime_bridged_total").increment(1);
                    let action = Action::Send(Outgoing::new(message));
                    while self.order(bridge.hub(), &to, action.clone()).is_err() {
                        tokio::time::sleep(BUSY_RETRY).await;
                    }
                }
            }
        }
    }
}
