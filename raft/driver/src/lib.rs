//! Many raft groups on one node: start, stop, routing, heartbeats, catch-up.
