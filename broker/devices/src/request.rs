//! What gateways ask the leader of a partition about its devices, and what it answers; both in prost's
//! encoding, for the case that the leader is another node. They live between nodes of neighbouring
//! releases only, never on disk.

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::command::{DeviceCommand, DeviceReply, ErrorReply, OpenSession};
use crate::commit::Commit;
use crate::rows::{
    CommandRow, ConnectionPlace, DesiredChange, DeviceHead, DeviceKey, DeviceRow, DocumentRow, FenceRow,
    SessionRow, TwinRow,
};

/// How an identity proves itself to the leader that has its keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Proof {
    /// What it shows.
    #[prost(oneof = "Shown", tags = "1, 2, 3")]
    pub shown: Option<Shown>,
}

/// What is shown as proof.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Shown {
    /// A token signed with a key of the identity itself; its resource and expiry were checked by the
    /// gateway.
    #[prost(string, tag = "1")]
    Token(String),
    /// A certificate whose private key the peer has proved to have.
    #[prost(message, tag = "2")]
    Certificate(CertificateProof),
    /// The gateway has checked a policy's token, or a service acts.
    #[prost(bool, tag = "3")]
    Policy(bool),
}

/// A certificate as the leader judges it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CertificateProof {
    /// Thumbprint, hex, upper case.
    #[prost(string, tag = "1")]
    pub sha1: String,
    /// Thumbprint, hex, upper case.
    #[prost(string, tag = "2")]
    pub sha256: String,
    /// Its subject's common name.
    #[prost(string, tag = "3")]
    pub common_name: String,
    /// It chains up to an authority of the hub, now.
    #[prost(bool, tag = "4")]
    pub chained: bool,
}

/// Which identity, and from where to go on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ask {
    /// Which identity.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its session; 0 for a service.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// A sequence number or version: only what is behind it.
    #[prost(uint64, tag = "3")]
    pub after: u64,
    /// At the most.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// Opens a session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Connect {
    /// The session; `auth_version` is filled in by the leader.
    #[prost(message, required, tag = "1")]
    pub open: OpenSession,
    /// The identity's proof.
    #[prost(message, required, tag = "2")]
    pub proof: Proof,
}

/// Checks a proof.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Verify {
    /// Whose.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its proof.
    #[prost(message, required, tag = "2")]
    pub proof: Proof,
}

/// Lists identities.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct List {
    /// The key to begin at.
    #[prost(bytes = "bytes", tag = "1")]
    pub from: Bytes,
    /// At the most.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
    /// Only modules of this device; empty: all.
    #[prost(string, tag = "3")]
    pub device: String,
}

/// A gateway says that it is there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GatewaySync {
    /// Its node and incarnation (the connection is 0): sessions of earlier incarnations are over.
    #[prost(message, required, tag = "1")]
    pub place: ConnectionPlace,
}

/// Reads documents.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AskDocuments {
    /// One document's name, or what the names begin with.
    #[prost(string, tag = "1")]
    pub name: String,
    /// All whose names begin so; else only the one.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// The name to begin at.
    #[prost(string, tag = "3")]
    pub from: String,
    /// At the most.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// A document with its name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NamedDocument {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The document.
    #[prost(message, required, tag = "2")]
    pub row: DocumentRow,
}

/// A question.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceRequest {
    /// What.
    #[prost(oneof = "Request", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub request: Option<Request>,
}

