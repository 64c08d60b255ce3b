//! Timings and bounds of a group, and how they become openraft's config.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::GroupError;

/// Timings and bounds of all groups of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How often an idle leader is heard of. Shorter notices silence sooner and costs CPU per
    /// group; replication acks count as heartbeats. Default 500 ms.
    pub heartbeat: Duration,
    /// The shortest and longest silence after which a follower campaigns. Must be well above what a
    /// starved machine pauses for; a killed peer is noticed by its closed connection instead.
    /// Default 1500–3000 ms.
    pub election: (Duration, Duration),
    /// Entries in one append request at the most. Default 128.
    pub append_entries_max: u64,
    /// Payload bytes in one append request at the most (at least one entry goes). Default 1 MiB.
    pub append_bytes_max: u64,
    /// Append requests on their way to one follower at the most. Default 8.
    pub append_window: usize,
    /// How long a snapshot transfer may take. Default 10 min.
    pub snapshot_timeout: Duration,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            heartbeat: Duration::from_millis(500),
            election: (Duration::from_millis(1500), Duration::from_millis(3000)),
            append_entries_max: 128,
            append_bytes_max: 1 << 20,
            append_window: 8,
            snapshot_timeout: Duration::from_secs(600),
        }
    }
}

impl GroupConfig {
    /// openraft's form of it.
    ///
    /// # Errors
    /// When the timings contradict each other.
    pub(crate) fn to_openraft(&self, name: String) -> Result<Arc<Config>, GroupError> {
        let millis = |duration: Duration| duration.as_millis() as u64;
        let config = Config {
            cluster_name: name,
            heartbeat_interval: millis(self.heartbeat),
            heartbeat_min_interval: Some(millis(self.heartbeat) / 2),
            election_timeout_min: millis(self.election.0),
            election_timeout_max: millis(self.election.1),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            max_payload_entries: self.append_entries_max,
            snapshot_policy: SnapshotPolicy::Never,
            // The log is data: what to purge is decided by retention, never by openraft.
            max_in_snapshot_log_to_keep: u64::MAX / 2,
            replication_lag_threshold: u64::MAX / 2,
            purge_batch_size: 256,
            enable_pre_vote: Some(true),
            // Entries go to followers while this node's own sync still runs. A leader that restarts may
            // have lost such entries while a majority has them: going on in the same term, it would give
            // their ids to others. A new term makes it compare logs first.
            enable_leader_restore: Some(false),
            // A follower that has demonstrably forgotten (it doesn't vote, see the driver's
            // `amnesia`) must be refilled; without this openraft stops the leader instead.
            allow_log_reversion: Some(true),
            api_channel_size: Some(4096),
            notification_channel_size: Some(4096),
            state_machine_channel_size: Some(256),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| GroupError::Config(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What safety rests on isn't left to openraft's defaults: a restarted leader must be elected anew,
    /// and a node that was away must not disturb a leader that has a majority.
    #[test]
    fn safety_switches() {
        let config = GroupConfig::default().to_openraft("g".to_owned()).unwrap();
        assert_eq!((config.enable_leader_restore, config.enable_pre_vote), (Some(false), Some(true)));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
    }
}
