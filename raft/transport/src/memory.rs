//! A network in memory: all nodes of a simulation in one process, on tokio's (virtual) time.
//!
//! The simulation makes one [`MemNetwork`], gives every node an endpoint, and breaks links on
//! purpose. One task delivers everything in order of (time, sequence number); all choices come from
//! one seeded generator and all tables are ordered, so on a current-thread runtime with paused time
//! the same seed and the same calls give the same run.
//!
//! ```text
//!  send ── room (bytes) ──► due: (time, sequence) ──► deliver ──► handler
//!                             ▲            │ link is cut
//!                             └── heal ── held
//! ```
//!
//! Invariants:
//! 1. Messages of one direction and lane arrive in the order they were sent, also across a cut, a
//!    break and a new connection; except on Control and Bulk when `reorder` is on.
//! 2. When a connection breaks, a random part of what was under way still arrives, from the front;
//!    the rest never does. All open requests fail.
//! 3. Queues are bounded in bytes as on the real transport.
//!
//! Not here: corruption (TLS would refuse it), handshakes, addresses.

mod endpoint;
mod faults;
mod world;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetline_types::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::world::World;
use crate::PeerHandler;

pub use self::endpoint::MemTransport;
pub use self::faults::{CutMode, LinkFaults, MemOptions, NetworkCounters};

/// All links between the nodes of a simulation. Cheap to clone; must be made inside a tokio runtime.
#[derive(Clone)]
pub struct MemNetwork {
    shared: Arc<Shared>,
    /// Ends the delivery task when the last clone is gone.
    _running: Arc<Running>,
}

pub(crate) struct Shared {
    world: Mutex<World>,
    /// Something is due earlier than the delivery task knows.
    sooner: Notify,
}

struct Running(tokio::task::AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl MemNetwork {
    /// A network whose faults and delays come from `options.seed`.
    pub fn new(options: MemOptions) -> MemNetwork {
        let shared = Arc::new(Shared { world: Mutex::new(World::new(options)), sooner: Notify::new() });
        let task = tokio::spawn(world::deliver(shared.clone()));
        MemNetwork { shared, _running: Arc::new(Running(task.abort_handle())) }
    }

    /// Gives `node` its place. A node that is there already is killed first.
    pub fn endpoint(&self, node: NodeId, handler: Arc<dyn PeerHandler>) -> Arc<MemTransport> {
        let (_dead, incarnation) = self.with(|world| (world.kill(node), world.add(node, handler)));
        Arc::new(MemTransport::new(self.shared.clone(), node, incarnation))
    }

    /// As a process that dies: its connections break at once, its open requests fail, the others
    /// hear of it `down_delay` later (or when what it had sent has arrived).
    pub fn kill(&self, node: NodeId) {
        self.with(|world| world.kill(node));
    }

    /// A killed node is back, as a new process.
    pub fn revive(&self, node: NodeId, handler: Arc<dyn PeerHandler>) -> Arc<MemTransport> {
        self.endpoint(node, handler)
    }

    /// Faults of messages that `from` sends to `to`, requests and answers alike.
    pub fn set_faults(&self, from: NodeId, to: NodeId, faults: LinkFaults) {
        self.with(|world| world.set_faults(from, to, faults));
    }

    /// Faults of all links that have none of their own, and of the others from now on.
    pub fn set_all_faults(&self, faults: LinkFaults) {
        self.with(|world| world.set_all_faults(faults));
    }

    /// Nothing gets from `from` to `to` until [`MemNetwork::heal`]; what happens meanwhile is
    /// [`CutMode`]'s to say.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.with(|world| world.cut(from, to));
    }

    /// Cuts both directions.
    pub fn cut_both(&self, a: NodeId, b: NodeId) {
        self.with(|world| {
            world.cut(a, b);
            world.cut(b, a);
        });
    }

    /// Cuts `node` off from all others in both directions.
    pub fn isolate(&self, node: NodeId) {
        self.with(|world| world.isolate(node));
    }

    /// Undoes cuts between `a` and `b`, in both directions.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.with(|world| {
            world.heal(a, b);
            world.heal(b, a);
        });
    }

    /// Undoes all cuts.
    pub fn heal_all(&self) {
        self.with(World::heal_all);
    }

    /// Breaks all connections between two nodes, as a firewall that sends resets; new ones can be
    /// made at once.
    pub fn break_connections(&self, a: NodeId, b: NodeId) {
        self.with(|world| world.break_pair(a, b));
    }

    /// How calls of [`MemNetwork::cut`] from now on behave.
    pub fn set_cut_mode(&self, mode: CutMode) {
        self.with(|world| world.options.cut_mode = mode);
    }

    /// What happened so far.
    pub fn counters(&self) -> NetworkCounters {
        self.shared.world.lock().counters
    }

    fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.with(change)
    }
}

impl Shared {
    /// Changes the world, then wakes the delivery task.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.world.lock());
        self.sooner.notify_one();
        changed
    }
}

impl fmt::Debug for MemNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemNetwork({:?})", self.counters())
    }
}

impl Default for MemOptions {
    fn default() -> MemOptions {
        MemOptions {
            seed: 0,
            faults: LinkFaults::default(),
            frame_bytes_max: 16 * 1024 * 1024,
            lane_queue_bytes_max: 8 * 1024 * 1024,
            connect_timeout: Duration::from_secs(3),
            down_delay: Duration::from_millis(2),
            cut_mode: CutMode::Hang,
        }
    }
}
