//! Metrics of the peer transport: names, units, meaning. Handles are fetched once, at start.
//!
//! | Name | Unit | Meaning |
//! |---|---|---|
//! | `fleetline_peer_queue_bytes{lane}` | bytes | frames that wait to be written, over all peers |
//! | `fleetline_peer_queue_bytes_max{lane}` | bytes | the bound of that queue, per peer |
//! | `fleetline_peer_sent_bytes_total{lane}` | bytes | plaintext written |
//! | `fleetline_peer_sent_frames_total{lane}` | frames | requests and answers written |
//! | `fleetline_peer_received_bytes_total{lane}` | bytes | plaintext read |
//! | `fleetline_peer_received_frames_total{lane}` | frames | requests and answers read |
//! | `fleetline_peer_connects_total{lane}` | connections | connections made, the first one included |
//! | `fleetline_peer_reconnects_total{lane}` | connections | those made where there had been one before |
//! | `fleetline_peer_connect_failures_total{lane}` | attempts | attempts that failed |
//! | `fleetline_peer_answers_overflow_total{lane}` | connections | closed because the peer doesn't read its answers |
//! | `fleetline_peer_refused_total{reason}` | connections | connections that this node refused |
//! | `fleetline_peer_unauthenticated_connections` | connections | those that have not finished the handshake |
//! | `fleetline_peer_unauthenticated_connections_max` | connections | the bound of that number |

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

use crate::{Lane, RefusedReason};

/// Handles of one lane.
#[derive(Clone)]
pub(crate) struct LaneMetrics {
    pub queue_bytes: Gauge,
    pub sent_bytes: Counter,
    pub sent_frames: Counter,
    pub received_bytes: Counter,
    pub received_frames: Counter,
    pub connects: Counter,
    pub reconnects: Counter,
    pub connect_failures: Counter,
    pub answers_overflow: Counter,
}

/// Handles of a transport.
pub(crate) struct TransportMetrics {
    lanes: [LaneMetrics; Lane::ALL.len()],
    refused: [(Counter, AtomicU64); RefusedReason::ALL.len()],
    pub unauthenticated: Gauge,
}

impl TransportMetrics {
    pub(crate) fn new(queue_bytes_max: usize, unauthenticated_max: usize) -> TransportMetrics {
        gauge!("fleetline_peer_unauthenticated_connections_max").set(unauthenticated_max as f64);
        TransportMetrics {
            lanes: Lane::ALL.map(|lane| lane_metrics(lane, queue_bytes_max)),
            refused: RefusedReason::ALL.map(|reason| {
                (counter!("fleetline_peer_refused_total", "reason" => reason.label()), AtomicU64::new(0))
            }),
            unauthenticated: gauge!("fleetline_peer_unauthenticated_connections"),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneMetrics {
        &self.lanes[lane_index(lane)]
    }

    pub(crate) fn count_refused(&self, reason: RefusedReason) {
        let (counter, total) = &self.refused[reason as usize - 1];
        counter.increment(1);
        total.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, reason: RefusedReason) -> u64 {
        self.refused[reason as usize - 1].1.load(Ordering::Relaxed)
    }
}

/// The place of a lane in [`Lane::ALL`].
pub(crate) fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Append(number) => 1 + usize::from(number & 1),
        Lane::Bulk => 3,
    }
}

fn lane_metrics(lane: Lane, queue_bytes_max: usize) -> LaneMetrics {
    let lane = match lane {
        Lane::Control => "control",
        Lane::Append(0) => "append-0",
        Lane::Append(_) => "append-1",
        Lane::Bulk => "bulk",
    };
    gauge!("fleetline_peer_queue_bytes_max", "lane" => lane).set(queue_bytes_max as f64);
    LaneMetrics {
        queue_bytes: gauge!("fleetline_peer_queue_bytes", "lane" => lane),
        sent_bytes: counter!("fleetline_peer_sent_bytes_total", "lane" => lane),
        sent_frames: counter!("fleetline_peer_sent_frames_total", "lane" => lane),
        received_bytes: counter!("fleetline_peer_received_bytes_total", "lane" => lane),
        received_frames: counter!("fleetline_peer_received_frames_total", "lane" => lane),
        connects: counter!("fleetline_peer_connects_total", "lane" => lane),
        reconnects: counter!("fleetline_peer_reconnects_total", "lane" => lane),
        connect_failures: counter!("fleetline_peer_connect_failures_total", "lane" => lane),
        answers_overflow: counter!("fleetline_peer_answers_overflow_total", "lane" => lane),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every lane has a slot of its own, and reasons count apart.
    #[test]
    fn slots() {
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane_index(lane), place);
        }
        let metrics = TransportMetrics::new(1, 1);
        metrics.count_refused(RefusedReason::TooMany);
        assert_eq!(metrics.refused(RefusedReason::TooMany), 1);
        assert_eq!(metrics.refused(RefusedReason::Tls), 0);
    }
}
