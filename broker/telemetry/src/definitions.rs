//! Every metric of a node: name, kind, unit, meaning. Served with the values, so that a dashboard can be
//! made without reading the source.
//!
//! A figure of what is bounded stands beside its bound (`…_max`): alarm on the ratio. A test holds this
//! table against the source of all layers: what is measured is described, and nothing else.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only; alarm on its rate.
    Counter,
    /// A value of the moment.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// What it means.
    pub help: &'static str,
}

const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Counter, unit, help }
}

const fn histogram(name: &'static str, unit: Unit, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Histogram, unit, help }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Gauge, unit, help }
}

/// All metrics, by name.
#[rustfmt::skip]
pub const DEFINITIONS: &[Definition] = &[
    counter("fleetline_amqp_ended_total", Unit::Count, "AMQP connections that ended, by reason"),
    counter("fleetline_amqp_login_refused_total", Unit::Count, "Refused tokens and logins over AMQP, by reason"),
    counter("fleetline_amqp_undeliverable_total", Unit::Count, "Answers that an AMQP link could not be given"),
    gauge("fleetline_device_connections", Unit::Count, "Connections of devices to this node"),
    counter("fleetline_device_effects_dropped_total", Unit::Count, "Notices to gateways dropped because too many waited; gateways look by themselves later"),
    gauge("fleetline_front_handshakes", Unit::Count, "Connections of a front that have not finished TLS"),
    gauge("fleetline_front_handshakes_max", Unit::Count, "The bound of that number; beyond it the oldest is dropped"),
    counter("fleetline_front_refused_total", Unit::Count, "Connections refused before a protocol began, by front and reason"),
    histogram("fleetline_function_cold_start_seconds", Unit::Seconds, "How long workers of function apps take to start"),
    counter("fleetline_function_cold_starts_total", Unit::Count, "Workers of function apps that were started"),
    histogram("fleetline_function_duration_seconds", Unit::Seconds, "How long invocations take, by app and function"),
    counter("fleetline_function_effects_refused_total", Unit::Count, "Effects of functions that a device or hub refused"),
    counter("fleetline_function_failures_total", Unit::Count, "Invocations that failed, by app and function"),
    counter("fleetline_function_gaps_total", Unit::Count, "Records that retention removed before a function saw them"),
    counter("fleetline_function_invocations_total", Unit::Count, "Invocations, by app and function"),
    gauge("fleetline_function_lag", Unit::Count, "Records behind a function's checkpoint, of partitions that this node processes"),
    counter("fleetline_function_poison_total", Unit::Count, "Records that were given up and stand in the stream as poison"),
    counter("fleetline_gateway_wakes_failed_total", Unit::Count, "Notices that another node's gateway did not take"),
    counter("fleetline_http_login_refused_total", Unit::Count, "HTTP callers refused, by reason"),
    counter("fleetline_http_requests_total", Unit::Count, "HTTP requests answered, by kind and status"),
    counter("fleetline_ingest_records_total", Unit::Count, "Records of devices stored through this node"),
    counter("fleetline_ingest_retries_total", Unit::Count, "Batches of records that had to be sent again"),
    counter("fleetline_ingest_sessions_ended_total", Unit::Count, "Sessions ended because a record of theirs was lost in an open batch"),
    gauge("fleetline_log_bytes", Unit::Bytes, "Bytes of the segment log on disk"),
    counter("fleetline_log_damaged_entries_total", Unit::Count, "Entries found damaged; they are fetched from peers when needed"),
    Definition { name: "fleetline_log_frames_per_round", kind: Kind::Histogram, unit: Unit::Count, help: "Frames that one sync made durable" },
    gauge("fleetline_log_free_bytes", Unit::Bytes, "Free bytes of the log's file system"),
    gauge("fleetline_log_poisoned", Unit::Count, "1 after a failed write or sync: the log takes nothing until the node restarts"),
    gauge("fleetline_log_queue_bytes", Unit::Bytes, "Bytes that wait for the log's writer"),
    gauge("fleetline_log_queue_bytes_max", Unit::Bytes, "Its bound; appends are refused there"),
    gauge("fleetline_log_segments", Unit::Count, "Segment files"),
    counter("fleetline_log_syncs_total", Unit::Count, "Syncs of the log's writer"),
    counter("fleetline_mqtt_refused_total", Unit::Count, "MQTT logins refused and connections ended, by reason"),
    counter("fleetline_mqtt_undeliverable_total", Unit::Count, "Messages to devices larger than the device takes"),
    gauge("fleetline_partition_apply_lag_entries", Unit::Count, "Entries in the log here that are not applied"),
    gauge("fleetline_partition_bytes", Unit::Bytes, "Bytes of retained batches"),
    gauge("fleetline_partition_damaged_entries", Unit::Count, "Entries of this replica known as damaged"),
    gauge("fleetline_partition_end_offset", Unit::Count, "One behind the last committed record known here"),
    gauge("fleetline_partition_leads", Unit::Count, "1 where this node leads the partition"),
    gauge("fleetline_partition_replication_lag_entries", Unit::Count, "Entries that the slowest voter is behind; told by the leader"),
    gauge("fleetline_partition_start_offset", Unit::Count, "First retained record"),
    gauge("fleetline_partition_term", Unit::Count, "Raft term; when it rises often, leaders are lost"),
    counter("fleetline_peer_answers_overflow_total", Unit::Count, "Connections closed because the peer doesn't read its answers"),
    counter("fleetline_peer_calls_refused_total", Unit::Count, "Calls of other nodes refused because too many were open"),
    counter("fleetline_peer_connect_failures_total", Unit::Count, "Attempts to connect that failed"),
    counter("fleetline_peer_connects_total", Unit::Count, "Connections made, the first one included"),
    counter("fleetline_peer_malformed_total", Unit::Count, "Requests of peers that could not be read"),
    gauge("fleetline_peer_queue_bytes", Unit::Bytes, "Frames that wait to be written, over all peers"),
    gauge("fleetline_peer_queue_bytes_max", Unit::Bytes, "The bound of that queue, per peer"),
    counter("fleetline_peer_received_bytes_total", Unit::Bytes, "Plaintext read"),
    counter("fleetline_peer_received_frames_total", Unit::Count, "Requests and answers read"),
    counter("fleetline_peer_reconnects_total", Unit::Count, "Connections made where there had been one before"),
    counter("fleetline_peer_refused_total", Unit::Count, "Connections that this node refused, by reason"),
    counter("fleetline_peer_sent_bytes_total", Unit::Bytes, "Plaintext written"),
    counter("fleetline_peer_sent_frames_total", Unit::Count, "Requests and answers written"),
    gauge("fleetline_peer_unauthenticated_connections", Unit::Count, "Connections that have not finished the handshake"),
    gauge("fleetline_peer_unauthenticated_connections_max", Unit::Count, "The bound of that number"),
    gauge("fleetline_quic_append_batches_in_flight", Unit::Count, "Batches that wait for a partition, over all append streams"),
    counter("fleetline_quic_append_batches_total", Unit::Count, "Batches taken from clients"),
    gauge("fleetline_quic_append_bytes_in_flight", Unit::Bytes, "Bytes of the batches that wait for a partition"),
    counter("fleetline_quic_append_bytes_total", Unit::Bytes, "Bytes of batches taken from clients"),
    counter("fleetline_quic_append_errors_total", Unit::Count, "Batches answered with an error"),
    gauge("fleetline_quic_append_window_batches_max", Unit::Count, "Batches in flight that one append stream may have"),
    gauge("fleetline_quic_append_window_bytes_max", Unit::Bytes, "Bytes in flight that one append stream may have"),
    counter("fleetline_quic_append_window_full_total", Unit::Count, "Times that an append stream was not read because its window was full"),
    gauge("fleetline_quic_connection_window_bytes_max", Unit::Bytes, "Bytes that a connection may send before they are read"),
    gauge("fleetline_quic_connections", Unit::Count, "Open connections of clients"),
    gauge("fleetline_quic_connections_max", Unit::Count, "The bound of that number"),
    counter("fleetline_quic_connections_refused_total", Unit::Count, "Connections refused at the bound"),
    counter("fleetline_quic_forbidden_total", Unit::Count, "Calls and streams refused for lack of access"),
    gauge("fleetline_quic_handshakes", Unit::Count, "Connections whose hello has not been answered"),
    gauge("fleetline_quic_handshakes_max", Unit::Count, "The bound of that number"),
    counter("fleetline_quic_hello_timeouts_total", Unit::Count, "Connections closed because hello did not come in time"),
    counter("fleetline_quic_protocol_errors_total", Unit::Count, "Connections closed because the client broke the protocol"),
    counter("fleetline_quic_read_batches_total", Unit::Count, "Batches sent to readers"),
    counter("fleetline_quic_read_bytes_total", Unit::Bytes, "Bytes of batches sent to readers"),
    counter("fleetline_quic_read_credit_exhausted_total", Unit::Count, "Times that a reader had used up its credit"),
    counter("fleetline_quic_retries_total", Unit::Count, "Connections asked to prove their address"),
    gauge("fleetline_quic_streams", Unit::Count, "Open streams of all connections"),
    gauge("fleetline_quic_streams_per_connection_max", Unit::Count, "Streams that one connection may have open"),
    counter("fleetline_realtime_bridged_total", Unit::Count, "Records that bridges sent to realtime hubs"),
    gauge("fleetline_realtime_connections", Unit::Count, "Open connections of realtime hubs"),
    gauge("fleetline_realtime_directory_keys", Unit::Count, "Hubs, users and groups of other nodes in the directories that this node keeps"),
    counter("fleetline_realtime_lost_total", Unit::Count, "Orders that a living node did not take"),
    counter("fleetline_realtime_messages_in_total", Unit::Count, "Messages of realtime clients"),
    counter("fleetline_realtime_messages_out_total", Unit::Count, "Messages put into the outboxes of realtime clients"),
    counter("fleetline_realtime_publishes_total", Unit::Count, "Messages that publishers gave to realtime hubs"),
    gauge("fleetline_realtime_queue_bytes", Unit::Bytes, "Bytes that wait in the outboxes of realtime clients"),
    counter("fleetline_realtime_slow_clients_total", Unit::Count, "Realtime clients that were dropped because they did not read fast enough"),
    counter("fleetline_realtime_upstream_failures_total", Unit::Count, "Events that no upstream took"),
    gauge("fleetline_realtime_waiting_bytes", Unit::Bytes, "Bytes that wait to be fanned out"),
    counter("fleetline_sessions_left_open_total", Unit::Count, "Sessions whose end could not be told to their leader in time"),
    gauge("fleetline_state_bytes", Unit::Bytes, "Bytes of the state store on disk"),
    gauge("fleetline_state_unflushed_bytes", Unit::Bytes, "Bytes of state written since the last flush"),
];

