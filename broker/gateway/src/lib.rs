//! Listeners and thin async shells: the native QUIC front and the HTTP operations port.
//!
//! A front turns bytes into the few requests of [`hub::Hub`] and its answers back into bytes. It
//! holds sockets and no truth: everything durable is behind the trait, which `broker/node`
//! implements. Every front (QUIC now; MQTT, AMQP, HTTPS later) uses the same trait, so a feature
//! is built and tested once.
//!
//! - [`quic`]: the native protocol (`protocol/native`) over QUIC.
//! - [`ops`]: metrics, health and status over HTTP.
//! - [`access`]: who is calling, and what they may ask for.
//! - [`limits`]: every bound of the fronts, with its default and its reason.
#![deny(missing_docs)]

pub mod access;
pub mod hub;
pub mod limits;
mod meters;
pub mod ops;
pub mod quic;