/// What is asked.
#[derive(Clone, PartialEq, Oneof)]
pub enum Request {
    /// Propose a command; answered by `reply`.
    #[prost(message, tag = "1")]
    Change(DeviceCommand),
    /// Answered by `reply` with an opened session, and `device`.
    #[prost(message, tag = "2")]
    Connect(Connect),
    /// Answered by `verified`.
    #[prost(message, tag = "3")]
    Verify(Verify),
    /// Identity, twin and session; answered by `views` (one or none).
    #[prost(message, tag = "4")]
    Get(Ask),
    /// Answered by `views` and `next`.
    #[prost(message, tag = "5")]
    List(List),
    /// Commands behind a sequence number; answered by `commands`.
    #[prost(message, tag = "6")]
    Commands(Ask),
    /// Desired changes behind a version; answered by `changes`, or by a view when some are forgotten.
    #[prost(message, tag = "7")]
    Desired(Ask),
    /// Fences behind a number (`after`); answered by `fences`.
    #[prost(message, tag = "8")]
    Fences(Ask),
    /// Answered by `head`.
    #[prost(bool, tag = "9")]
    Head(bool),
    /// Answered by `head`.
    #[prost(message, tag = "10")]
    Sync(GatewaySync),
    /// Propose a commit; answered by `committed`.
    #[prost(message, tag = "11")]
    Commit(Commit),
    /// Answered by `documents`.
    #[prost(message, tag = "12")]
    Documents(AskDocuments),
}

/// An identity with all that belongs to it.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceView {
    /// The identity.
    #[prost(message, required, tag = "1")]
    pub device: DeviceRow,
    /// Its twin.
    #[prost(message, required, tag = "2")]
    pub twin: TwinRow,
    /// Its session.
    #[prost(message, optional, tag = "3")]
    pub session: Option<SessionRow>,
    /// Commands that wait for it.
    #[prost(uint32, tag = "4")]
    pub commands: u32,
}

/// A proof was good.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Verified {
    /// The version of the credentials that it was checked against.
    #[prost(uint64, tag = "1")]
    pub auth_version: u64,
    /// The identity's generation.
    #[prost(string, tag = "2")]
    pub generation: String,
    /// Fences up to this number have been seen by the check.
    #[prost(uint32, tag = "3")]
    pub fence: u32,
    /// Nothing applied later has been seen by the check; in the scale of session epochs.
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    /// How the identity proves itself ([`crate::AuthKind`]).
    #[prost(int32, tag = "5")]
    pub kind: i32,
    /// How it was proved this time ([`Proof::method`]).
    #[prost(string, tag = "6")]
    pub method: String,
}

impl Proof {
    /// How it is proved, as records keep it: short, because every record of a device has it. Who shows
    /// records to readers spells it out.
    pub fn method(&self) -> &'static str {
        match &self.shown {
            None => "",
            Some(Shown::Token(_)) => "s",
            Some(Shown::Policy(_)) => "p",
            Some(Shown::Certificate(_)) => "x",
        }
    }
}

/// An answer; which fields are set depends on the question.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceAnswer {
    /// Why there is none.
    #[prost(message, optional, tag = "1")]
    pub error: Option<ErrorReply>,
    /// What the command answered.
    #[prost(message, optional, tag = "2")]
    pub reply: Option<DeviceReply>,
    /// The proof was good.
    #[prost(message, optional, tag = "3")]
    pub verified: Option<Verified>,
    /// Identities.
    #[prost(message, repeated, tag = "4")]
    pub views: Vec<DeviceView>,
    /// Where the next page begins; empty at the end.
    #[prost(bytes = "bytes", tag = "5")]
    pub next: Bytes,
    /// Commands.
    #[prost(message, repeated, tag = "6")]
    pub commands: Vec<CommandRow>,
    /// Desired changes.
    #[prost(message, repeated, tag = "7")]
    pub changes: Vec<DesiredChange>,
    /// Fences.
    #[prost(message, repeated, tag = "8")]
    pub fences: Vec<FenceRow>,
    /// Fences that were asked for are not listed any more: look at every session.
    #[prost(bool, tag = "9")]
    pub fences_forgotten: bool,
    /// Counters.
    #[prost(message, optional, tag = "10")]
    pub head: Option<DeviceHead>,
    /// Documents, in the order of their names.
    #[prost(message, repeated, tag = "11")]
    pub documents: Vec<NamedDocument>,
    /// What each change of a commit answered.
    #[prost(message, optional, tag = "12")]
    pub committed: Option<DeviceReply>,
}
