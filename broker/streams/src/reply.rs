//! Replies to commands, and the form in which they pass through the group.
//!
//! Replies live only between a leader's state machine and its caller (or a forwarding peer of a
//! possibly other release), so they have a version but no history.

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{MemberId, Offset, PartitionId, TimestampMs};

use crate::command::optional;
use crate::consumer_group::Assignment;
use crate::error::StreamError;

/// Bytes of an error's text.
const TEXT_BYTES_MAX: usize = 4096;
/// Partitions in one assignment.
const PARTITIONS_MAX: usize = 1 << 16;

/// What a claim answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The epoch that is valid now.
    pub epoch: u64,
    /// Who has it.
    pub member: MemberId,
    /// Where to go on; `None` before the first checkpoint.
    pub next: Option<Offset>,
    /// One behind the last record.
    pub end: Offset,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamReply {
    /// The batch is stored.
    Appended {
        /// Offset of its first record.
        base_offset: Offset,
        /// When it was enqueued.
        enqueued: TimestampMs,
        /// It had been stored before.
        duplicate: bool,
    },
    /// What the member has.
    Assigned(Assignment),
    /// The partition is claimed.
    Claimed(Claimed),
    /// Done.
    Done,
    /// Nothing was changed.
    Refused(StreamError),
}

impl StreamReply {
    /// The passing form.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32);
        let mut w = Writer::new(&mut out);
        w.u8(1);
        match self {
            StreamReply::Appended { base_offset, enqueued, duplicate } => {
                w.u8(1).varint(base_offset.0).varint(enqueued.0).flag(*duplicate);
            }
            StreamReply::Assigned(assignment) => {
                w.u8(2).varint(assignment.member.0).varint(assignment.generation);
                w.varint(assignment.session_timeout_ms).varint(assignment.owned.len() as u64);
                for (partition, epoch) in &assignment.owned {
                    w.varint(u64::from(partition.0)).varint(*epoch);
                }
                w.varint(assignment.revoking.len() as u64);
                for partition in &assignment.revoking {
                    w.varint(u64::from(partition.0));
                }
            }
            StreamReply::Claimed(claimed) => {
                w.u8(3).varint(claimed.epoch).varint(claimed.member.0).flag(claimed.next.is_some());
                w.varint(claimed.next.unwrap_or_default().0).varint(claimed.end.0);
            }
            StreamReply::Done => {
                w.u8(4);
            }
            StreamReply::Refused(error) => {
                w.u8(5);
                write_error(&mut w, error);
            }
        }
        out.into()
    }

    /// Reads the passing form.
    ///
    /// # Errors
    /// When the bytes have another form.
    pub fn decode(bytes: &[u8]) -> Result<StreamReply, DecodeError> {
        let mut r = Reader::new(bytes);
        let found = r.u8("reply version")?;
        if found != 1 {
            let found = u32::from(found);
            return Err(DecodeError::UnknownVersion { what: "stream reply", found, highest: 1 });
        }
        let reply = match r.u8("reply kind")? {
            1 => StreamReply::Appended {
                base_offset: Offset(r.varint("base offset")?),
                enqueued: TimestampMs(r.varint("enqueued")?),
                duplicate: r.flag("duplicate")?,
            },
            2 => StreamReply::Assigned(read_assignment(&mut r)?),
            3 => {
                let (epoch, member) = (r.varint("epoch")?, MemberId(r.varint("member")?));
                let next = optional(&mut r, "next")?.map(Offset);
                let end = Offset(r.varint("end")?);
                StreamReply::Claimed(Claimed { epoch, member, next, end })
            }
            4 => StreamReply::Done,
            5 => StreamReply::Refused(read_error(&mut r)?),
            kind => return Err(DecodeError::UnknownKind { what: "stream reply", found: u32::from(kind) }),
        };
        r.finish("stream reply")?;
        Ok(reply)
    }
}

fn read_assignment(r: &mut Reader<'_>) -> Result<Assignment, DecodeError> {
    let mut assignment = Assignment {
        member: MemberId(r.varint("member")?),
        generation: r.varint("generation")?,
        session_timeout_ms: r.varint("session time-out")?,
        ..Assignment::default()
    };
    for _ in 0..r.count("owned", PARTITIONS_MAX, 2)? {
        assignment.owned.push((PartitionId(r.varint_u32("partition")?), r.varint("epoch")?));
    }
    for _ in 0..r.count("revoking", PARTITIONS_MAX, 1)? {
        assignment.revoking.push(PartitionId(r.varint_u32("partition")?));
    }
    Ok(assignment)
}

fn write_error(w: &mut Writer<'_, Vec<u8>>, error: &StreamError) {
    let cut = |text: &str| text.chars().take(TEXT_BYTES_MAX / 4).collect::<String>();
    match error {
        StreamError::Fenced { what, current, given } => {
            w.u8(1).text(&cut(what)).varint(*current).varint(*given);
        }
        StreamError::OutOfSequence { expected, given } => {
            w.u8(2).varint(*expected).varint(*given);
        }
        StreamError::NotFound(what) => {
            w.u8(3).text(&cut(what));
        }
        StreamError::Invalid(what) => {
            w.u8(4).text(&cut(what));
        }
        StreamError::Limit(what) => {
            w.u8(5).text(&cut(what));
        }
    }
}

fn read_error(r: &mut Reader<'_>) -> Result<StreamError, DecodeError> {
    let text = |r: &mut Reader<'_>| Ok(r.text("error text", TEXT_BYTES_MAX)?.to_owned());
    Ok(match r.u8("error kind")? {
        1 => StreamError::Fenced { what: text(r)?, current: r.varint("current")?, given: r.varint("given")? },
        2 => StreamError::OutOfSequence { expected: r.varint("expected")?, given: r.varint("given")? },
        3 => StreamError::NotFound(text(r)?),
        4 => StreamError::Invalid(text(r)?),
        5 => StreamError::Limit(text(r)?),
        kind => return Err(DecodeError::UnknownKind { what: "stream error", found: u32::from(kind) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reply comes back as it went.
    #[test]
    fn round_trip() {
        let errors = [
            StreamError::Fenced { what: "x".into(), current: 3, given: 2 },
            StreamError::OutOfSequence { expected: 9, given: 10 },
            StreamError::NotFound("member 3".into()),
            StreamError::Invalid("é".repeat(4000)),
            StreamError::Limit("y".into()),
        ];
        let mut replies: Vec<StreamReply> = errors.into_iter().map(StreamReply::Refused).collect();
        replies.push(StreamReply::Done);
        replies.push(StreamReply::Appended {
            base_offset: Offset(5),
            enqueued: TimestampMs(6),
            duplicate: true,
        });
        replies.push(StreamReply::Claimed(Claimed { next: Some(Offset(0)), ..Claimed::default() }));
        replies.push(StreamReply::Assigned(Assignment {
            member: MemberId(1),
            generation: 2,
            owned: vec![(PartitionId(3), 4)],
            revoking: vec![PartitionId(5)],
            session_timeout_ms: 6,
        }));
        for reply in replies {
            let back = StreamReply::decode(&reply.encode()).unwrap();
            match (&back, &reply) {
                (
                    StreamReply::Refused(StreamError::Invalid(cut)),
                    StreamReply::Refused(StreamError::Invalid(whole)),
                ) => {
                    assert!(whole.starts_with(cut.as_str()));
                }
                _ => assert_eq!(back, reply),
            }
        }
    }
}
