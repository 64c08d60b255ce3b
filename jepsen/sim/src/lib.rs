//! Deterministic simulation of a cluster from one seed.
//!
//! Real parts: openraft, `raft/driver`, `raft/group`, the segment log on a disk in memory, the partition's
//! state machine and its reads. Simulated: the network (delays, cuts, killed nodes), the disk (what a power
//! cut leaves), time (virtual), and when the log's writer runs. One thread; everything random comes from
//! the seed, so a run repeats exactly: [`run`] gives a hash of all that happened, and a test compares two.
//! Exactly so only when built with `--cfg tokio_unstable` (`make sim`, `make sim-test`): tokio's own draws
//! can't be seeded otherwise. Without it the same faults meet slightly other interleavings.
//!
//! Two workloads run side by side: producers, readers and owners of the stream (`account.rs` judges what
//! replicas hold, `journal.rs` what clients saw, by the history checkers), and gateways, services and
//! devices (`devices/check.rs`). [`Plant`] puts bugs in that have to be found.
//!
//! A run has two phases. *Safety*: clients act, nodes are killed, lose power and are cut off, in a swarm
//! of rates that the seed chooses. *Liveness*: faults stop, and within bounded virtual time everything
//! acknowledged must be readable on every replica, in order, once.
//!
//! Not here: RocksDB, sockets and TLS (`jepsen/local-cluster` runs those).

mod account;
mod devices;
mod journal;
mod node;
mod owners;
mod plant;
mod rng;
mod stream;
mod world;

pub use plant::Plant;
pub use world::{Options, Report, run};
