//! Commands of a partition, and their stored form.
//!
//! ```text
//! version u8 = 1 | kind u8 | fields, in the order below (integers as varints, text length-prefixed)
//! ```
//!
//! Kinds are never reused. A version or kind that this release doesn't know stops the replica. Names and
//! lists that are too long don't: whoever lets such a command into the log would stop all replicas by
//! it, for good. [`StreamCommand::check`] refuses them, before a proposal and again when applied.

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{LogIndex, MemberId, Offset, PartitionId, TimestampMs};

use crate::error::StreamError;
use crate::limits::{IDS_MAX, NAME_BYTES_MAX};

const VERSION: u8 = 1;
/// Bytes of a command's stored form, which is the head of a log entry: what decodes may be as long,
/// what is proposed stays below by [`StreamCommand::check`].
const HEAD_BYTES_MAX: usize = u16::MAX as usize;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamCommand {
    /// Append the batch that is the entry's body.
    Append {
        /// When the leader took it.
        time: TimestampMs,
    },
    /// Join a consumer group that this partition coordinates, or join again as `member`.
    GroupJoin {
        /// Which group.
        group: String,
        /// Who, when it was a member before.
        member: Option<MemberId>,
        /// A name for people.
        client_name: String,
        /// How long the member may be silent, in milliseconds.
        session_timeout_ms: u64,
    },
    /// A member has given up partitions that it was asked for.
    GroupRelease {
        /// Which group.
        group: String,
        /// Who.
        member: MemberId,
        /// What.
        released: Vec<PartitionId>,
    },
    /// Members leave, or have been silent for too long.
    GroupRemove {
        /// Which group.
        group: String,
        /// Who.
        members: Vec<MemberId>,
    },
    /// Take this partition for a consumer group.
    Claim {
        /// Which group.
        group: String,
        /// Who.
        member: MemberId,
        /// The epoch of the grant.
        epoch: u64,
    },
    /// Store a checkpoint of this partition.
    Checkpoint {
        /// Which group.
        group: String,
        /// The epoch of the claim.
        epoch: u64,
        /// The first record not yet processed.
        next: Offset,
    },
    /// Retention: forget everything before `first_kept`.
    Trim {
        /// Where the stream begins for the proposer; a trim from another place is stale.
        expected_start: Offset,
        /// The first record that stays; the first of its batch.
        first_kept: Offset,
        /// The entry that holds it.
        first_kept_entry: LogIndex,
        /// Bytes of the batches that go.
        freed_bytes: u64,
    },
}

impl StreamCommand {
    /// Checks what outsiders brought into the command: names and the length of lists. To be called
    /// before a proposal (so that no log entry is spent on it, and none is too long for the log).
    ///
    /// # Errors
    /// [`StreamError::Invalid`].
    pub fn check(&self) -> Result<(), StreamError> {
        match self {
            StreamCommand::Append { .. } | StreamCommand::Trim { .. } => Ok(()),
            StreamCommand::Claim { group, .. } | StreamCommand::Checkpoint { group, .. } => {
                check_group(group)
            }
            StreamCommand::GroupJoin { group, client_name, .. } => {
                check_group(group)?;
                check_most("bytes of the client's name", client_name.len(), NAME_BYTES_MAX)
            }
            StreamCommand::GroupRelease { group, released, .. } => {
                check_group(group)?;
                check_most("released partitions", released.len(), IDS_MAX)
            }
            StreamCommand::GroupRemove { group, members } => {
                check_group(group)?;
                check_most("removed members", members.len(), IDS_MAX)
            }
        }
    }

