//! The topics of IoT Hub over MQTT: what devices publish and subscribe to, and what we send them.
//!
//! The MQTT front end calls [`parse_publish`] for every PUBLISH, [`parse_filter`] for every SUBSCRIBE and
//! UNSUBSCRIBE, and the `*_topic` functions for what goes out. Topics of twins and methods carry no
//! device id; telemetry and commands do, and it must be the connection's own.
//!
//! Invariants:
//! 1. A connection reaches topics of its own identity only; ids are compared byte by byte, undecoded.
//! 2. Nothing that we send can be split wrongly: what callers put into a topic is escaped.
//! 3. A request id is echoed as it came.
//!
//! Not here: QoS, retained messages, what a bag says ([`crate::bag`]), payloads except that of errors.

mod filter;
mod publish;
mod send;

use thiserror::Error;

pub use self::filter::{Subscription, parse_filter, write_filter};
pub use self::publish::{DeviceTopic, parse_publish};
pub use self::send::{
    command_topic, desired_topic, error_body, input_topic, method_request_topic, twin_response_topic,
};

/// A topic or filter that this connection can't use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// Longer than MQTT can carry.
    #[error("topic has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// No topic of the protocol.
    #[error("topic is not one of this protocol")]
    Unknown,
    /// A topic of another device or module.
    #[error("topic belongs to another identity")]
    OtherIdentity,
    /// The request id (`$rid`) is missing, empty or too long.
    #[error("topic has no usable request id")]
    BadRequestId,
    /// The status of a method's answer is no number.
    #[error("topic has no usable status")]
    BadStatus,
    /// `$version` is no number.
    #[error("topic has no usable version")]
    BadVersion,
}