/// Gives the descriptions to the recorder of the calling thread (or process).
pub(crate) fn describe() {
    for Definition { name, kind, unit, help } in DEFINITIONS {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *help),
            Kind::Gauge => describe_gauge!(*name, *unit, *help),
            Kind::Histogram => describe_histogram!(*name, *unit, *help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// The metrics that a source text records: what opens them, and the name right behind.
    fn recorded(text: &str, found: &mut BTreeMap<String, Kind>) {
        // `set("…")` is how broker/node records gauges that share a label.
        let openers = [
            ("counter!(", Kind::Counter),
            ("gauge!(", Kind::Gauge),
            ("histogram!(", Kind::Histogram),
            ("set(", Kind::Gauge),
            // Of functions, by app and function.
            ("count(", Kind::Counter),
        ];
        for (opener, kind) in openers {
            for (at, _) in text.match_indices(opener) {
                let argument = text[at + opener.len()..].trim_start();
                let name = argument.strip_prefix("\"fleetline_").and_then(|rest| rest.split_once('"'));
                if let Some((name, _)) = name {
                    found.insert(format!("fleetline_{name}"), kind);
                }
            }
        }
    }

    fn walk(folder: &Path, found: &mut BTreeMap<String, Kind>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                recorded(&std::fs::read_to_string(&entry).unwrap(), found);
            }
        }
    }

    /// What the layers of a node record is described here, with its kind, and nothing else is.
    #[test]
    fn source_and_table_agree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeMap::new();
        for layer in ["protocol", "storage", "raft", "broker"] {
            walk(&root.join(layer), &mut found);
        }
        let described: BTreeMap<String, Kind> =
            DEFINITIONS.iter().map(|definition| (definition.name.to_owned(), definition.kind)).collect();
        assert_eq!(found, described);
        assert!(DEFINITIONS.is_sorted_by_key(|definition| definition.name));
    }

    /// The text that is served explains what it holds.
    #[test]
    fn rendered_with_help() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::gauge!("fleetline_log_bytes").set(7.0);
        });
        let text = handle.render();
        for line in [
            "# HELP fleetline_log_bytes Bytes of the segment log on disk",
            "# TYPE fleetline_log_bytes gauge",
            "fleetline_log_bytes 7",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    }
}