    /// The stored form. At most 65,535 bytes for a command that passes [`StreamCommand::check`].
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(48);
        let mut w = Writer::new(&mut out);
        w.u8(VERSION);
        match self {
            StreamCommand::Append { time } => {
                w.u8(1).varint(time.0);
            }
            StreamCommand::GroupJoin { group, member, client_name, session_timeout_ms } => {
                w.u8(2).text(group).flag(member.is_some()).varint(member.unwrap_or_default().0);
                w.text(client_name).varint(*session_timeout_ms);
            }
            StreamCommand::GroupRelease { group, member, released } => {
                w.u8(3).text(group).varint(member.0).varint(released.len() as u64);
                for partition in released {
                    w.varint(u64::from(partition.0));
                }
            }
            StreamCommand::GroupRemove { group, members } => {
                w.u8(4).text(group).varint(members.len() as u64);
                for member in members {
                    w.varint(member.0);
                }
            }
            StreamCommand::Claim { group, member, epoch } => {
                w.u8(5).text(group).varint(member.0).varint(*epoch);
            }
            StreamCommand::Checkpoint { group, epoch, next } => {
                w.u8(6).text(group).varint(*epoch).varint(next.0);
            }
            StreamCommand::Trim { expected_start, first_kept, first_kept_entry, freed_bytes } => {
                w.u8(7).varint(expected_start.0).varint(first_kept.0);
                w.varint(first_kept_entry.0).varint(*freed_bytes);
            }
        }
        out.into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// For a version or kind that this release doesn't know, and for bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<StreamCommand, DecodeError> {
        let mut r = Reader::new(bytes);
        let found = r.u8("command version")?;
        if found != VERSION {
            let (found, highest) = (u32::from(found), u32::from(VERSION));
            return Err(DecodeError::UnknownVersion { what: "stream command", found, highest });
        }
        let command = match r.u8("command kind")? {
            1 => StreamCommand::Append { time: TimestampMs(r.varint("time")?) },
            2 => {
                let group = name(&mut r)?;
                StreamCommand::GroupJoin {
                    group,
                    member: optional(&mut r, "member")?.map(MemberId),
                    client_name: name(&mut r)?,
                    session_timeout_ms: r.varint("session time-out")?,
                }
            }
            3 => {
                let (group, member) = (name(&mut r)?, MemberId(r.varint("member")?));
                let count = r.count("partitions", HEAD_BYTES_MAX, 1)?;
                let released = (0..count)
                    .map(|_| Ok(PartitionId(r.varint_u32("partition")?)))
                    .collect::<Result<_, _>>()?;
                StreamCommand::GroupRelease { group, member, released }
            }
            4 => {
                let group = name(&mut r)?;
                let count = r.count("members", HEAD_BYTES_MAX, 1)?;
                let members =
                    (0..count).map(|_| Ok(MemberId(r.varint("member")?))).collect::<Result<_, _>>()?;
                StreamCommand::GroupRemove { group, members }
            }
            5 => StreamCommand::Claim {
                group: name(&mut r)?,
                member: MemberId(r.varint("member")?),
                epoch: r.varint("epoch")?,
            },
            6 => StreamCommand::Checkpoint {
                group: name(&mut r)?,
                epoch: r.varint("epoch")?,
                next: Offset(r.varint("next")?),
            },
            7 => StreamCommand::Trim {
                expected_start: Offset(r.varint("expected start")?),
                first_kept: Offset(r.varint("first kept")?),
                first_kept_entry: LogIndex(r.varint("first kept entry")?),
                freed_bytes: r.varint("freed bytes")?,
            },
            kind => return Err(DecodeError::UnknownKind { what: "stream command", found: u32::from(kind) }),
        };
        r.finish("stream command")?;
        Ok(command)
    }
}

fn name(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(r.text("name", HEAD_BYTES_MAX)?.to_owned())
}

/// A flag and a number, which is zero when the flag says that there is none.
pub(crate) fn optional(r: &mut Reader<'_>, what: &'static str) -> Result<Option<u64>, DecodeError> {
    match (r.flag(what)?, r.varint(what)?) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        (false, _) => Err(DecodeError::Invalid { what, reason: "absent, but not zero" }),
    }
}

