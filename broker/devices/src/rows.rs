//! Stored rows, replicated commands and their replies, in prost's encoding (protobuf: field numbers
//! are never reused; a retired one stays listed as reserved in a comment).
//!
//! Used by [`crate::DeviceState`] (apply), [`crate::DeviceQuery`] (reads), and by the node, which
//! sends commands and replies between gateways and leaders in this same form.
//!
//! Row keys: an identity's key is `device`, or `device 0x00 module`; ids hold no zero byte, so a
//! device and its modules stand together. Numbers in keys are big-endian.

use bytes::Bytes;
use prost::Message;

/// Which device or module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct DeviceKey {
    /// The device's id.
    #[prost(string, tag = "1")]
    pub device: String,
    /// The module's id; empty for the device itself.
    #[prost(string, tag = "2")]
    pub module: String,
}

impl DeviceKey {
    /// A device.
    pub fn device(id: impl Into<String>) -> DeviceKey {
        DeviceKey { device: id.into(), module: String::new() }
    }

    /// A module of a device.
    pub fn module(device: impl Into<String>, module: impl Into<String>) -> DeviceKey {
        DeviceKey { device: device.into(), module: module.into() }
    }

    /// Whether it is a module.
    pub fn is_module(&self) -> bool {
        !self.module.is_empty()
    }

    /// The key of its rows.
    pub fn row_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.device.len() + 1 + self.module.len());
        key.extend_from_slice(self.device.as_bytes());
        if self.is_module() {
            key.push(0);
            key.extend_from_slice(self.module.as_bytes());
        }
        key
    }

    /// What the keys of rows begin with of which an identity has many.
    pub fn numbered_prefix(&self) -> Vec<u8> {
        let mut key = self.row_key();
        key.extend_from_slice(if self.is_module() { &[0] } else { &[0, 0] });
        key
    }

    /// The key of one of them.
    pub fn numbered(&self, number: u64) -> Vec<u8> {
        [self.numbered_prefix().as_slice(), &number.to_be_bytes()].concat()
    }

    /// `device` or `device/module`, as MQTT client ids and people write it.
    pub fn text(&self) -> String {
        match self.is_module() {
            true => format!("{}/{}", self.device, self.module),
            false => self.device.clone(),
        }
    }
}

/// How an identity proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AuthKind {
    /// A shared key that signs tokens.
    Sas = 0,
    /// A certificate with a known thumbprint.
    SelfSigned = 1,
    /// A certificate of a known authority, with the id as its common name.
    CertificateAuthority = 2,
    /// It can't connect by itself.
    None = 3,
}

/// Keys or thumbprints of an identity.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuthRow {
    /// Which of the following count.
    #[prost(enumeration = "AuthKind", tag = "1")]
    pub kind: i32,
    /// Base64, as it was given.
    #[prost(string, tag = "2")]
    pub primary_key: String,
    /// Base64, as it was given.
    #[prost(string, tag = "3")]
    pub secondary_key: String,
    /// Hex of SHA-1 or SHA-256, upper case.
    #[prost(string, tag = "4")]
    pub primary_thumbprint: String,
    /// Hex of SHA-1 or SHA-256, upper case.
    #[prost(string, tag = "5")]
    pub secondary_thumbprint: String,
}

/// What a service says of an identity. `DeviceRow` adds what the hub says.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceSpec {
    /// May not connect, send or receive.
    #[prost(bool, tag = "1")]
    pub disabled: bool,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub status_reason: String,
    /// How it proves itself.
    #[prost(message, required, tag = "3")]
    pub auth: AuthRow,
    /// An edge device.
    #[prost(bool, tag = "4")]
    pub edge: bool,
    /// Its place in a hierarchy of edge devices.
    #[prost(string, tag = "5")]
    pub device_scope: String,
    /// Parents in that hierarchy.
    #[prost(string, repeated, tag = "6")]
    pub parent_scopes: Vec<String>,
    /// For a module: who manages it.
    #[prost(string, tag = "7")]
    pub managed_by: String,
}

/// A device or module.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceRow {
    /// Which.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// What a service said of it.
    #[prost(message, required, tag = "2")]
    pub spec: DeviceSpec,
    /// Differs between an identity and a later one of the same name.
    #[prost(string, tag = "3")]
    pub generation: String,
    /// Grows by one with each change.
    #[prost(uint64, tag = "4")]
    pub etag: u64,
    /// When the status changed last; 0: never.
    #[prost(uint64, tag = "5")]
    pub status_changed_ms: u64,
    /// The entry that last changed what it may or how it proves itself: who checked a proof against
    /// an older one must check again.
    #[prost(uint64, tag = "6")]
    pub auth_version: u64,
    /// When it was made.
    #[prost(uint64, tag = "7")]
    pub created_ms: u64,
}

