//! Realtime hubs: whoever is connected gets messages, by hub, user, group or connection, over the protocol of
//! SignalR, as Azure's service in serverless mode speaks it.
//!
//! ```text
//!   clients ──► front (HTTP) ──► connection (one task each) ──► events: functions, upstreams
//!   backends ─► front/rest ──► publish ──► directory of the key ──► nodes with members
//!   bridges ─────────────────────┘                                     │
//!                                               outboxes ◄── fanout ◄──┘  registry: who is here
//! ```
//!
//! A node makes one [`Realtime`], mounts it on its HTTP front ([`fleetline_gateway::http::HttpMount`]) and runs it
//! ([`Realtime::run`]). It talks to the same tier of other nodes through `Cluster::call_tier`.
//!
//! Invariants:
//! 1. A message is framed once per protocol and shared by all sockets of a node; a node gets it once, if it has a
//!    member.
//! 2. Nothing that one client does makes another wait: outboxes are bounded, and a client that doesn't read is
//!    dropped (`outbox.rs`).
//! 3. Orders of one publishing node for one key reach each member in order, each at most once.
//! 4. When a connection is told that it is open, or a change of groups is answered, later messages find it
//!    (`interest.rs`, `directory.rs`).
//! 5. No node holds the whole: members are where their sockets are, and who has members of a key is kept by the
//!    leader of the key's partition.
//!
//! Not here: bytes of the protocol (`fleetline-signalr`), TLS and listening (`fleetline-gateway`), durable state
//! except users' groups (documents of `fleetline-devices`), app servers (the service's default mode).
#![deny(missing_docs)]

mod adopted;
mod bridge;
mod clock;
mod connection;
mod directory;
mod events;
mod expiry;
mod fanout;
mod frame;
mod front;
mod groups;
mod interest;
mod key;
mod limits;
mod mailbox;
mod member;
mod memberships;
mod outbox;
mod outgoing;
mod peers;
mod publish;
mod registry;
mod serve;
mod settings;
mod stats;
#[cfg(test)]
mod testkit;
mod tier;
mod upstream;
mod watched;
mod wire;

pub use events::{ClientEvent, ClientEventKind, ClientEvents, EventAnswer};
pub use fleetline_signalr::Encoded;
pub use groups::{GroupAction, GroupError};
pub use key::Destination;
pub use limits::{RealtimeLimits, RealtimeOptions};
pub use publish::PublishError;
pub use settings::{HubOptions, SETTING};
pub use stats::RealtimeStats;
pub use tier::Realtime;
