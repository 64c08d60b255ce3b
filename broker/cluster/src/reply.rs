//! Replies of the control group.

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::NodeId;
use thiserror::Error;

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// No such node or partition.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It contradicts what is.
    #[error("{0}")]
    Refused(String),
    /// The placement has changed since.
    #[error("placement has epoch {current}, the command expects {expected}")]
    Stale {
        /// What it is.
        current: u64,
        /// What was expected.
        expected: u64,
    },
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlReply {
    /// Done.
    Done,
    /// The node's id.
    Node(NodeId),
    /// Nothing was changed.
    Refused(ControlError),
}

impl ControlReply {
    /// The passing form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![1];
        let mut w = Writer::new(&mut out);
        let cut = |text: &str| text.chars().take(1000).collect::<String>();
        match self {
            ControlReply::Done => w.u8(1),
            ControlReply::Node(node) => w.u8(2).varint(node.0),
            ControlReply::Refused(ControlError::NotFound(text)) => w.u8(3).text(&cut(text)),
            ControlReply::Refused(ControlError::Refused(text)) => w.u8(4).text(&cut(text)),
            ControlReply::Refused(ControlError::Stale { current, expected }) => {
                w.u8(5).varint(*current).varint(*expected)
            }
        };
        out.into()
    }

    /// Reads the passing form.
    ///
    /// # Errors
    /// When the bytes have another form.
    pub fn decode(bytes: &[u8]) -> Result<ControlReply, DecodeError> {
        let mut r = Reader::new(bytes);
        let found = r.u8("reply version")?;
        if found != 1 {
            let found = u32::from(found);
            return Err(DecodeError::UnknownVersion { what: "control reply", found, highest: 1 });
        }
        let text = |r: &mut Reader<'_>| Ok(r.text("reply text", 4096)?.to_owned());
        let reply = match r.u8("reply kind")? {
            1 => ControlReply::Done,
            2 => ControlReply::Node(NodeId(r.varint("node")?)),
            3 => ControlReply::Refused(ControlError::NotFound(text(&mut r)?)),
            4 => ControlReply::Refused(ControlError::Refused(text(&mut r)?)),
            5 => ControlReply::Refused(ControlError::Stale {
                current: r.varint("current")?,
                expected: r.varint("expected")?,
            }),
            kind => return Err(DecodeError::UnknownKind { what: "control reply", found: u32::from(kind) }),
        };
        r.finish("control reply")?;
        Ok(reply)
    }
}
