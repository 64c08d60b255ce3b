//! What other tiers of the node give to the console.

use async_trait::async_trait;
use serde_json::Value;

/// The realtime hub `console`, as the node's realtime tier has it.
///
/// The page connects with the public SignalR client. Targets that it listens to:
///
/// - `tick`, `positions`, `records`: by the console's feed (the crate's `feed` module says what is in them);
/// - `alarm`: by functions, one argument `{device, text, value?, level?, at?}`; `level` is `info`,
///   `warning` (default) or `critical`, `at` milliseconds since 1970.
pub trait Live: Send + Sync + 'static {
    /// Sends an invocation to everyone who watches. `arguments` is an array. Must not block; what can't be
    /// sent is dropped.
    fn publish(&self, target: &str, arguments: Value);

    /// How many watch, as far as known; of all nodes for [`FeedScope::Led`].
    fn watchers(&self) -> usize;

    /// The client's address of the hub and a token for it that is valid for `user`. An address that begins
    /// with a slash is on the front that the page came from; one of another origin has to stand in
    /// [`ConsoleParts::connect_sources`](crate::ConsoleParts).
    fn negotiate(&self, user: &str) -> (String, String);
}

/// The functions of the cluster, as the node's functions tier knows them.
#[async_trait]
pub trait FunctionsView: Send + Sync + 'static {
    /// `{"functions": [{…}]}`, each with `name`, and of these what is known: `app`, `kind` (`wasm`,
    /// `python`, `node`), `trigger`, `state` (`running`, `starting`, `stopped`, `failed`), `invocations`,
    /// `failures`, `durationMs` (`{mean, p99}`), `lag` (records), `error` (the last one), `logs`
    /// (`[{at, level, text}]`, oldest first, some dozens at the most).
    async fn status(&self) -> Value;
}

/// Counters since the node's start, for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections of devices and services to this node, now.
    pub connections: u64,
    /// Records given to readers.
    pub records_out: u64,
    /// Bytes given to readers.
    pub bytes_out: u64,
}

/// This node's counters.
pub trait Meters: Send + Sync + 'static {
    /// As of now.
    fn read(&self) -> Counters;
}

/// Which partitions a node's feed follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedScope {
    /// Those that it leads: [`Live::publish`] reaches the watchers of all nodes, and the page adds up what
    /// the nodes say. Nothing is read or sent twice, however many nodes there are.
    #[default]
    Led,
    /// All that it holds a replica of: `publish` reaches only those who are connected to this node.
    Held,
}
