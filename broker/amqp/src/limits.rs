//! Every bound of the front, with its default and its reason.

use std::time::Duration;

use fleetline_amqp::Limits;

/// Bounds of the AMQP front; those of one connection unless said otherwise.
#[derive(Clone, Debug)]
pub struct AmqpLimits {
    /// Bounds of the protocol.
    pub engine: Limits,
    /// Connections of the node at once.
    pub connections_max: usize,
    /// How long it may take until somebody has shown who it is.
    pub login_timeout: Duration,
    /// Tokens. One SDK pools 995 devices, each with its own.
    pub tokens_max: usize,
    /// Devices and modules with a session.
    pub devices_max: usize,
    /// Bytes that wait for a slow reader; beyond them nothing is sent and nothing is read from it.
    pub output_bytes_max: usize,
    /// Telemetry of a link that isn't acknowledged yet: only numbers are kept of it.
    pub telemetry_window: u32,
    /// Twin requests, answers to methods and token requests of a link that wait for their end.
    pub requests_window: u32,
    /// Commands of a service's link on their way.
    pub commands_window: u32,
    /// Events of a sender's link on their way.
    pub events_window: u32,
    /// Commands that a device has and hasn't settled.
    pub deliveries_max: usize,
    /// Receivers of events; each may hold [`AmqpLimits::read_bytes`].
    pub readers_max: usize,
    /// Bytes read of a partition at a time.
    pub read_bytes: u64,
    /// Links of services that receive feedback or file notifications.
    pub services_max: usize,
    /// How often a service's link looks for feedback or files.
    pub poll_interval: Duration,
    /// How often a receiver of events looks whether another node's has taken its place.
    pub owner_interval: Duration,
}

impl Default for AmqpLimits {
    fn default() -> AmqpLimits {
        AmqpLimits {
            engine: Limits::default(),
            connections_max: 100_000,
            login_timeout: Duration::from_secs(10),
            tokens_max: 4096,
            devices_max: 4096,
            output_bytes_max: 512 << 10,
            telemetry_window: 256,
            requests_window: 16,
            commands_window: 32,
            events_window: 64,
            deliveries_max: 16,
            readers_max: 64,
            read_bytes: 256 << 10,
            services_max: 16,
            poll_interval: Duration::from_secs(1),
            owner_interval: Duration::from_secs(2),
        }
    }
}
