//! Replicated inputs of a partition's devices, and what they answer.
//!
//! ```text
//! entry head = 0x40, version u8 = 1     entry body = DeviceCommand (prost)
//! ```
//!
//! The head's first byte tells a command for devices from one for the stream. Field numbers are never
//! reused. What a command can't be is checked before it is proposed ([`DeviceCommand::check`]) and
//! once more when it is applied; a command that this release doesn't know stops the replica.

use bytes::Bytes;
use fleetline_codec::DecodeError;
use prost::{Message, Oneof};

use crate::document::{Emit, PutDocument};
use crate::error::DeviceError;
use crate::limits;
use crate::rows::{
    CommandRow, ConnectionPlace, DeviceKey, DeviceSpec, EventRow, SessionRow, SubscriptionRow, UploadRow,
    WillRow,
};

/// The first byte of the head of an entry that holds a command for devices.
pub const HEAD_KIND: u8 = 0x40;
const VERSION: u8 = 1;

/// What a change is conditional on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Condition {
    /// See the constants.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// The etag's number, for [`Condition::TAG`].
    #[prost(uint64, tag = "2")]
    pub tag: u64,
}

impl Condition {
    /// It must not exist.
    pub const ABSENT: u32 = 0;
    /// It must exist.
    pub const ANY: u32 = 1;
    /// It must exist with this etag.
    pub const TAG: u32 = 2;
    /// Always: made when it doesn't exist.
    pub const UPSERT: u32 = 3;

    /// It must not exist.
    pub fn absent() -> Condition {
        Condition { kind: Condition::ABSENT, tag: 0 }
    }

    /// It must exist.
    pub fn any() -> Condition {
        Condition { kind: Condition::ANY, tag: 0 }
    }

    /// It must exist with this etag.
    pub fn tag(tag: u64) -> Condition {
        Condition { kind: Condition::TAG, tag }
    }

    /// Always.
    pub fn upsert() -> Condition {
        Condition { kind: Condition::UPSERT, tag: 0 }
    }
}

/// Makes or changes a device or module.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutDevice {
    /// Which.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// What it shall be. Empty keys of a `Sas` identity keep what is there.
    #[prost(message, required, tag = "2")]
    pub spec: DeviceSpec,
    /// On what condition.
    #[prost(message, required, tag = "3")]
    pub condition: Condition,
    /// Keys for a new identity that brings none, drawn by the proposer; base64.
    #[prost(string, tag = "4")]
    pub new_primary_key: String,
    /// As above.
    #[prost(string, tag = "5")]
    pub new_secondary_key: String,
    /// For a new identity's twin: tags, JSON text; empty for none.
    #[prost(bytes = "bytes", tag = "6")]
    pub tags: Bytes,
    /// For a new identity's twin: desired properties, JSON text; empty for none.
    #[prost(bytes = "bytes", tag = "7")]
    pub desired: Bytes,
}

/// Removes a device with its modules, or a module.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeleteDevice {
    /// Which.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// On what condition.
    #[prost(message, required, tag = "2")]
    pub condition: Condition,
}

/// A service changes a twin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PatchTwin {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Patch (or new value) of the tags, JSON text of an object; empty for none.
    #[prost(bytes = "bytes", tag = "2")]
    pub tags: Bytes,
    /// Patch (or new value) of the desired properties; empty for none.
    #[prost(bytes = "bytes", tag = "3")]
    pub desired: Bytes,
    /// Replaces what is given instead of merging it.
    #[prost(bool, tag = "4")]
    pub replace: bool,
    /// On what condition on the twin's etag ([`Condition::ANY`] or [`Condition::TAG`]).
    #[prost(message, required, tag = "5")]
    pub condition: Condition,
}

/// A device changes its twin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PatchReported {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// JSON text of an object.
    #[prost(bytes = "bytes", tag = "3")]
    pub patch: Bytes,
    /// The version that it must have; 0 for any.
    #[prost(uint64, tag = "4")]
    pub if_version: u64,
}

