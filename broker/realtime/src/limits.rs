//! Bounds and options of the tier, each with its reason.

use std::time::Duration;

use fleetline_signalr::session::Options as SessionOptions;

/// What one node of the tier needs to know.
#[derive(Clone, Debug)]
pub struct RealtimeOptions {
    /// How clients reach the hub: `https://host` or `https://host:port`, without a path. Stands in the
    /// connection string and in what [`crate::Realtime::negotiate`] answers.
    pub endpoint: String,
    /// How connections behave: time-outs, sizes of messages, what is kept for resuming.
    pub session: SessionOptions,
    /// Bounds.
    pub limits: RealtimeLimits,
}

impl RealtimeOptions {
    /// Defaults behind this endpoint.
    pub fn new(endpoint: impl Into<String>) -> RealtimeOptions {
        RealtimeOptions {
            endpoint: endpoint.into(),
            session: SessionOptions::default(),
            limits: RealtimeLimits::default(),
        }
    }
}

/// Bounds of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeLimits {
    /// Connections of the node; more are answered 503. Default 200,000: twice the design target.
    pub connections_max: usize,
    /// Bytes that wait for one client; a client that would have more is dropped. Default 1 MiB: seconds
    /// of traffic for a client that reads.
    pub queue_bytes_max: usize,
    /// Messages that wait for one client. Default 4,096: small ones cost more than their bytes.
    pub queue_messages_max: usize,
    /// Groups of one connection. Default 1,000.
    pub groups_max: usize,
    /// Tasks that fan messages out. Default 0: as many as there are processors, at most 8. A hub's
    /// messages go through one of them, in order.
    pub fanout_lanes: usize,
    /// Bytes that wait for one fan-out task, or for one partition's directory; then publishers are told
    /// that the hub is busy. Default 32 MiB: more than one REST body of 1 MiB from each of many callers.
    pub publish_bytes_max: usize,
    /// Bytes that one call to another node carries, unless one message has more. Default 1 MiB of the 4
    /// that a call may have.
    pub batch_bytes_max: usize,
    /// Keys that one call registers with a directory. Default 10,000: about half a megabyte.
    pub interest_keys_max: usize,
    /// How long a connection or a new group member waits until the directory knows of it. Default 10 s.
    pub join_wait: Duration,
    /// How long one call to another node may take. Default 5 s.
    pub call_wait: Duration,
    /// How long the directory believes a node that doesn't refresh. Default 15 s: three refreshes.
    pub interest_expiry: Duration,
    /// How often a node refreshes what it registered. Default 5 s.
    pub interest_refresh: Duration,
    /// Invocations of one client that wait behind the one at hand before it isn't read any more.
    /// Default 16.
    pub backlog_max: usize,
    /// Bytes of a client's POST. Default 256 KiB: several of the largest messages.
    pub post_bytes_max: usize,
    /// Events of one hub that upstreams and functions handle at a time. Default 100.
    pub events_per_hub: usize,
    /// How long an upstream may take, the wait for its turn included. Default 30 s.
    pub upstream_wait: Duration,
    /// Bytes of an upstream's answer. Default 1 MiB.
    pub upstream_reply_max: usize,
    /// Connections to one upstream that are kept for the next call. Default 16.
    pub upstream_idle_max: usize,
    /// Bytes that a bridge reads at a time. Default 1 MiB.
    pub bridge_read_bytes: u64,
}

impl Default for RealtimeLimits {
    fn default() -> RealtimeLimits {
        RealtimeLimits {
            connections_max: 200_000,
            queue_bytes_max: 1 << 20,
            queue_messages_max: 4_096,
            groups_max: 1_000,
            fanout_lanes: 0,
            publish_bytes_max: 32 << 20,
            batch_bytes_max: 1 << 20,
            interest_keys_max: 10_000,
            join_wait: Duration::from_secs(10),
            call_wait: Duration::from_secs(5),
            interest_expiry: Duration::from_secs(15),
            interest_refresh: Duration::from_secs(5),
            backlog_max: 16,
            post_bytes_max: 256 << 10,
            events_per_hub: 100,
            upstream_wait: Duration::from_secs(30),
            upstream_reply_max: 1 << 20,
            upstream_idle_max: 16,
            bridge_read_bytes: 1 << 20,
        }
    }
}

impl RealtimeLimits {
    /// How many fan-out tasks there are.
    pub(crate) fn lanes(&self) -> usize {
        match self.fanout_lanes {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(8),
            lanes => lanes,
        }
    }
}