/// A twin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TwinRow {
    /// JSON text of an object.
    #[prost(bytes = "bytes", tag = "1")]
    pub tags: Bytes,
    /// A `fleetline_twins::Section`.
    #[prost(bytes = "bytes", tag = "2")]
    pub desired: Bytes,
    /// A `fleetline_twins::Section`.
    #[prost(bytes = "bytes", tag = "3")]
    pub reported: Bytes,
    /// Counts changes of tags and desired; from 1 on. Its etag is of this number.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// The last desired changes, oldest first, so that a gateway can hand on what it missed.
    #[prost(message, repeated, tag = "5")]
    pub recent: Vec<DesiredChange>,
    /// The model that the device announced last.
    #[prost(string, tag = "6")]
    pub model_id: String,
}

/// A change of a twin's desired properties.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DesiredChange {
    /// The version that it led to.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// The patch, or the whole document after a replacement: JSON text of an object.
    #[prost(bytes = "bytes", tag = "2")]
    pub patch: Bytes,
}

/// A subscription of a session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SubscriptionRow {
    /// The filter as the client spells it.
    #[prost(string, tag = "1")]
    pub filter: String,
    /// 0 or 1.
    #[prost(uint32, tag = "2")]
    pub qos: u32,
}

/// What is sent for a client whose connection breaks: telemetry.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WillRow {
    /// The property bag of its topic.
    #[prost(string, tag = "1")]
    pub bag: String,
    /// The payload.
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

/// Where a connection is.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ConnectionPlace {
    /// The node.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Differs each time the node's process starts.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Which of its connections.
    #[prost(uint64, tag = "3")]
    pub connection: u64,
}

/// The session of an identity.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionRow {
    /// The entry that opened it last: what is older is fenced.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// A connection has it.
    #[prost(bool, tag = "2")]
    pub connected: bool,
    /// Which one; the last one when it is not connected.
    #[prost(message, required, tag = "3")]
    pub place: ConnectionPlace,
    /// Ends with its connection.
    #[prost(bool, tag = "4")]
    pub clean: bool,
    /// Survive the connection unless it is clean.
    #[prost(message, repeated, tag = "5")]
    pub subscriptions: Vec<SubscriptionRow>,
    /// When `connected` changed last.
    #[prost(uint64, tag = "6")]
    pub changed_ms: u64,
    /// When it was heard of last, as far as stored.
    #[prost(uint64, tag = "7")]
    pub active_ms: u64,
    /// Sent when the connection breaks.
    #[prost(message, optional, tag = "8")]
    pub will: Option<WillRow>,
}

/// A fence: from here on, what an identity began before counts no more.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FenceRow {
    /// Whom.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its modules too.
    #[prost(bool, tag = "2")]
    pub with_modules: bool,
    /// The entry that did it: sessions with a lower epoch are over.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The fence's number; grows by one.
    #[prost(uint32, tag = "4")]
    pub number: u32,
}

/// The partition's counters.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DeviceHead {
    /// Devices (not modules).
    #[prost(uint64, tag = "1")]
    pub devices: u64,
    /// Of these, disabled.
    #[prost(uint64, tag = "2")]
    pub disabled: u64,
    /// Devices (not modules) with a connection.
    #[prost(uint64, tag = "3")]
    pub connected: u64,
    /// The last fence's number; 0 before the first.
    #[prost(uint32, tag = "4")]
    pub fence: u32,
    /// The oldest fence that is still listed.
    #[prost(uint32, tag = "5")]
    pub fence_oldest: u32,
    /// Sequence number of the next event.
    #[prost(uint64, tag = "6")]
    pub outbox_next: u64,
    /// Events below are records of the stream.
    #[prost(uint64, tag = "7")]
    pub outbox_done: u64,
    /// Feedback records that wait.
    #[prost(uint64, tag = "8")]
    pub feedback: u64,
    /// Documents.
    #[prost(uint64, tag = "9")]
    pub documents: u64,
}

/// A document.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DocumentRow {
    /// Grows with every change of any document of the partition.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// What its tier makes of it.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// When it was changed.
    #[prost(uint64, tag = "3")]
    pub changed_ms: u64,
}

/// Text and value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Property {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A system property, by `fleetline_iothub`'s number.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SystemPropertyRow {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Which outcomes of a command its sender wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AckMode {
    /// None.
    None = 0,
    /// Completed.
    Positive = 1,
    /// Everything else.
    Negative = 2,
    /// All.
    Full = 3,
}

