//! Listeners and thin async shells: the native QUIC front and the HTTP operations port.
//!
//! A front turns bytes into the few requests of [`hub::Hub`] and its answers back into bytes. It
//! holds sockets and no truth: everything durable is behind the trait, which `broker/node`
//! implements. Fronts for devices use [`devices::hub::DeviceHub`] the same way, so a feature
//! is built and tested once.
//!
//! - [`quic`]: the native protocol (`protocol/native`) over QUIC.
//! - [`devices`]: what the fronts for devices share.
//! - [`mqtt`]: MQTT over TCP, TLS, WebSocket and QUIC.
//! - [`http`]: the device and service APIs over HTTPS.
//! - [`listen`], [`tls`]: sockets and handshakes of these two.
//! - [`tiers`]: what the other tiers of a node ask of the cluster.
//! - [`ops`]: metrics, health and status over HTTP.
//! - [`access`]: who is calling, and what they may ask for.
//! - [`limits`]: every bound of the fronts, with its default and its reason.
#![deny(missing_docs)]

pub mod access;
pub mod devices;
pub mod http;
pub mod hub;
pub mod limits;
pub mod listen;
mod meters;
pub mod mqtt;
pub mod ops;
pub mod quic;
pub mod tiers;
pub mod tls;
