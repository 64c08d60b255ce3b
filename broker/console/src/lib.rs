//! The operator's page: its assets, the queries behind it, and its live feed.
//!
//! A [`Console`] stands on a node's HTTPS front as a mount (`fleetline_gateway::http::HttpMount`) and has
//! all paths under `/console`. The page itself is a handful of embedded files (`assets/`); what it shows
//! comes from the queries under `/console/api` and, live, from the realtime hub `console`, which
//! [`Console::run`] feeds while somebody watches.
//!
//! ```text
//! browser ──GET /console/…────────► assets
//!    │     ──/console/api/…, JWT──► access ─► api ─► Hub, DeviceHub (leaders)
//!    │     ──/console/api/negotiate► Live::negotiate ─► address and token of the realtime hub
//!    └◄─── SignalR ◄── realtime tier ◄── Live::publish ◄── feed ◄── Hub::read
//! ```
//!
//! Invariants:
//! 1. Nothing is answered but the assets until a token is verified ([`access`](self)); a token is signed
//!    with a key of a shared access policy, and that policy's rights, devices and actions decide.
//! 2. Keys of policies and devices never leave the node.
//! 3. Every query and every tick of the feed is bounded ([`limits`]). Without a watcher the feed reads
//!    nothing.
//! 4. What devices say is data to the page, never markup: the page's policy (CSP) allows no script but
//!    its own files, and they write text nodes only.
//!
//! Not here: sockets and TLS (`broker/gateway`), fan-out to browsers (`broker/realtime`), functions and
//! their figures (`broker/functions`); they come in as the traits of [`live`].
#![deny(missing_docs)]

mod access;
mod api;
mod assets;
mod console;
mod error;
mod failures;
mod feed;
pub mod limits;
pub mod live;
mod reply;
mod routes;

pub use access::{AUDIENCE, sign_in_token, sign_in_url};
pub use assets::Asset;
pub use console::{Console, ConsoleParts};
pub use error::SignInError;
pub use live::{Counters, FeedScope, FunctionsView, Live, Meters};
pub use reply::Reply;
pub use routes::Call;