/// A command (cloud-to-device message).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CommandRow {
    /// The entry that stored it; its sequence number.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// System properties.
    #[prost(message, repeated, tag = "2")]
    pub system: Vec<SystemPropertyRow>,
    /// Application properties.
    #[prost(message, repeated, tag = "3")]
    pub properties: Vec<Property>,
    /// The payload.
    #[prost(bytes = "bytes", tag = "4")]
    pub body: Bytes,
    /// When it was stored.
    #[prost(uint64, tag = "5")]
    pub enqueued_ms: u64,
    /// When it is too old.
    #[prost(uint64, tag = "6")]
    pub expires_ms: u64,
    /// How often it was given back on purpose.
    #[prost(uint32, tag = "7")]
    pub deliveries: u32,
    /// The token of its lock; empty when it has none.
    #[prost(string, tag = "8")]
    pub lock_token: String,
    /// When the lock ends.
    #[prost(uint64, tag = "9")]
    pub locked_until_ms: u64,
    /// What its sender wants to hear.
    #[prost(enumeration = "AckMode", tag = "10")]
    pub ack: i32,
    /// The sender's id for it.
    #[prost(string, tag = "11")]
    pub message_id: String,
}

/// A command queue's counters; there is no row for an empty queue.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct QueueRow {
    /// Commands in it.
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// When the first of them may be too old or unlocked; at or before that moment.
    #[prost(uint64, tag = "2")]
    pub next_expiry_ms: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Outcome {
    /// The device completed it.
    Success = 0,
    /// It was too old.
    Expired = 1,
    /// It was given back too often.
    DeliveryCountExceeded = 2,
    /// The device rejected it.
    Rejected = 3,
    /// A service purged it.
    Purged = 4,
}

/// A feedback record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FeedbackRow {
    /// Whose command it was.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The identity's generation.
    #[prost(string, tag = "2")]
    pub generation: String,
    /// The command's message id; may be empty.
    #[prost(string, tag = "3")]
    pub message_id: String,
    /// How it ended.
    #[prost(enumeration = "Outcome", tag = "4")]
    pub outcome: i32,
    /// When.
    #[prost(uint64, tag = "5")]
    pub time_ms: u64,
    /// The token of the lock that it is under; empty when none.
    #[prost(string, tag = "6")]
    pub lock_token: String,
    /// When the lock ends.
    #[prost(uint64, tag = "7")]
    pub locked_until_ms: u64,
    /// How often it was given out.
    #[prost(uint32, tag = "8")]
    pub deliveries: u32,
}

/// An event that becomes a record of the stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EventRow {
    /// The device that the record is of.
    #[prost(string, tag = "1")]
    pub device: String,
    /// When it happened.
    #[prost(uint64, tag = "2")]
    pub time_ms: u64,
    /// System properties.
    #[prost(message, repeated, tag = "3")]
    pub system: Vec<SystemPropertyRow>,
    /// Application properties.
    #[prost(message, repeated, tag = "4")]
    pub properties: Vec<Property>,
    /// The payload.
    #[prost(bytes = "bytes", tag = "5")]
    pub body: Bytes,
    /// The record's endpoint bits.
    #[prost(uint64, tag = "6")]
    pub endpoints: u64,
}

/// A file upload that was begun.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UploadRow {
    /// Its id.
    #[prost(string, tag = "1")]
    pub correlation_id: String,
    /// The object's name.
    #[prost(string, tag = "2")]
    pub blob: String,
    /// When it was begun.
    #[prost(uint64, tag = "3")]
    pub started_ms: u64,
    /// When it is forgotten.
    #[prost(uint64, tag = "4")]
    pub expires_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device, its modules and their numbered rows don't run into each other, nor into those of a
    /// device whose id begins alike.
    #[test]
    fn keys_are_apart() {
        let keys = [
            DeviceKey::device("a").row_key(),
            DeviceKey::device("a").numbered(1),
            DeviceKey::device("a").numbered(u64::MAX),
            DeviceKey::module("a", "m").row_key(),
            DeviceKey::module("a", "m").numbered(0),
            DeviceKey::module("a", "mm").row_key(),
            DeviceKey::device("aa").row_key(),
        ];
        let mut sorted = keys.to_vec();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, keys);
    }

    /// Rows are on disks: these bytes may not change.
    #[test]
    fn golden() {
        let row = FenceRow { key: DeviceKey::module("d", "m"), with_modules: true, index: 300, number: 7 };
        let hex: String = row.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0a060a016412016d100118ac022007");
    }
}
