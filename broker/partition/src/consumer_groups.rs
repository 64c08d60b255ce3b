//! Consumer groups, as members and operators ask for them.

use std::time::Duration;

use fleetline_native::HubError;
use fleetline_native::model::{CheckpointInfo, GroupAssignment, GroupDescription};
use fleetline_streams::{Assignment, Claimed, StreamCommand, StreamReply};
use fleetline_types::{MemberId, Offset, PartitionId};

use crate::liveness::MemberSession;
use crate::partition::{Partition, state_error, unexpected};

/// The shortest silence that a member may ask for.
const SESSION_MIN: Duration = Duration::from_secs(1);
/// The longest.
const SESSION_MAX: Duration = Duration::from_secs(30 * 60);

fn assigned(assignment: Assignment) -> GroupAssignment {
    GroupAssignment {
        member: assignment.member,
        generation: assignment.generation,
        owned: assignment.owned,
        revoking: assignment.revoking,
        session_timeout: Duration::from_millis(assignment.session_timeout_ms),
    }
}

fn claimed(claimed: Claimed) -> CheckpointInfo {
    CheckpointInfo {
        epoch: claimed.epoch,
        member: claimed.member,
        next: claimed.next,
        high_watermark: claimed.end,
    }
}

impl Partition {
    fn heard(&self, group: &str, member: MemberId) {
        self.liveness.lock().heard(group, member, self.parts.clock.monotonic());
    }

    /// Joins a consumer group that this partition coordinates.
    ///
    /// # Errors
    /// `NotLeader`, `Busy` at a bound, `Unknown`.
    pub async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError> {
        let name_end = client_name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 200).last();
        let command = StreamCommand::GroupJoin {
            group: group.to_owned(),
            member,
            client_name: client_name[..name_end.unwrap_or(0)].to_owned(),
            session_timeout_ms: session_timeout.clamp(SESSION_MIN, SESSION_MAX).as_millis() as u64,
        };
        match self.command(&command).await? {
            StreamReply::Assigned(assignment) => {
                self.heard(group, assignment.member);
                Ok(assigned(assignment))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// A sign of life of a member, with what it has released since. Without a release it costs no
    /// entry: only that this node still leads is confirmed.
    ///
    /// # Errors
    /// `NotFound` when it is no member (any more): it must join again.
    pub async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        if !released.is_empty() {
            let (group_name, released) = (group.to_owned(), released.to_vec());
            let command = StreamCommand::GroupRelease { group: group_name, member, released };
            let StreamReply::Assigned(assignment) = self.command(&command).await? else {
                return Err(HubError::Internal("release was answered by something else".to_owned()));
            };
            self.heard(group, member);
            return Ok(assigned(assignment));
        }
        self.barrier().await?;
        let state = self.query().consumer_group(group).map_err(state_error)?;
        let state = state.ok_or_else(|| HubError::NotFound(format!("consumer group {group}")))?;
        let assignment = state.assignment(member).map_err(crate::partition::stream_error)?;
        self.heard(group, member);
        Ok(assigned(assignment))
    }

    /// A member leaves.
    ///
    /// # Errors
    /// `NotLeader`, `NotFound`, `Unknown`.
    pub async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError> {
        let command = StreamCommand::GroupRemove { group: group.to_owned(), members: vec![member] };
        self.command(&command).await.map(drop)
    }

    /// Removes members that have been silent for too long. To be called about once a second; does
    /// nothing on a node that doesn't lead.
    pub async fn expire_members(&self) {
        if !self.parts.group.is_leader() {
            return;
        }
        let (_, term) = self.parts.group.leader();
        let groups = match self.query().consumer_groups() {
            Ok(groups) => groups,
            Err(error) => {
                tracing::error!(partition = %self.id(), %error, "consumer groups can't be read");
                return;
            }
        };
        let sessions = groups.iter().flat_map(|(name, group)| {
            group.members().map(move |(member, info)| MemberSession {
                group: name.clone(),
                member,
                timeout: Duration::from_millis(info.session_timeout_ms),
            })
        });
        let now = self.parts.clock.monotonic();
        let expired = self.liveness.lock().expired(term, sessions.collect(), now);
        for (group, members) in expired {
            tracing::info!(partition = %self.id(), group, ?members, "members were silent for too long");
            if let Err(error) = self.command(&StreamCommand::GroupRemove { group, members }).await {
                tracing::debug!(partition = %self.id(), %error, "expiry goes on at the next leader");
            }
        }
    }

    /// Describes a consumer group (linearizable).
    ///
    /// # Errors
    /// `NotLeader`, `NotFound`.
    pub async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        self.barrier().await?;
        let state = self.query().consumer_group(group).map_err(state_error)?;
        let state = state.ok_or_else(|| HubError::NotFound(format!("consumer group {group}")))?;
        let members =
            state.members().map(|(id, info)| (id, info.client_name.clone(), state.owned_by(id).collect()));
        let members = members.collect();
        Ok(GroupDescription { group: group.to_owned(), generation: state.generation(), members })
    }

    /// Names of the consumer groups that have claimed this partition.
    ///
    /// # Errors
    /// When the rows can't be read.
    pub fn group_list(&self) -> Result<Vec<String>, HubError> {
        self.query().checkpoint_names().map_err(state_error)
    }

    /// Takes this partition for a consumer group; lower epochs are fenced once this returns.
    ///
    /// # Errors
    /// `Fenced`, `NotLeader`, `Unknown`.
    pub async fn claim(&self, group: &str, member: MemberId, epoch: u64) -> Result<CheckpointInfo, HubError> {
        match self.command(&StreamCommand::Claim { group: group.to_owned(), member, epoch }).await? {
            StreamReply::Claimed(reply) => Ok(claimed(reply)),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Stores a checkpoint.
    ///
    /// # Errors
    /// `Fenced`, `NotFound` without a claim, `Invalid` behind the end, `NotLeader`, `Unknown`.
    pub async fn checkpoint(&self, group: &str, epoch: u64, next: Offset) -> Result<(), HubError> {
        self.command(&StreamCommand::Checkpoint { group: group.to_owned(), epoch, next }).await.map(drop)
    }

    /// Reads a checkpoint (linearizable).
    ///
    /// # Errors
    /// `NotLeader`.
    pub async fn checkpoint_read(&self, group: &str) -> Result<CheckpointInfo, HubError> {
        self.barrier().await?;
        self.query().checkpoint(group).map(claimed).map_err(state_error)
    }
}
