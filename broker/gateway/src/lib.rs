//! Listeners and thin async shells: the native QUIC front and the HTTP operations port.
//!
//! A front turns bytes into the few requests of [`hub::Hub`] and its answers back into bytes. It
//! holds sockets and no truth: everything durable is behind the trait, which `broker/node`
//! implements. Every front (QUIC now; MQTT, AMQP, HTTPS later) uses the same trait, so a feature
//! is built and tested once.

pub mod hub;
