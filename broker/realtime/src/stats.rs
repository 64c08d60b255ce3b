//! What the tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::member::Member;

/// Counters of a node.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    fanned_out: AtomicU64,
    received: AtomicU64,
    slow: AtomicU64,
    published: AtomicU64,
    upstream_failed: AtomicU64,
}

/// The tier of one node, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RealtimeStats {
    /// Open connections of this node.
    pub connections: usize,
    /// Hubs that have a connection here.
    pub hubs: Vec<String>,
    /// Messages taken from publishers here.
    pub published: u64,
    /// Messages put into clients' outboxes here.
    pub sent: u64,
    /// Messages of clients here.
    pub received: u64,
    /// Clients that were dropped here because they did not read fast enough.
    pub slow_clients: u64,
    /// Events that no upstream took.
    pub upstream_failed: u64,
    /// Orders that a living node did not take.
    pub lost: u64,
    /// Bytes that wait for clients here; as old as a minute.
    pub queued_bytes: usize,
    /// Bytes that wait to be fanned out here.
    pub waiting_bytes: usize,
    /// Keys of other nodes in the directories that this node keeps.
    pub directory_keys: usize,
}

impl Stats {
    pub(crate) fn on_slow(&self, member: &Member) {
        self.slow.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_slow_clients_total").increment(1);
        tracing::debug!(hub = member.hub.as_str(), connection = member.id.as_str(), "client is too slow");
    }

    pub(crate) fn on_fanned_out(&self, messages: u64) {
        self.fanned_out.fetch_add(messages, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_messages_out_total").increment(messages);
    }

    pub(crate) fn on_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_messages_in_total").increment(1);
    }

    pub(crate) fn on_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_publishes_total").increment(1);
    }

    pub(crate) fn on_upstream_failed(&self) {
        self.upstream_failed.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_upstream_failures_total").increment(1);
    }

    pub(crate) fn fill(&self, stats: &mut RealtimeStats) {
        stats.published = self.published.load(Ordering::Relaxed);
        stats.sent = self.fanned_out.load(Ordering::Relaxed);
        stats.received = self.received.load(Ordering::Relaxed);
        stats.slow_clients = self.slow.load(Ordering::Relaxed);
        stats.upstream_failed = self.upstream_failed.load(Ordering::Relaxed);
    }
}
