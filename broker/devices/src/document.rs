//! Documents: small values by name that the node's other tiers keep in a partition, beside the devices
//! that they are about: a function's keyed state, the groups of a realtime user.
//!
//! What a document holds is its tier's affair. Names begin with the tier's own word and a slash, so
//! that tiers can't meet. Versions grow over the whole partition: one that was deleted and made again
//! never has a version that it had before.
//!
//! Not here: expiry; a tier that needs it puts times into the value.

use bytes::Bytes;
use fleetline_state::{KeyKind, StateBatch};
use prost::Message;

use crate::apply::Applied;
use crate::command::{Condition, DeviceReply};
use crate::error::DeviceError;
use crate::limits;
use crate::rows::{DocumentRow, EventRow};
use crate::state::DeviceState;

/// Makes, changes or deletes a document.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutDocument {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value; ignored when it is deleted.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// On what condition; a tag is a version.
    #[prost(message, required, tag = "3")]
    pub condition: Condition,
    /// Delete it. One that isn't there is deleted, unless the condition says that it must be.
    #[prost(bool, tag = "4")]
    pub delete: bool,
}

impl PutDocument {
    /// Checks bounds that don't depend on state.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.name.is_empty() || self.name.len() > limits::DOCUMENT_NAME_MAX {
            let text = format!("a document's name has 1 to {} bytes", limits::DOCUMENT_NAME_MAX);
            return Err(DeviceError::invalid(text));
        }
        match self.value.len() > limits::DOCUMENT_BYTES_MAX {
            true => Err(DeviceError::TooLarge(format!(
                "document {} has {} bytes, at most {} are allowed",
                self.name,
                self.value.len(),
                limits::DOCUMENT_BYTES_MAX
            ))),
            false => Ok(()),
        }
    }
}

/// Puts an event into the outbox: it becomes a record of the partition's stream, exactly once.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Emit {
    /// The event; its time is that of the command when it has none.
    #[prost(message, required, tag = "1")]
    pub event: EventRow,
}

impl Emit {
    /// Checks bounds that don't depend on state.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let EventRow { device, system, properties, body, .. } = &self.event;
        let system_bytes: usize = system.iter().map(|row| row.value.len()).sum();
        let property_bytes: usize = properties.iter().map(|row| row.name.len() + row.value.len()).sum();
        let bytes = body.len() + system_bytes + property_bytes;
        if device.len() > limits::TEXT_BYTES_MAX
            || system.len().max(properties.len()) > limits::PROPERTIES_MAX
        {
            return Err(DeviceError::TooLarge("an event's device id or properties".to_owned()));
        }
        match bytes > limits::MESSAGE_MAX {
            true => {
                let text = format!("an event has {bytes} bytes, at most {} are allowed", limits::MESSAGE_MAX);
                Err(DeviceError::TooLarge(text))
            }
            false => Ok(()),
        }
    }
}

impl DeviceState {
    pub(crate) fn put_document(&mut self, put: &PutDocument, out: &mut StateBatch) -> Applied {
        let key = put.name.as_bytes().to_vec();
        let before: Option<DocumentRow> = self.row(KeyKind::Document, &key)?;
        let current = before.as_ref().map_or(0, |row| row.version);
        let wrong = |expected| {
            Err(DeviceError::Precondition { what: "version of the document", current, expected }.into())
        };
        match (put.condition.kind, &before) {
            (Condition::ABSENT, Some(_)) => return wrong(0),
            (Condition::ANY, None) => return wrong(1),
            (Condition::TAG, _) if current != put.condition.tag => return wrong(put.condition.tag),
            _ => {}
        }
        if put.delete {
            if before.is_some() {
                self.delete(out, KeyKind::Document, key);
                self.change_head(|head| head.documents = head.documents.saturating_sub(1));
            }
            return Ok(DeviceReply::default());
        }
        if before.is_none() {
            if self.head.documents >= limits::DOCUMENTS_MAX {
                let text = format!("a partition has at most {} documents", limits::DOCUMENTS_MAX);
                return Err(DeviceError::Limit(text).into());
            }
            self.change_head(|head| head.documents += 1);
        }
        let row = DocumentRow { version: self.at, value: put.value.clone(), changed_ms: self.now };
        self.put(out, KeyKind::Document, key, &row);
        Ok(DeviceReply { number: row.version, ..DeviceReply::default() })
    }

    pub(crate) fn emit_event(&mut self, emit: &Emit, out: &mut StateBatch) -> Applied {
        let mut event = emit.event.clone();
        if event.time_ms == 0 {
            event.time_ms = self.now;
        }
        self.emit(&event, out);
        Ok(DeviceReply::default())
    }
}
