//! How much of a stream is kept, and how the rest goes.
//!
//! The leader proposes a trim when time or bytes are exceeded: that moves the stream's start on every
//! replica. Each replica then moves its logical purge point (which needs a snapshot) and lets the
//! log forget the bytes, never beyond what its state store has flushed.

use std::time::Duration;

use fleetline_native::HubError;
use fleetline_streams::StreamCommand;
use fleetline_types::{GroupId, LogIndex};

use crate::partition::{Partition, state_error};

/// A partition keeps records until one of these is reached; the newest batch always stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// How long a record is kept after it was enqueued. Default one day.
    pub time: Duration,
    /// How many bytes of batches are kept per partition. Default 10 GiB.
    pub bytes: u64,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        RetentionPolicy { time: Duration::from_secs(24 * 60 * 60), bytes: 10 << 30 }
    }
}

/// How long a snapshot and purge may take before retention tries again later.
const COMPACT_PATIENCE: Duration = Duration::from_secs(60);

impl Partition {
    /// On the leader: trims the stream when the policy wants it.
    ///
    /// # Errors
    /// Those of a proposal.
    pub async fn trim(&self, policy: RetentionPolicy) -> Result<(), HubError> {
        if !self.parts.group.is_leader() {
            return Ok(());
        }
        let before = self.parts.clock.wall().minus_ms(policy.time.as_millis() as u64);
        let Some(point) = self.query().trim_point(before, policy.bytes).map_err(state_error)? else {
            return Ok(());
        };
        let command = StreamCommand::Trim {
            expected_start: point.expected_start,
            first_kept: point.first_kept,
            first_kept_entry: point.first_kept_entry,
            freed_bytes: point.freed_bytes,
        };
        tracing::info!(partition = %self.id(), start = %point.first_kept, freed = point.freed_bytes, "trimming");
        self.command(&command).await.map(drop)
    }

    /// On every replica: lets go of what lies before the stream's start. `flushed` is the last entry
    /// whose effects the state store has durably; nothing behind it may go.
    ///
    /// # Errors
    /// When the snapshot or the purge fails; the next call tries again.
    pub async fn release(&self, flushed: Option<LogIndex>) -> Result<(), HubError> {
        let internal = |error: &dyn std::fmt::Display| HubError::Internal(error.to_string());
        if let Some(sweep) = self.query().sweep().map_err(state_error)? {
            self.parts.store.write(sweep).map_err(state_error)?;
        }
        let group = GroupId::of_partition(self.parts.partition);
        let Some(flushed) = flushed else {
            return Ok(());
        };
        let first = self.head().first_entry.min(flushed);
        let state = self.parts.log.state(group);
        if first <= state.first_retained || first.0 == 0 {
            return Ok(());
        }
        let purge_to = LogIndex(first.0 - 1);
        if state.purged.is_none_or(|purged| purged.index < purge_to) {
            self.parts.group.compact(purge_to, COMPACT_PATIENCE).await.map_err(|e| internal(&e))?;
        }
        self.parts.log.retain_from(group, first).map_err(|e| internal(&e))
    }
}
