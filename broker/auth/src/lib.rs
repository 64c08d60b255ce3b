//! Certificates and join tokens: the cluster's own authority, and TLS set-up from it.
//!
//! Used by `broker/node` (start, join), by `raft/transport` and the fronts through the rustls
//! configurations made here, and by the command line. A cluster has one [`Authority`]; every node,
//! administrator and client has a certificate of it that carries who it is as one DNS name:
//!
//! ```text
//!  node-<id>.<cluster>.fleetline       a node; serves and asks
//!  admin.<cluster>.fleetline           may change settings
//!  client-<name>.<cluster>.fleetline   may use the streams
//! ```
//!
//! Invariants:
//! 1. A certificate carries exactly one such name; one with none or several is nobody's.
//! 2. Host names of nodes can't end in `.fleetline`, and names in signing requests are ignored: what
//!    a certificate says is decided by who signs, never by who asks.
//! 3. Only TLS 1.3, no early data, no resumption: every connection proves who it is.
//! 4. Private keys are written with mode 0600, whole or not at all.
//! 5. Secrets appear in no error, log line or debug output.
//!
//! Certificates of an own PKI must look the same: exactly one such name among the DNS names, the hosts
//! by which the node is reached beside it, extended key usage of client and server for a node and of
//! client alone for all others, no CA. [`TlsBundle::check`] and [`TlsBundle::verify`] say what is wrong.
//!
//! Not here: who may do what (`broker/gateway`), device credentials, making revocation lists.
#![deny(missing_docs)]

mod authority;
mod error;
mod files;
mod identity;
mod join;
mod lifetime;
mod live;
mod tls;
mod token;

pub use authority::{Authority, CertificateRequest, LIFETIME_LEAF};
pub use error::{AuthError, TokenError};
pub use files::{DataCerts, read_pem};
pub use identity::{Identity, Role, identity_of, node_name};
pub use join::join_client;
pub use lifetime::{Lifetime, hosts_of};
pub use live::{LiveKey, LiveTls, certified_key};
pub use tls::{ClientAuth, TlsBundle, front_client, front_client_anonymous};
pub use token::{Fingerprint, JoinToken, SecretHash, fingerprint_of};
