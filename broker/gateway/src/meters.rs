//! Metrics of the QUIC front, registered once. Gauges of what is bounded stand beside a gauge of
//! the bound (`…_max`), so that one can see how near it is.

use metrics::{Counter, Gauge, counter, gauge};

use crate::limits::QuicLimits;

/// Handles of all metrics; made once at start, so that the hot path looks nothing up.
pub(crate) struct Meters {
    /// Open connections.
    pub connections: Gauge,
    /// Connections whose hello has not been answered.
    pub handshakes: Gauge,
    /// Connections refused at the bound.
    pub refused: Counter,
    /// Connections asked to prove their address.
    pub retried: Counter,
    /// Connections closed because hello did not come in time.
    pub hello_timeouts: Counter,
    /// Connections closed because the peer broke the protocol.
    pub protocol_errors: Counter,
    /// Calls and streams refused for lack of access.
    pub forbidden: Counter,
    /// Open streams of all connections.
    pub streams: Gauge,
    /// Batches that wait for a partition, over all append streams.
    pub append_batches_in_flight: Gauge,
    /// Bytes of those batches.
    pub append_bytes_in_flight: Gauge,
    /// Times that an append stream was not read because its window was full.
    pub append_window_full: Counter,
    /// Batches taken from clients.
    pub append_batches: Counter,
    /// Bytes of those batches.
    pub append_bytes: Counter,
    /// Batches answered with an error.
    pub append_errors: Counter,
    /// Batches sent to readers.
    pub read_batches: Counter,
    /// Bytes of those batches.
    pub read_bytes: Counter,
    /// Times that a reader had used up its credit.
    pub read_credit_exhausted: Counter,
}

impl Meters {
    pub(crate) fn new(limits: &QuicLimits) -> Meters {
        gauge!("fleetline_quic_connections_max").set(limits.connections_max as f64);
        gauge!("fleetline_quic_handshakes_max").set(limits.handshakes_max as f64);
        gauge!("fleetline_quic_streams_per_connection_max").set(f64::from(limits.streams_per_connection));
        gauge!("fleetline_quic_append_window_batches_max").set(limits.append_window_batches as f64);
        gauge!("fleetline_quic_append_window_bytes_max").set(limits.append_window_bytes as f64);
        gauge!("fleetline_quic_connection_window_bytes_max").set(f64::from(limits.connection_window));
        Meters {
            connections: gauge!("fleetline_quic_connections"),
            handshakes: gauge!("fleetline_quic_handshakes"),
            refused: counter!("fleetline_quic_connections_refused_total"),
            retried: counter!("fleetline_quic_retries_total"),
            hello_timeouts: counter!("fleetline_quic_hello_timeouts_total"),
            protocol_errors: counter!("fleetline_quic_protocol_errors_total"),
            forbidden: counter!("fleetline_quic_forbidden_total"),
            streams: gauge!("fleetline_quic_streams"),
            append_batches_in_flight: gauge!("fleetline_quic_append_batches_in_flight"),
            append_bytes_in_flight: gauge!("fleetline_quic_append_bytes_in_flight"),
            append_window_full: counter!("fleetline_quic_append_window_full_total"),
            append_batches: counter!("fleetline_quic_append_batches_total"),
            append_bytes: counter!("fleetline_quic_append_bytes_total"),
            append_errors: counter!("fleetline_quic_append_errors_total"),
            read_batches: counter!("fleetline_quic_read_batches_total"),
            read_bytes: counter!("fleetline_quic_read_bytes_total"),
            read_credit_exhausted: counter!("fleetline_quic_read_credit_exhausted_total"),
        }
    }
}

/// Adds to a gauge and takes it back when dropped, however the owner ends.
pub(crate) struct Held {
    gauge: Gauge,
    amount: f64,
}

impl Held {
    pub(crate) fn one(gauge: &Gauge) -> Held {
        Held::new(gauge, 1.0)
    }

    pub(crate) fn new(gauge: &Gauge, amount: f64) -> Held {
        gauge.increment(amount);
        Held { gauge: gauge.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.decrement(self.amount);
    }
}
