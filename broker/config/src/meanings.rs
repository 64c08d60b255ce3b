//! What each option means, in the order in which they are printed. A test holds this against the options.

/// Option and meaning: one sentence, with what happens when it is too low or too high.
#[rustfmt::skip]
pub(crate) const MEANINGS: &[(&str, &str)] = &[
    ("data", "The data folder."),
    ("listen", "Where clients connect (QUIC, UDP)."),
    ("peer_listen", "Where other nodes connect (TCP, mutual TLS)."),
    ("ops_listen", "Where metrics, health and status are served (HTTP, no authentication: keep it on loopback)."),
    ("mqtt_listen", "Where devices connect with MQTT over TLS (TCP) and QUIC (UDP): auto, off or address:port. Auto: port 8883 beside listen, if it is free."),
    ("mqtt_plain_listen", "Where devices connect with MQTT without TLS: off or address:port. Tokens cross the network readably."),
    ("https_listen", "Where HTTPS and WebSocket are served: auto, off or address:port. Auto: port 443 beside listen, if it may be opened."),
    ("hub_name", "The hub's name in connection strings, which tokens and certificates name. Empty: advertise when it is a name, else localhost."),
    ("advertise", "Host by which clients and nodes reach this node, without a port; empty: that of listen."),
    ("zone", "Failure zone; replicas are spread over zones. Empty: none."),
    ("partitions", "Partitions of a new hub, 1 to 4096, fixed for its life. More spread better and cost a raft group each."),
    ("replicas", "Replicas that a partition of a new hub should have once there are nodes for them: 1, 3 or 5."),
    ("heartbeat", "How often an idle leader is heard of. Shorter notices silence sooner, longer costs less CPU."),
    ("election_min", "Shortest silence after which a follower campaigns. Too short: elections on a starved machine."),
    ("election_max", "Longest such silence, at least 1.5 times the shortest. Too short: candidates collide."),
    ("dead_after", "How long a node may be away before its replicas are made anew elsewhere. Too short: a reboot moves data."),
    ("disk_reserve", "Space that user data never uses, so that votes and clean-up always can."),
    ("log_segment", "Size of a log segment. Smaller frees space sooner, larger makes fewer files."),
    ("log_cache", "Recent entries kept in memory for followers and readers. Too small: they read the disk."),
    ("log_queue", "Bytes that may wait for the log's writer before appends are refused."),
    ("state_cache", "RocksDB's block cache."),
    ("state_memtable", "Rows in memory before they are flushed. Larger: longer replay after a crash."),
    ("flush_every", "How often state is flushed, and the log may forget what it covers. Longer: longer replay."),
    ("objects", "Where files that devices upload are kept: empty (the data folder: each node its own), file:///path, s3://bucket/prefix or azure://container/prefix. Keys, region and endpoint: AWS_* and AZURE_* variables."),
    ("log_level", "Which log lines are written, like info or info,fleetline_raft_driver=debug."),
    ("log_format", "Log lines as text or json."),
];
