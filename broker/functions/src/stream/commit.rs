//! Storing a checkpoint with what belongs to it, until it is certain what became of it.
//!
//! The log refuses a commit for records that this owner has checkpointed already. So one whose outcome is
//! unknown is settled by reading the checkpoint: it stands behind the batch, and the commit was applied, or it
//! stands before it, and the same commit is sent again: whichever of the two comes first is applied, the
//! other one refused.

use fleetline_devices::{Bulk, BulkItem, Commit, DeviceReply, Op, Request};
use fleetline_gateway::devices::hub::answered;
use fleetline_gateway::hub::HubError;
use fleetline_types::PartitionId;
use fleetline_worker::LogLevel;

use super::{Stop, StreamFunction};
use crate::error::{is_passing, is_unknown};

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It is applied.
    Done,
    /// Somebody else owns the partition: nothing was or will be changed by this one.
    Fenced,
    /// It was given up because the run has to stop; the checkpoint says whether it was applied.
    Stopped,
    /// The checkpoint stands inside of or behind the batch, by a commit of this owner that isn't this one.
    Moved(u64),
    /// It can't be applied: it breaks a bound.
    Refused(String),
}

/// Who commits.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) function: &'a StreamFunction,
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u64,
}

impl Owner<'_> {
    /// A commit for the records from `first` to before `next`.
    pub(crate) fn make(&self, first: u64, next: u64, ops: Vec<Op>) -> Commit {
        let ops = ops.into_iter().map(|op| BulkItem { op: Some(op) }).collect();
        let group = self.function.group.clone();
        Commit { group, epoch: self.epoch, first, next, changes: Bulk { ops }, now_ms: 0 }
    }

    /// Sends it until it is certain what became of it.
    pub(crate) async fn commit(&self, commit: Commit, stop: &mut Stop) -> Committed {
        let devices = &self.function.core.devices;
        let mut backoff = self.function.core.backoff();
        let mut maybe_applied = false;
        loop {
            let answer = devices.ask(self.partition, Request::Commit(commit.clone())).await;
            let error = match answer.map(answered) {
                Ok(Ok(answer)) => {
                    self.note_refusals(answer.committed.unwrap_or_default());
                    return Committed::Done;
                }
                Ok(Err(refused)) => return Committed::Refused(refused.to_string()),
                Err(error) => error,
            };
            match error {
                // Without a claim there is no owner.
                HubError::Fenced { .. } | HubError::NotFound(_) => return Committed::Fenced,
                HubError::OutOfSequence { expected, .. } => {
                    return match maybe_applied && expected == commit.next {
                        true => Committed::Done,
                        false => Committed::Moved(expected),
                    };
                }
                error if is_unknown(&error) => {
                    maybe_applied = true;
                    match self.outcome(&commit, stop).await {
                        Some(Outcome::Applied) => return Committed::Done,
                        Some(Outcome::Fenced) => return Committed::Fenced,
                        Some(Outcome::Not) => {}
                        None => return Committed::Stopped,
                    }
                }
                error if is_passing(&error) => {}
                error => return Committed::Refused(error.to_string()),
            }
            if !stop.sleep(backoff.next()).await {
                return Committed::Stopped;
            }
        }
    }

    /// Reads the checkpoint until there is an answer; `None` when the run has to stop.
    async fn outcome(&self, commit: &Commit, stop: &mut Stop) -> Option<Outcome> {
        let mut backoff = self.function.core.backoff();
        loop {
            match self.function.core.hub.checkpoint_read(self.partition, &self.function.group).await {
                Ok(found) if found.epoch != self.epoch => return Some(Outcome::Fenced),
                Ok(found) => {
                    let is_applied = found.next.is_some_and(|next| next.0 >= commit.next);
                    return Some(if is_applied { Outcome::Applied } else { Outcome::Not });
                }
                Err(error) => {
                    tracing::debug!(%error, partition = %self.partition, "outcome of a commit is unknown")
                }
            }
            if !stop.sleep(backoff.next()).await {
                return None;
            }
        }
    }

    /// Changes that were refused for themselves don't keep the others back, and don't come again.
    fn note_refusals(&self, reply: DeviceReply) {
        let function = self.function;
        let errors = reply.replies.iter().filter_map(|reply| reply.error.as_ref());
        let mut count = 0;
        for error in errors {
            count += 1;
            let text = format!("an effect was refused: {}", error.text);
            function.core.say(&function.app.name, &function.spec.name, LogLevel::Warning, text);
        }
        if count > 0 {
            function.stats.effects_refused(count);
        }
    }
}

enum Outcome {
    Applied,
    Not,
    Fenced,
}
