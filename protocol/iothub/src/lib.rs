//! The IoT Hub protocol without I/O: tokens, topics, property bags, names, errors, JSON models.
//!
//! The MQTT, AMQP and HTTP front ends of `broker/gateway` call these modules to turn text of the public
//! SDKs into typed values and back; `broker/auth` calls [`sas`]. Nothing here opens a socket, reads a
//! clock or keeps state: time is an argument, and every function answers for the same input alike.
//!
//! Invariants:
//! 1. No input panics. What came from a peer is bounded before it is copied.
//! 2. [`topics::parse_publish`] and [`bag::parse_into`] borrow from the topic; they allocate only for a
//!    percent escape that really has to be decoded.
//! 3. Ids are compared byte by byte and never decoded twice, so `a%2Fb` and `a/b` stay two names.
//! 4. Secrets (keys, signatures) appear in no `Debug` output and in no error.
//!
//! Not here: who may do what (`broker/auth`), twin documents (`broker/twins`), MQTT and AMQP framing.
#![deny(missing_docs)]

pub mod bag;
pub mod connection_string;
pub mod errors;
pub mod limits;
pub mod model;
pub mod mqtt_login;
pub mod names;
mod percent;
pub mod sas;
pub mod time;
pub mod topics;