/// A connection takes an identity's session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OpenSession {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The `auth_version` that its proof was checked against.
    #[prost(uint64, tag = "2")]
    pub auth_version: u64,
    /// Which connection.
    #[prost(message, required, tag = "3")]
    pub place: ConnectionPlace,
    /// Ends with the connection.
    #[prost(bool, tag = "4")]
    pub clean: bool,
    /// Sent when the connection breaks.
    #[prost(message, optional, tag = "5")]
    pub will: Option<WillRow>,
    /// The model that the device announces; empty for none.
    #[prost(string, tag = "6")]
    pub model_id: String,
    /// Begins without the old session's subscriptions.
    #[prost(bool, tag = "7")]
    pub fresh: bool,
}

/// A connection has ended.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CloseSession {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its session; another one isn't touched.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// It said good-bye: no will is sent.
    #[prost(bool, tag = "3")]
    pub graceful: bool,
}

/// Changes a session's subscriptions.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Subscribe {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Added or changed.
    #[prost(message, repeated, tag = "3")]
    pub add: Vec<SubscriptionRow>,
    /// Removed.
    #[prost(string, repeated, tag = "4")]
    pub remove: Vec<String>,
}

/// A service sends a command.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SendCommand {
    /// To whom.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The command; sequence, enqueued time, deliveries and lock are set by the hub, and the expiry
    /// when it is 0.
    #[prost(message, required, tag = "2")]
    pub command: CommandRow,
}

/// A device takes the oldest command that nobody has.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LockCommand {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The `auth_version` that its proof was checked against.
    #[prost(uint64, tag = "2")]
    pub auth_version: u64,
    /// The lock's token, drawn by the proposer.
    #[prost(string, tag = "3")]
    pub token: String,
    /// How long the lock holds.
    #[prost(uint64, tag = "4")]
    pub lock_ms: u64,
}

/// A device settles a command.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SettleCommand {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// By its lock's token; empty: by session and sequence number.
    #[prost(string, tag = "2")]
    pub token: String,
    /// The session.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The sequence number.
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    /// What becomes of it.
    #[prost(enumeration = "Settle", tag = "5")]
    pub settle: i32,
    /// With a token: the `auth_version` that the device's proof was checked against.
    #[prost(uint64, tag = "6")]
    pub auth_version: u64,
}

/// What a receiver does with what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Settle {
    /// Done with it.
    Complete = 0,
    /// Never again.
    Reject = 1,
    /// Later again.
    Abandon = 2,
}

/// A service throws a device's commands away.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PurgeCommands {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
}

/// Time has passed: commands of these queues that are too old end.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExpireCommands {
    /// Whose.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<DeviceKey>,
}

/// A service takes feedback records.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LockFeedback {
    /// The lock's token, drawn by the proposer.
    #[prost(string, tag = "1")]
    pub token: String,
    /// How long the lock holds.
    #[prost(uint64, tag = "2")]
    pub lock_ms: u64,
}

/// A service settles feedback records.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SettleFeedback {
    /// The lock's token.
    #[prost(string, tag = "1")]
    pub token: String,
    /// What becomes of them.
    #[prost(enumeration = "Settle", tag = "2")]
    pub settle: i32,
}

/// A device begins a file upload.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BeginUpload {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The `auth_version` that its proof was checked against.
    #[prost(uint64, tag = "2")]
    pub auth_version: u64,
    /// The upload; `started_ms` is set by the hub.
    #[prost(message, required, tag = "3")]
    pub upload: UploadRow,
}

/// A device ends a file upload.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FinishUpload {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// The `auth_version` that its proof was checked against.
    #[prost(uint64, tag = "2")]
    pub auth_version: u64,
    /// Which.
    #[prost(string, tag = "3")]
    pub correlation_id: String,
    /// The event that says so; empty body: none.
    #[prost(message, required, tag = "4")]
    pub event: EventRow,
}

/// Several changes in one entry, each answered for itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Bulk {
    /// They are applied in order; one that fails doesn't keep the next from being applied.
    #[prost(message, repeated, tag = "1")]
    pub ops: Vec<BulkItem>,
}

