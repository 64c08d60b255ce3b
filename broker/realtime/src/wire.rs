//! What nodes of the tier say to each other.
//!
//! Numbers of fields are never used again. Messages travel as target and JSON arguments; the node that gets
//! one writes it once for each protocol that its clients speak.

use bytes::Bytes;
use fleetline_signalr::{Encoded, Message as HubMessage};
use prost::{Message, Oneof};

use crate::fanout::{Action, Order, Target};
use crate::key::Key;
use crate::outgoing::Outgoing;

/// A question of one node to another.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Call {
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub(crate) ask: Option<Ask>,
}

/// What is asked.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Ask {
    /// To the owner of a directory, or of connections: see that these get there. Answered by `covered` and
    /// `missed`.
    #[prost(message, tag = "1")]
    Publish(Batch),
    /// To a node with members: hand these to them.
    #[prost(message, tag = "2")]
    Deliver(Batch),
    /// To the owner of a directory: I have members of these keys.
    #[prost(message, tag = "3")]
    Interest(InterestUpdate),
    /// To the former owner of a directory: you don't know any more what I have.
    #[prost(message, tag = "4")]
    Forget(Forget),
    /// To the owner of a directory: who has members of this key? Answered by `nodes` and `covered`.
    #[prost(message, tag = "5")]
    Targets(Targets),
    /// Put members into groups or take them out. Answered by `found`.
    #[prost(message, tag = "6")]
    Change(Change),
    /// Is it there? Answered by `found`.
    #[prost(message, tag = "7")]
    Look(Look),
    /// To the node that a connection's id names: I have it. Answered by `found` when another has it.
    #[prost(message, tag = "8")]
    Adopt(Adopt),
    /// A client's request, to the node that owns its connection. Answered by `reply`.
    #[prost(message, tag = "9")]
    Client(ClientRequest),
}

/// Orders, in the order of their origin.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Batch {
    /// The node that took them from a publisher.
    #[prost(uint64, tag = "1")]
    pub(crate) origin: u64,
    /// Differs each time that node's process starts.
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    /// Which lane of the origin they come through; numbers count per lane.
    #[prost(uint64, tag = "3")]
    pub(crate) lane: u64,
    /// The orders; numbers grow.
    #[prost(message, repeated, tag = "4")]
    pub(crate) orders: Vec<WireOrder>,
}

/// One order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireOrder {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// The key, unless it is for one connection.
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    /// The hub of the connection.
    #[prost(string, tag = "3")]
    pub(crate) hub: String,
    /// The connection.
    #[prost(string, tag = "4")]
    pub(crate) connection: String,
    #[prost(string, repeated, tag = "5")]
    pub(crate) excluded: Vec<String>,
    /// The message, unless connections are to be closed.
    #[prost(message, optional, tag = "6")]
    pub(crate) message: Option<WireMessage>,
    /// Why they are to be closed.
    #[prost(string, optional, tag = "7")]
    pub(crate) reason: Option<String>,
}

/// A message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireMessage {
    #[prost(string, tag = "1")]
    pub(crate) target: String,
    /// A JSON array.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) arguments: Bytes,
}

/// Keys that a node has members of.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InterestUpdate {
    #[prost(uint32, tag = "1")]
    pub(crate) partition: u32,
    /// The term of the leader that is told.
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) incarnation: u64,
    /// 0 begins anew; others follow on each other.
    #[prost(uint64, tag = "4")]
    pub(crate) number: u64,
    /// With this one, everything is told.
    #[prost(bool, tag = "5")]
    pub(crate) is_complete: bool,
    #[prost(string, repeated, tag = "6")]
    pub(crate) added: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(crate) removed: Vec<String>,
}

/// A node doesn't tell this owner any more.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Forget {
    #[prost(uint32, tag = "1")]
    pub(crate) partition: u32,
}

/// Who has members?
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Targets {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
}

/// A change of groups.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Change {
    #[prost(string, tag = "1")]
    pub(crate) hub: String,
    /// The user whose connections are meant, or
    #[prost(string, tag = "2")]
    pub(crate) user: String,
    /// the connection.
    #[prost(string, tag = "3")]
    pub(crate) connection: String,
    /// The group; empty: all groups.
    #[prost(string, tag = "4")]
    pub(crate) group: String,
    /// Put in; else take out.
    #[prost(bool, tag = "5")]
    pub(crate) is_add: bool,
    /// Until when a user is in the group (wall time in milliseconds).
    #[prost(uint64, tag = "6")]
    pub(crate) until_ms: u64,
    /// The asked node may ask the one that has the connection.
    #[prost(bool, tag = "7")]
    pub(crate) may_forward: bool,
}

/// Is it there?
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Look {
    #[prost(string, tag = "1")]
    pub(crate) hub: String,
    /// A key with a member, or
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    /// a connection, or
    #[prost(string, tag = "3")]
    pub(crate) connection: String,
    /// a user with a connection in
    #[prost(string, tag = "4")]
    pub(crate) user: String,
    /// this group.
    #[prost(string, tag = "5")]
    pub(crate) group: String,
}

/// A connection lives on another node than its id says.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Adopt {
    #[prost(string, tag = "1")]
    pub(crate) connection: String,
    /// It has ended.
    #[prost(bool, tag = "2")]
    pub(crate) is_over: bool,
}

