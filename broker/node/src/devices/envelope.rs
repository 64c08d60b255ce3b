//! Answers between nodes: an answer, or the error that the asked node has.

use bytes::Bytes;
use fleetline_devices::DeviceAnswer;
use fleetline_gateway::hub::{Appended, HubError};
use fleetline_types::{NodeId, Offset, TimestampMs};
use prost::Message;

/// An error in its passing form.
#[derive(Clone, PartialEq, Eq, Message)]
struct ErrorRow {
    /// Kinds are never reused; see `error_row`.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(uint64, tag = "3")]
    first: u64,
    #[prost(uint64, tag = "4")]
    second: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerRow {
    #[prost(message, optional, tag = "1")]
    error: Option<ErrorRow>,
    #[prost(message, optional, tag = "2")]
    answer: Option<DeviceAnswer>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct AppendedRow {
    #[prost(message, optional, tag = "1")]
    error: Option<ErrorRow>,
    #[prost(uint64, tag = "2")]
    base_offset: u64,
    #[prost(uint64, tag = "3")]
    enqueued: u64,
    #[prost(bool, tag = "4")]
    duplicate: bool,
    #[prost(uint32, tag = "5")]
    fence: u32,
}

pub(super) fn write_answer(answer: Result<DeviceAnswer, HubError>) -> Bytes {
    let row = match answer {
        Ok(answer) => AnswerRow { error: None, answer: Some(answer) },
        Err(error) => AnswerRow { error: Some(error_row(&error)), answer: None },
    };
    row.encode_to_vec().into()
}

pub(super) fn read_answer(bytes: &[u8]) -> Result<DeviceAnswer, HubError> {
    let row = AnswerRow::decode(bytes).map_err(|error| HubError::Unknown(error.to_string()))?;
    match (row.error, row.answer) {
        (Some(error), _) => Err(error_of(error)),
        (None, answer) => Ok(answer.unwrap_or_default()),
    }
}

pub(super) fn write_appended(appended: Result<(Appended, u32), HubError>) -> Bytes {
    let row = match appended {
        Ok((appended, fence)) => AppendedRow {
            error: None,
            base_offset: appended.base_offset.0,
            enqueued: appended.enqueued.0,
            duplicate: appended.duplicate,
            fence,
        },
        Err(error) => AppendedRow { error: Some(error_row(&error)), ..AppendedRow::default() },
    };
    row.encode_to_vec().into()
}

pub(super) fn read_appended(bytes: &[u8]) -> Result<(Appended, u32), HubError> {
    let row = AppendedRow::decode(bytes).map_err(|error| HubError::Unknown(error.to_string()))?;
    if let Some(error) = row.error {
        return Err(error_of(error));
    }
    let appended = Appended {
        base_offset: Offset(row.base_offset),
        enqueued: TimestampMs(row.enqueued),
        duplicate: row.duplicate,
    };
    Ok((appended, row.fence))
}

fn error_row(error: &HubError) -> ErrorRow {
    let row = |kind, text: &str, first, second| ErrorRow { kind, text: text.to_owned(), first, second };
    match error {
        HubError::NotLeader { what, leader } => row(1, what, leader.map_or(0, |node| node.0), 0),
        HubError::Unavailable(text) => row(2, text, 0, 0),
        HubError::Busy { reason, retry_after_ms } => row(3, reason, *retry_after_ms, 0),
        HubError::DiskFull(text) => row(4, text, 0, 0),
        HubError::Unknown(text) => row(5, text, 0, 0),
        HubError::NotFound(text) => row(6, text, 0, 0),
        HubError::OffsetGone { asked, start } => row(7, "", asked.0, start.0),
        HubError::OffsetBeyondEnd { asked, end } => row(8, "", asked.0, end.0),
        HubError::Fenced { what, current, given } => row(9, what, *current, *given),
        HubError::OutOfSequence { expected, given } => row(10, "", *expected, *given),
        HubError::Invalid(text) => row(11, text, 0, 0),
        HubError::Forbidden(text) => row(12, text, 0, 0),
        HubError::Internal(text) => row(13, text, 0, 0),
    }
}

fn error_of(row: ErrorRow) -> HubError {
    let ErrorRow { kind, text, first, second } = row;
    match kind {
        1 => HubError::NotLeader { what: text, leader: (first != 0).then_some(NodeId(first)) },
        2 => HubError::Unavailable(text),
        3 => HubError::Busy { reason: text, retry_after_ms: first },
        4 => HubError::DiskFull(text),
        6 => HubError::NotFound(text),
        7 => HubError::OffsetGone { asked: Offset(first), start: Offset(second) },
        8 => HubError::OffsetBeyondEnd { asked: Offset(first), end: Offset(second) },
        9 => HubError::Fenced { what: text, current: first, given: second },
        10 => HubError::OutOfSequence { expected: first, given: second },
        11 => HubError::Invalid(text),
        12 => HubError::Forbidden(text),
        13 => HubError::Internal(text),
        // 5, and what a later release may have: it may have been done.
        _ => HubError::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error comes back as it went; bytes of another form leave the outcome unknown.
    #[test]
    fn errors_round_trip() {
        let text = || "t".to_owned();
        let errors = [
            HubError::NotLeader { what: text(), leader: Some(NodeId(3)) },
            HubError::NotLeader { what: text(), leader: None },
            HubError::Unavailable(text()),
            HubError::Busy { reason: text(), retry_after_ms: 7 },
            HubError::DiskFull(text()),
            HubError::Unknown(text()),
            HubError::NotFound(text()),
            HubError::OffsetGone { asked: Offset(1), start: Offset(2) },
            HubError::OffsetBeyondEnd { asked: Offset(1), end: Offset(2) },
            HubError::Fenced { what: text(), current: 2, given: 1 },
            HubError::OutOfSequence { expected: 2, given: 1 },
            HubError::Invalid(text()),
            HubError::Forbidden(text()),
            HubError::Internal(text()),
        ];
        for error in errors {
            assert_eq!(read_answer(&write_answer(Err(error.clone()))), Err(error.clone()));
            assert_eq!(read_appended(&write_appended(Err(error.clone()))), Err(error));
        }
        assert!(matches!(read_answer(b"\xff\xff"), Err(HubError::Unknown(_))));
        let appended = Appended { base_offset: Offset(9), enqueued: TimestampMs(8), duplicate: true };
        assert_eq!(read_appended(&write_appended(Ok((appended, 4)))), Ok((appended, 4)));
    }
}