/// One of several changes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BulkItem {
    /// What to do.
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub op: Option<Op>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Oneof)]
#[allow(missing_docs, reason = "each variant holds the message of its name, documented there")]
pub enum Op {
    #[prost(message, tag = "1")]
    PutDevice(PutDevice),
    #[prost(message, tag = "2")]
    DeleteDevice(DeleteDevice),
    #[prost(message, tag = "3")]
    PatchTwin(PatchTwin),
    #[prost(message, tag = "4")]
    PatchReported(PatchReported),
    #[prost(message, tag = "5")]
    OpenSession(OpenSession),
    #[prost(message, tag = "6")]
    CloseSession(CloseSession),
    #[prost(message, tag = "7")]
    Subscribe(Subscribe),
    #[prost(message, tag = "8")]
    SendCommand(SendCommand),
    #[prost(message, tag = "9")]
    LockCommand(LockCommand),
    #[prost(message, tag = "10")]
    SettleCommand(SettleCommand),
    #[prost(message, tag = "11")]
    PurgeCommands(PurgeCommands),
    #[prost(message, tag = "12")]
    ExpireCommands(ExpireCommands),
    #[prost(message, tag = "13")]
    LockFeedback(LockFeedback),
    #[prost(message, tag = "14")]
    SettleFeedback(SettleFeedback),
    #[prost(message, tag = "15")]
    Bulk(Bulk),
    #[prost(message, tag = "16")]
    BeginUpload(BeginUpload),
    #[prost(message, tag = "17")]
    FinishUpload(FinishUpload),
    #[prost(message, tag = "18")]
    PutDocument(PutDocument),
    #[prost(message, tag = "19")]
    Emit(Emit),
}

/// A replicated command.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceCommand {
    /// The proposing leader's time.
    #[prost(uint64, tag = "20")]
    pub now_ms: u64,
    /// What to do.
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub op: Option<Op>,
}

impl DeviceCommand {
    /// A command; the leader that proposes it sets its time.
    pub fn new(op: Op) -> DeviceCommand {
        DeviceCommand { now_ms: 0, op: Some(op) }
    }

    /// The stored form: head and body of an entry.
    pub fn encode_entry(&self) -> (Bytes, Bytes) {
        (Bytes::from_static(&[HEAD_KIND, VERSION]), self.encode_to_vec().into())
    }

    /// Whether an entry with this head holds a command for devices.
    pub fn is_head(head: &[u8]) -> bool {
        head.first() == Some(&HEAD_KIND)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// For a version or a command that this release doesn't know, and for bytes of another form.
    pub fn decode_entry(head: &[u8], body: &[u8]) -> Result<DeviceCommand, DecodeError> {
        let unknown = |found: u8| DecodeError::UnknownVersion {
            what: "device command",
            found: found.into(),
            highest: 1,
        };
        match head {
            [HEAD_KIND, VERSION] => {}
            [HEAD_KIND, found, ..] => return Err(unknown(*found)),
            _ => return Err(DecodeError::Invalid { what: "device command", reason: "of another kind" }),
        }
        let command = DeviceCommand::decode(body)
            .map_err(|_| DecodeError::Invalid { what: "device command", reason: "malformed" })?;
        let known = |op: &Op| match op {
            Op::Bulk(bulk) => bulk.ops.iter().all(|item| item.op.is_some()),
            _ => true,
        };
        match command.op.as_ref().is_some_and(known) {
            true => Ok(command),
            // A later release's operation: skipping it would make replicas differ.
            false => Err(DecodeError::UnknownKind { what: "device command", found: 0 }),
        }
    }

    /// Checks bounds that don't depend on state.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn check(&self) -> Result<(), DeviceError> {
        let Some(op) = &self.op else {
            return Err(DeviceError::invalid("an empty command"));
        };
        check(op, true)
    }
}