/// A request of a client whose connection is on another node.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientRequest {
    /// 1 poll, 2 post, 3 delete.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(string, tag = "2")]
    pub(crate) connection: String,
    #[prost(string, tag = "3")]
    pub(crate) hub: String,
    #[prost(string, tag = "4")]
    pub(crate) user: String,
    #[prost(bool, tag = "5")]
    pub(crate) has_user: bool,
    #[prost(message, repeated, tag = "6")]
    pub(crate) claims: Vec<WireClaim>,
    #[prost(string, tag = "7")]
    pub(crate) query: String,
    /// Of a poll: it stands for a stream of events.
    #[prost(bool, tag = "8")]
    pub(crate) is_events: bool,
    /// Of a post.
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) body: Bytes,
    /// Of a poll for a stream of events: the first one.
    #[prost(bool, tag = "10")]
    pub(crate) is_first: bool,
    /// Time for its handshake, if its token says one.
    #[prost(uint64, tag = "11")]
    pub(crate) handshake_ms: u64,
    /// When it has to end (Unix seconds), if its token says so.
    #[prost(uint64, tag = "12")]
    pub(crate) close_at_secs: u64,
}

impl ClientRequest {
    pub(crate) const POLL: u32 = 1;
    pub(crate) const POST: u32 = 2;
    pub(crate) const DELETE: u32 = 3;
}

/// A claim of a token.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WireClaim {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// What a client's request is answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ClientReply {
    #[prost(uint32, tag = "1")]
    pub(crate) status: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) body: Bytes,
}

/// What a node answers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    /// See the constants.
    #[prost(uint32, tag = "1")]
    pub(crate) outcome: u32,
    /// Nodes that got what is for them, or for which there is nothing.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) covered: Vec<u64>,
    /// Numbers of orders whose connection isn't known.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) missed: Vec<u64>,
    /// Nodes that have members.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) nodes: Vec<u64>,
    #[prost(bool, tag = "5")]
    pub(crate) found: bool,
    #[prost(message, optional, tag = "6")]
    pub(crate) reply: Option<ClientReply>,
}

impl Answer {
    /// It was done.
    pub(crate) const DONE: u32 = 0;
    /// The asked node doesn't lead the partition in that term.
    pub(crate) const NOT_LEADER: u32 = 1;
    /// The update doesn't follow on what is known: tell everything.
    pub(crate) const AGAIN: u32 = 2;
    /// The asked node has too much to do, or the connection is in too many groups.
    pub(crate) const BUSY: u32 = 3;

    pub(crate) fn done() -> Answer {
        Answer::default()
    }

    pub(crate) fn not_done(outcome: u32) -> Answer {
        Answer { outcome, ..Answer::default() }
    }

    pub(crate) fn found(found: bool) -> Answer {
        Answer { found, ..Answer::default() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.outcome == Answer::DONE
    }
}

impl WireOrder {
    /// An order with its number.
    pub(crate) fn new(number: u64, order: &Order) -> WireOrder {
        let mut wire = WireOrder { number, excluded: order.excluded.to_vec(), ..WireOrder::default() };
        match &order.target {
            Target::Key(key) => wire.key = key.as_str().to_owned(),
            Target::Connection { hub, id } => {
                wire.hub = hub.to_string();
                wire.connection = id.to_string();
            }
        }
        match &order.action {
            Action::Send(message) => wire.message = message_of(message),
            Action::Close(reason) => wire.reason.clone_from(reason),
        }
        wire
    }

    /// The order; `None` when it can't be one.
    pub(crate) fn order(&self) -> Option<Order> {
        let target = match self.connection.is_empty() {
            true => Target::Key(Key::parse(&self.key)?),
            false => {
                Target::Connection { hub: self.hub.as_str().into(), id: self.connection.as_str().into() }
            }
        };
        let action = match &self.message {
            Some(message) => {
                let encoded = Encoded::invocation(&message.target, message.arguments.clone()).ok()?;
                Action::Send(Outgoing::new(encoded))
            }
            None => Action::Close(self.reason.clone()),
        };
        Some(Order { target, excluded: self.excluded.clone().into(), action })
    }
}

/// Only calls travel between nodes: whatever is published is one.
fn message_of(message: &Outgoing) -> Option<WireMessage> {
    match message.encoded().as_message() {
        HubMessage::Invocation(call) => {
            let arguments = call.arguments.array().to_json().unwrap_or_else(|_| Bytes::from_static(b"[]"));
            Some(WireMessage { target: call.target.clone(), arguments })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_way() {
        let message =
            Outgoing::new(Encoded::invocation("t", Bytes::from_static(b"[1,\"a\"]")).expect("json"));
        let order = Order {
            target: Target::Key(Key::group("chat", "g/1")),
            excluded: vec!["x".to_owned()].into(),
            action: Action::Send(message.clone()),
        };
        let bytes = WireOrder::new(7, &order).encode_to_vec();
        let back = WireOrder::decode(&bytes[..]).expect("bytes");
        assert_eq!(back.number, 7);
        let back = back.order().expect("order");
        assert_eq!((&back.target, &back.excluded), (&order.target, &order.excluded));
        let Action::Send(sent) = back.action else { panic!("not a message") };
        assert_eq!(sent.encoded().json(), message.encoded().json());

        let close = Order {
            target: Target::Connection { hub: "chat".into(), id: "c".into() },
            excluded: Vec::new().into(),
            action: Action::Close(None),
        };
        let back = WireOrder::new(8, &close).order().expect("order");
        assert!(matches!(back.action, Action::Close(None)));
        assert_eq!(back.target, close.target);
        assert!(WireOrder::default().order().is_none());
    }
}
