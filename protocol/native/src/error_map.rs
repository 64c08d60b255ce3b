//! The one table between [`HubError`] and its form on the wire.
//!
//! Both directions are generated from the same rows, so they cannot disagree. A code is never
//! reused; a variant's meaning never changes. The texts and numbers of an error travel in named
//! slots of [`proto::Error`] (`text`, `node`, `first`, `second`).

use fleetline_types::{NodeId, Offset};

use crate::error::HubError;
use crate::limits::ERROR_TEXT_BYTES_MAX;
use crate::proto;

macro_rules! table {
    ($($code:literal $variant:ident { $($field:tt : $slot:ident),* })*) => {
        /// The wire form of an error.
        pub fn to_wire(error: &HubError) -> proto::Error {
            match error {
                $(HubError::$variant { $($field: $slot),* } => proto::Error {
                    code: $code,
                    $($slot: Slot::put($slot),)*
                    ..proto::Error::default()
                },)*
            }
        }

        /// The error that a wire form stands for. A code that this version doesn't know becomes
        /// [`HubError::Unknown`]: whether the request happened can't be told.
        pub fn from_wire(wire: proto::Error) -> HubError {
            match wire.code {
                $($code => HubError::$variant { $($field: Slot::take(wire.$slot)),* },)*
                code => HubError::Unknown(format!("the node answered with unknown code {code}: {}", wire.text)),
            }
        }

        /// The number of an error on the wire, for metrics and logs.
        pub fn code(error: &HubError) -> u32 {
            match error {
                $(HubError::$variant { .. } => $code,)*
            }
        }

        /// A short stable name of an error, for metric labels.
        pub fn name(error: &HubError) -> &'static str {
            match error {
                $(HubError::$variant { .. } => stringify!($variant),)*
            }
        }

        /// All codes, for the test that walks them.
        #[cfg(test)]
        const CODES: &[u32] = &[$($code,)*];
    };
}

table! {
    1  NotLeader { what: text, leader: node }
    2  Unavailable { 0: text }
    3  Busy { reason: text, retry_after_ms: first }
    4  DiskFull { 0: text }
    5  Unknown { 0: text }
    6  NotFound { 0: text }
    7  OffsetGone { asked: first, start: second }
    8  OffsetBeyondEnd { asked: first, end: second }
    9  Fenced { what: text, current: first, given: second }
    10 OutOfSequence { expected: first, given: second }
    11 Invalid { 0: text }
    12 Forbidden { 0: text }
    13 Internal { 0: text }
}

/// How a field's type lies in a slot of the wire form.
trait Slot<W>: Sized {
    fn put(&self) -> W;
    fn take(wire: W) -> Self;
}

impl Slot<String> for String {
    fn put(&self) -> String {
        let mut end = self.len().min(ERROR_TEXT_BYTES_MAX);
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        self[..end].to_owned()
    }

    fn take(wire: String) -> String {
        wire
    }
}

impl Slot<u64> for u64 {
    fn put(&self) -> u64 {
        *self
    }

    fn take(wire: u64) -> u64 {
        wire
    }
}

impl Slot<u64> for Offset {
    fn put(&self) -> u64 {
        self.0
    }

    fn take(wire: u64) -> Offset {
        Offset(wire)
    }
}

impl Slot<Option<u64>> for Option<NodeId> {
    fn put(&self) -> Option<u64> {
        self.map(|node| node.0)
    }

    fn take(wire: Option<u64>) -> Option<NodeId> {
        wire.map(NodeId)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// One of each variant, every field with a value of its own.
    fn all() -> Vec<HubError> {
        vec![
            HubError::NotLeader { what: "p3".into(), leader: Some(NodeId(7)) },
            HubError::NotLeader { what: "p3".into(), leader: None },
            HubError::Unavailable("p1".into()),
            HubError::Busy { reason: "window".into(), retry_after_ms: 25 },
            HubError::DiskFull("3 MiB left".into()),
            HubError::Unknown("no answer in 5 s".into()),
            HubError::NotFound("p99".into()),
            HubError::OffsetGone { asked: Offset(5), start: Offset(9) },
            HubError::OffsetBeyondEnd { asked: Offset(50), end: Offset(9) },
            HubError::Fenced { what: "w1".into(), current: 4, given: 3 },
            HubError::OutOfSequence { expected: 8, given: 12 },
            HubError::Invalid("crc".into()),
            HubError::Forbidden("change needs an admin certificate".into()),
            HubError::Internal("bug".into()),
        ]
    }

    /// Every variant comes back equal through real wire bytes, and every code of the table was
    /// walked, each by one variant only.
    #[test]
    fn all_variants_both_ways() {
        let mut seen = Vec::new();
        for error in all() {
            let wire = to_wire(&error);
            assert_eq!(wire.code, code(&error));
            if seen.last() != Some(&wire.code) {
                seen.push(wire.code);
            }
            let back = proto::Error::decode(&wire.encode_to_vec()[..]).unwrap();
            assert_eq!(from_wire(back), error);
        }
        assert_eq!(seen, CODES);
    }

    /// A code from the future never looks like a definite failure.
    #[test]
    fn unknown_codes_are_unknown_outcomes() {
        let error = from_wire(proto::Error { code: 77, text: "new".into(), ..Default::default() });
        assert!(!error.is_definite());
    }

    /// A long text is cut at a character, so that an error always fits its frame.
    #[test]
    fn long_texts_are_cut() {
        let long = "ä".repeat(ERROR_TEXT_BYTES_MAX);
        assert_eq!(to_wire(&HubError::Internal(long)).text.len(), ERROR_TEXT_BYTES_MAX);
    }
}
