//! MQTT 3.1.1 and 5: packets to and from bytes.
//!
//! The gateway calls [`frame_len`] on what a socket has buffered, [`decode`] on a whole packet, and
//! [`encode`] to answer. The load generator uses the same functions the other way round, as a
//! client. Nothing is called from here: no sockets, no clock, no session.
//!
//! Invariants:
//! 1. Decoding borrows from the input and takes no memory; lists ([`FilterIter`], [`UserProperties`])
//!    are walked in place. What [`decode`] returns is valid throughout, so walking can't fail.
//! 2. Any bytes give a packet or a [`DecodeError`], never a panic, never a read over the end.
//! 3. Encoding appends to the caller's buffer and leaves it as it was on an error.
//! 4. A packet that only the other side may send is refused ([`Limits::sender`]).
//!
//! Clauses of the standards are quoted where they are met: `[MQTT-3.3.1-4]` is one of 3.1.1,
//! `[MQTT5-3.3.1-4]` one of 5 (`[MQTT3-8.3-4]` is printed so in 3.1.1). Not met, on purpose: a
//! remaining length that isn't in its shortest form is accepted (`[MQTT5-1.5.5-1]` binds the sender,
//! and 3.1.1 has no such rule).
//!
//! Not here: whether a packet is allowed now (packet ids in use, aliases, receive maximum), matching
//! of topics and filters, what a topic means to an IoT hub.
#![deny(missing_docs)]

mod acks;
mod connack;
mod connect;
mod disconnect;
pub mod encode;
mod error;
mod frame;
mod limits;
mod packet;
mod properties;
mod property_lists;
mod publish;
mod reader;
pub mod reason;
mod subscribe;
mod topic;
mod types;
mod unsubscribe;

pub use acks::Ack;
pub use connack::ConnAck;
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Auth;
pub use error::{DecodeError, EncodeError};
pub use frame::frame_len;
pub use limits::{Limits, Sender};
pub use packet::{Packet, PacketType, decode};
pub use property_lists::{SubscriptionIdIter, SubscriptionIds, UserProperties, UserPropertyIter};
pub use publish::{Publish, PublishProperties};
pub use subscribe::{FilterIter, RetainHandling, SubAck, Subscribe, SubscribeOptions};
pub use topic::{TopicError, split_shared, validate_topic_filter, validate_topic_name};
pub use types::{PacketId, QoS, Version};
pub use unsubscribe::{TopicFilterIter, UnsubAck, Unsubscribe};