fn check_group(group: &str) -> Result<(), StreamError> {
    match group.is_empty() {
        true => Err(StreamError::Invalid("a consumer group's name is empty".to_owned())),
        false => check_most("bytes of the consumer group's name", group.len(), NAME_BYTES_MAX),
    }
}

fn check_most(what: &str, found: usize, limit: usize) -> Result<(), StreamError> {
    match found > limit {
        true => Err(StreamError::Invalid(format!("{found} {what}, at most {limit} are allowed"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use fleetline_codec::kit;
    use proptest::prelude::*;

    use super::*;

    fn samples() -> Vec<StreamCommand> {
        let group = || "readers".to_owned();
        vec![
            StreamCommand::Append { time: TimestampMs(1_700_000_000_000) },
            StreamCommand::GroupJoin {
                group: group(),
                member: Some(MemberId(9)),
                client_name: "c".into(),
                session_timeout_ms: 10_000,
            },
            StreamCommand::GroupRelease {
                group: group(),
                member: MemberId(9),
                released: vec![PartitionId(1), PartitionId(300)],
            },
            StreamCommand::GroupRemove { group: group(), members: vec![MemberId(9), MemberId(10)] },
            StreamCommand::Claim { group: group(), member: MemberId(9), epoch: 4 },
            StreamCommand::Checkpoint { group: group(), epoch: 4, next: Offset(1 << 40) },
            StreamCommand::Trim {
                expected_start: Offset(0),
                first_kept: Offset(100),
                first_kept_entry: LogIndex(7),
                freed_bytes: 1 << 33,
            },
        ]
    }

    /// Every command comes back as it went; a later version or an unknown kind is refused.
    #[test]
    fn round_trip() {
        for command in samples() {
            kit::assert_round_trip(&command, |command| command.encode().to_vec(), StreamCommand::decode);
            let bytes = command.encode();
            for (at, value) in [(0, 2), (1, 99)] {
                let mut other = bytes.to_vec();
                other[at] = value;
                assert!(StreamCommand::decode(&other).is_err());
            }
        }
    }

    /// The longest commands that pass the check fit the head of a log entry.
    #[test]
    fn checked_commands_fit_the_log() {
        let name = || "n".repeat(NAME_BYTES_MAX);
        let longest = [
            StreamCommand::GroupJoin {
                group: name(),
                member: Some(MemberId(u64::MAX)),
                client_name: name(),
                session_timeout_ms: u64::MAX,
            },
            StreamCommand::GroupRelease {
                group: name(),
                member: MemberId(u64::MAX),
                released: vec![PartitionId(u32::MAX); IDS_MAX],
            },
            StreamCommand::GroupRemove { group: name(), members: vec![MemberId(u64::MAX); IDS_MAX] },
        ];
        for command in longest {
            assert_eq!(command.check(), Ok(()));
            assert!(command.encode().len() <= HEAD_BYTES_MAX);
        }
    }

    /// Stored commands are in logs: these bytes may not change.
    #[test]
    fn golden() {
        let hex: Vec<String> = samples()
            .iter()
            .map(|command| command.encode().iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(hex[0], "010180d095ffbc31");
        assert_eq!(hex[4], "010507726561646572730904");
    }

    proptest! {
        /// Any bytes, alone or behind the beginning of a real command, are read or refused; what is
        /// read has one form.
        #[test]
        fn one_form(
            noise in prop::collection::vec(any::<u8>(), 0..60),
            sample in 0usize..7,
            keep in 0usize..30,
        ) {
            let encode = |command: &StreamCommand| command.encode().to_vec();
            kit::assert_one_form(&noise, StreamCommand::decode, encode);
            let mut bytes = samples()[sample].encode().to_vec();
            bytes.truncate(keep);
            bytes.extend(noise);
            kit::assert_one_form(&bytes, StreamCommand::decode, encode);
        }
    }
}
