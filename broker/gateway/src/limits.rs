//! Every bound of the fronts, its default and its reason. All are checked before memory is taken,
//! and each has a metric that shows how near it is (`meters.rs`).

use std::time::Duration;

use fleetline_native::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};
use thiserror::Error;

/// Bounds of the QUIC front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicLimits {
    /// Connections at once. Beyond it new ones are refused. Default 10,000: services, not devices.
    pub connections_max: usize,
    /// Connections in their handshake, from addresses not yet proven, beyond which new ones must
    /// prove their address first (a QUIC retry: costs them a round trip, us no memory). Default 256.
    pub handshakes_max: usize,
    /// Streams at once on one connection. Default 512: append and read streams of 128 partitions
    /// and calls.
    pub streams_per_connection: u32,
    /// Bytes of the largest batch. Default 1 MiB: one batch is one entry of a Raft log.
    pub batch_bytes_max: usize,
    /// Batches of one append stream that may wait for the partition; beyond it the stream isn't
    /// read. Default 64.
    pub append_window_batches: usize,
    /// Bytes of those batches. Default 4 MiB. One batch may always be in the window.
    pub append_window_bytes: usize,
    /// Bytes that one read of the partition asks for. Default 1 MiB.
    pub read_bytes_max: u64,
    /// Credit in bytes that a reader may hold. Default 64 MiB; what it asks beyond is ignored.
    pub read_credit_bytes_max: u64,
    /// How long one read waits at the end of the stream before it is asked again. Default 10 s.
    pub read_wait: Duration,
    /// QUIC's window of one stream, in bytes. Default 2 MiB: a large batch, and then some.
    pub stream_window: u32,
    /// QUIC's window of one connection in each direction, in bytes: the most that it can make this
    /// node hold. Default 8 MiB.
    pub connection_window: u32,
    /// The same before the caller is known. Default 8 KiB.
    pub anonymous_window: u32,
    /// How long handshake and hello may take together. Default 10 s.
    pub hello_timeout: Duration,
    /// A connection without a sign of life for this long is closed. Default 15 s; clients send a
    /// keep-alive every 5 s.
    pub idle_timeout: Duration,
    /// Bytes of the largest UDP payload that path discovery tries. Default 1452 (Ethernet). On a
    /// jumbo network up to 6500: larger packets in a train of ten pass what the kernel takes.
    pub mtu_upper_bound: u16,
    /// Bytes of the UDP socket's buffers, as far as the kernel allows. Default 4 MiB.
    pub socket_buffer_bytes: usize,
}

impl Default for QuicLimits {
    fn default() -> QuicLimits {
        QuicLimits {
            connections_max: 10_000,
            handshakes_max: 256,
            streams_per_connection: 512,
            batch_bytes_max: 1024 * 1024,
            append_window_batches: 64,
            append_window_bytes: 4 * 1024 * 1024,
            read_bytes_max: 1024 * 1024,
            read_credit_bytes_max: 64 * 1024 * 1024,
            read_wait: Duration::from_secs(10),
            stream_window: 2 * 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            anonymous_window: 8 * 1024,
            hello_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15),
            mtu_upper_bound: 1452,
            socket_buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

impl QuicLimits {
    /// Bytes of the largest frame of a known caller: the largest batch and its head.
    pub fn frame_bytes_max(&self) -> usize {
        (self.batch_bytes_max + (FRAME_BYTES_MAX - BATCH_BYTES_MAX)).min(FRAME_BYTES_MAX)
    }

    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// The first bound that can't work.
    pub fn check(&self) -> Result<(), LimitError> {
        let rows: [(&'static str, u64, u64, u64); 10] = [
            ("connections_max", self.connections_max as u64, 1, 10_000_000),
            ("streams_per_connection", self.streams_per_connection.into(), 4, 1 << 20),
            ("batch_bytes_max", self.batch_bytes_max as u64, 1024, BATCH_BYTES_MAX as u64),
            ("append_window_batches", self.append_window_batches as u64, 1, 65_536),
            ("append_window_bytes", self.append_window_bytes as u64, 1, 1 << 30),
            ("read_bytes_max", self.read_bytes_max, 1, 1 << 30),
            ("stream_window", self.stream_window.into(), 16 * 1024, 1 << 30),
            ("connection_window", self.connection_window.into(), self.stream_window.into(), 1 << 30),
            ("anonymous_window", self.anonymous_window.into(), 4096, self.connection_window.into()),
            ("mtu_upper_bound", self.mtu_upper_bound.into(), 1200, 6500),
        ];
        for (name, found, min, max) in rows {
            if !(min..=max).contains(&found) {
                return Err(LimitError { name, found, min, max });
            }
        }
        Ok(())
    }
}

/// A bound that can't work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("limit {name} is {found}, set it between {min} and {max}")]
pub struct LimitError {
    /// Which bound.
    pub name: &'static str,
    /// Its value.
    pub found: u64,
    /// The least that works.
    pub min: u64,
    /// The most that works.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults fit each other; each bound outside its range is named.
    #[test]
    fn defaults_work_and_bad_values_are_named() {
        assert_eq!(QuicLimits::default().check(), Ok(()));
        let jumbo = QuicLimits { mtu_upper_bound: 9000, ..QuicLimits::default() };
        assert_eq!(jumbo.check().map_err(|e| (e.name, e.max)), Err(("mtu_upper_bound", 6500)));
        let small = QuicLimits { connection_window: 16, ..QuicLimits::default() };
        assert_eq!(small.check().map_err(|e| e.name), Err("connection_window"));
    }
}
