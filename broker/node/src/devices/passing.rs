//! What the leader of a partition does for its devices as time passes: events that still wait, commands
//! that are too old, sessions of nodes that are gone.
//!
//! `effects` runs one loop a partition and says when to look. Looking costs nothing where nothing can be
//! due: rows are read when something was applied since, or when the earliest expiry has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_devices::{DeviceCommand, DeviceKey, ExpireCommands, Op, Page, limits};
use fleetline_gateway::hub::HubError;
use fleetline_partition::Partition;
use fleetline_types::{LogId, NodeId, Term};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::NodeDevices;
use super::answer::state;

/// Queues looked at per look and partition.
const QUEUES_SCANNED: usize = 1000;
/// How long a node may be away before the sessions of its connections end.
const GATEWAY_LOST: Duration = Duration::from_secs(15);

/// What is remembered between two looks, for one term of leadership.
#[derive(Default)]
struct Looks {
    term: Term,
    away: BTreeMap<NodeId, Instant>,
    expiry: Expiry,
}

impl NodeDevices {
    /// Looks whenever it is told to.
    pub(super) async fn as_time_passes(&self, partition: &Arc<Partition>, look: &Notify) {
        let mut looks = Looks::default();
        loop {
            look.notified().await;
            let (_, term) = partition.group().leader();
            if looks.term != term {
                looks = Looks { term, ..Looks::default() };
            }
            self.look(partition, &mut looks).await;
        }
    }

    async fn look(&self, partition: &Arc<Partition>, looks: &mut Looks) {
        let head = partition.device_head();
        if head.outbox_done < head.outbox_next {
            self.drain_outbox(partition).await;
        }
        if let Err(error) = self.expire(partition, &mut looks.expiry).await {
            tracing::debug!(partition = %partition.id(), %error, "commands are not expired yet");
            looks.expiry = Expiry::default();
        }
        if let Err(error) = self.end_lost(partition, &mut looks.away).await {
            tracing::debug!(partition = %partition.id(), %error, "lost sessions are not ended yet");
        }
    }

    async fn expire(&self, partition: &Arc<Partition>, expiry: &mut Expiry) -> Result<(), HubError> {
        let now = self.clock.wall().0;
        // Before the rows are read: what is applied meanwhile is looked at again.
        let applied = *partition.group().applied().borrow();
        if !expiry.is_due(applied, now) {
            return Ok(());
        }
        let page = partition.devices().queues(&expiry.from, QUEUES_SCANNED).map_err(state)?;
        for keys in expiry.take(applied, page, now).chunks(limits::BULK_MAX) {
            let op = Op::ExpireCommands(ExpireCommands { keys: keys.to_vec() });
            partition.change_devices(DeviceCommand::new(op)).await?;
        }
        Ok(())
    }

    /// Ends the sessions of nodes that are away for too long.
    async fn end_lost(
        &self,
        partition: &Arc<Partition>,
        away: &mut BTreeMap<NodeId, Instant>,
    ) -> Result<(), HubError> {
        let this = self.driver.node();
        let members = self.control.view();
        let now = Instant::now();
        for node in members.nodes.keys().copied().filter(|node| *node != this) {
            if self.driver.transport().is_up(node) {
                away.remove(&node);
                continue;
            }
            let since = *away.entry(node).or_insert(now);
            if now.duration_since(since) >= GATEWAY_LOST {
                let ended = self.end_sessions(partition, |place| place.node == node.0).await?;
                if ended > 0 {
                    tracing::info!(partition = %partition.id(), %node, ended, "sessions of a lost node ended");
                }
                // Looked at again later: the node may come back and go.
                away.insert(node, now);
            }
        }
        Ok(())
    }
}

/// How far the queues of commands have been looked through.
#[derive(Debug, Default)]
struct Expiry {
    /// Where the pass goes on; empty: at its begin.
    from: Bytes,
    /// What was applied when the pass began.
    began: Option<LogId>,
    /// The earliest expiry that the pass has found and that wasn't due.
    earliest: Option<u64>,
    /// `began` and `earliest` of the last whole pass.
    whole: Option<(Option<LogId>, Option<u64>)>,
}

impl Expiry {
    /// Whether a queue may be due that wasn't at the last whole pass.
    fn is_due(&self, applied: Option<LogId>, now_ms: u64) -> bool {
        match self.whole {
            Some((began, earliest)) if self.from.is_empty() => {
                began != applied || earliest.is_some_and(|earliest| earliest <= now_ms)
            }
            _ => true,
        }
    }

    /// Notes a page of the pass; gives the queues in it that are due.
    fn take(&mut self, applied: Option<LogId>, page: Page<(DeviceKey, u64)>, now_ms: u64) -> Vec<DeviceKey> {
        if self.from.is_empty() {
            (self.began, self.earliest) = (applied, None);
        }
        let mut due = Vec::new();
        for (key, expiry) in page.rows {
            match expiry <= now_ms {
                true => due.push(key),
                false => self.earliest = Some(self.earliest.map_or(expiry, |earliest| earliest.min(expiry))),
            }
        }
        self.from = page.next.unwrap_or_default();
        if self.from.is_empty() {
            self.whole = Some((self.began, self.earliest));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(&str, u64)], next: Option<&'static [u8]>) -> Page<(DeviceKey, u64)> {
        let rows = rows.iter().map(|(device, expiry)| (DeviceKey::device(*device), *expiry)).collect();
        Page { rows, next: next.map(Bytes::from_static) }
    }

    fn names(keys: &[DeviceKey]) -> String {
        keys.iter().map(|key| key.device.as_str()).collect()
    }

    /// After a whole pass rows are read again only for what was applied since, or at the earliest expiry.
    #[test]
    fn a_whole_pass_says_when_to_look() {
        let at = |index| Some(LogId::new(1, index));
        let mut expiry = Expiry::default();
        assert!(expiry.is_due(at(5), 100));
        assert_eq!(names(&expiry.take(at(5), page(&[("a", 90), ("b", 300)], Some(b"c")), 100)), "a");
        assert!(expiry.is_due(at(5), 100), "the pass isn't whole");
        // Meanwhile something was applied, maybe to a queue of the first page.
        assert_eq!(names(&expiry.take(at(6), page(&[("c", 200), ("d", 100)], None), 100)), "d");
        assert!(expiry.is_due(at(6), 100));
        assert_eq!(names(&expiry.take(at(6), page(&[("b", 300), ("c", 200)], None), 100)), "");
        assert!(!expiry.is_due(at(6), 199) && expiry.is_due(at(6), 200) && expiry.is_due(at(7), 100));
        assert_eq!(names(&expiry.take(at(7), page(&[], None), 200)), "");
        assert!(!expiry.is_due(at(7), u64::MAX));
    }
}