fn check(op: &Op, may_nest: bool) -> Result<(), DeviceError> {
    let most = |what: &str, found: usize, limit: usize| match found > limit {
        true => Err(DeviceError::TooLarge(format!("{found} {what}, at most {limit} are allowed"))),
        false => Ok(()),
    };
    match op {
        Op::PutDevice(put) => {
            let spec = &put.spec;
            most("characters of the status reason", spec.status_reason.chars().count(), 128)?;
            most("parent scopes", spec.parent_scopes.len(), 16)?;
            let auth = &spec.auth;
            let keys = [&auth.primary_key, &auth.secondary_key];
            let thumbprints = [&auth.primary_thumbprint, &auth.secondary_thumbprint];
            let names = [&spec.device_scope, &spec.managed_by];
            for text in keys.into_iter().chain(thumbprints).chain(names).chain(&spec.parent_scopes) {
                most("bytes of a key or scope", text.len(), limits::TEXT_BYTES_MAX)?;
            }
            Ok(())
        }
        Op::Subscribe(subscribe) => {
            for filter in subscribe.add.iter().map(|added| &added.filter).chain(&subscribe.remove) {
                most("bytes of a filter", filter.len(), limits::TEXT_BYTES_MAX)?;
            }
            most("filters", subscribe.add.len() + subscribe.remove.len(), limits::FILTERS_MAX)
        }
        Op::OpenSession(open) => {
            most("bytes of the model id", open.model_id.len(), limits::TEXT_BYTES_MAX)?;
            most("bytes of the will", open.will.as_ref().map_or(0, Message::encoded_len), limits::MESSAGE_MAX)
        }
        Op::SendCommand(send) => {
            let CommandRow { system, properties, message_id, .. } = &send.command;
            most("properties", system.len().max(properties.len()), limits::PROPERTIES_MAX)?;
            most("bytes of a message id", message_id.len(), limits::TEXT_BYTES_MAX)?;
            most("bytes of a command", message_bytes(&send.command), limits::COMMAND_MAX)
        }
        Op::LockCommand(LockCommand { token, .. }) | Op::LockFeedback(LockFeedback { token, .. }) => {
            most("bytes of a token", token.len(), limits::TEXT_BYTES_MAX)?;
            match token.is_empty() {
                true => Err(DeviceError::invalid("a lock without a token")),
                false => Ok(()),
            }
        }
        Op::PutDocument(put) => put.check(),
        Op::Emit(emit) => emit.check(),
        Op::ExpireCommands(expire) => most("queues", expire.keys.len(), limits::BULK_MAX),
        Op::Bulk(_) if !may_nest => Err(DeviceError::invalid("changes inside of changes")),
        Op::Bulk(bulk) => {
            most("changes", bulk.ops.len(), limits::BULK_MAX)?;
            bulk.ops.iter().try_for_each(|item| match &item.op {
                Some(op) => check(op, false),
                None => Err(DeviceError::invalid("an empty change")),
            })
        }
        _ => Ok(()),
    }
}

/// Bytes of a message as limits count them: body, values of system properties, names and values of
/// application properties.
fn message_bytes(command: &CommandRow) -> usize {
    let system: usize = command.system.iter().map(|row| row.value.len()).sum();
    let application: usize = command.properties.iter().map(|row| row.name.len() + row.value.len()).sum();
    command.body.len() + system + application
}

/// A session as it was opened.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionOpened {
    /// The session, with its epoch and subscriptions.
    #[prost(message, required, tag = "1")]
    pub session: SessionRow,
    /// There was one to go on with.
    #[prost(bool, tag = "2")]
    pub present: bool,
    /// The desired properties' version, from which on changes are pushed.
    #[prost(uint64, tag = "3")]
    pub desired_version: u64,
}

/// What a command answers. Which fields are set depends on the command; `error` alone on refusal.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceReply {
    /// Why nothing was changed.
    #[prost(message, optional, tag = "1")]
    pub error: Option<ErrorReply>,
    /// The identity as it is now (put).
    #[prost(message, optional, tag = "2")]
    pub device: Option<crate::rows::DeviceRow>,
    /// It was made, not changed (put).
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// The twin as it is now (patch of tags and desired).
    #[prost(message, optional, tag = "4")]
    pub twin: Option<crate::rows::TwinRow>,
    /// The new version (patch of reported); a count (purge, settled feedback).
    #[prost(uint64, tag = "5")]
    pub number: u64,
    /// The opened session.
    #[prost(message, optional, tag = "6")]
    pub opened: Option<SessionOpened>,
    /// The command (lock), or that which was stored (send).
    #[prost(message, optional, tag = "7")]
    pub command: Option<CommandRow>,
    /// Locked feedback.
    #[prost(message, repeated, tag = "8")]
    pub feedback: Vec<crate::rows::FeedbackRow>,
    /// One reply a change (bulk).
    #[prost(message, repeated, tag = "9")]
    pub replies: Vec<DeviceReply>,
    /// The upload that was begun (finish).
    #[prost(message, optional, tag = "10")]
    pub upload: Option<UploadRow>,
}

/// A refusal in its passing form.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErrorReply {
    /// The number of a `fleetline_iothub::errors::ErrorCode`.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// For people.
    #[prost(string, tag = "2")]
    pub text: String,
}
