//! A device or module on a connection: its session, its links, and what waits for either side.
//!
//! ```text
//!  first attach ─► Opening ─leader says yes─► Open ─last link gone, or session over─► closed behind its
//!                                                                                     last record
//! ```
//!
//! The device decides what is due; `front` performs it. At most one request of a device is at its leader.

mod methods;
mod twin;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fleetline_amqp::{LinkId, PeerOutcome, Receipt, SentId};
use fleetline_devices::{CommandRow, DeviceKey, Settle};
use fleetline_gateway::devices::connections::{Link, Registered};
use fleetline_gateway::devices::record::Stamps;
use fleetline_types::PartitionId;
use tokio::sync::oneshot;

use crate::address::DeviceNode;
use crate::ready::Flag;
use crate::tokens::Auth;
use crate::work::Work;
use methods::Methods;
pub(crate) use methods::call_head;
pub(crate) use twin::TwinAsk;
use twin::{REPLIES_MAX, Twin};

/// Pieces of work that wait for the leader; links have windows that keep it below.
const WORK_MAX: usize = 256;

/// A link of the device: what it is for, and whether the device receives on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceLink {
    pub(crate) id: LinkId,
    pub(crate) node: DeviceNode,
    pub(crate) to_device: bool,
}

/// A device or module.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: u64,
    pub(crate) key: DeviceKey,
    pub(crate) partition: PartitionId,
    pub(crate) auth: Auth,
    pub(crate) registered: Registered,
    pub(crate) flag: Arc<Flag>,
    pub(crate) stamps: Stamps,
    pub(crate) is_open: bool,
    /// Links whose attach waits for the session.
    pub(crate) waiting: Vec<DeviceLink>,
    pub(crate) links: Vec<DeviceLink>,
    /// Records given to the ingest.
    pub(crate) sent: u64,
    /// Deliveries whose records aren't stored: the number of the last record of each.
    acks: VecDeque<(u64, Receipt)>,
    work: VecDeque<Work>,
    /// Ends with the request that is at the leader.
    pub(crate) running: Option<oneshot::Receiver<()>>,
    commands: Commands,
    twin: Twin,
    methods: Methods,
}

/// Commands on their way to the device.
#[derive(Debug, Default)]
struct Commands {
    /// Fetched and not sent.
    fetched: VecDeque<CommandRow>,
    /// Sent and not settled.
    open: BTreeMap<SentId, u64>,
    /// Sequence numbers of both, and of those whose outcome is on its way to the leader.
    held: BTreeSet<u64>,
    /// Commands up to this one were fetched.
    after: u64,
    wanted: bool,
    /// A fetch is on its way.
    fetching: bool,
}

impl Device {
    pub(crate) fn new(
        id: u64,
        partition: PartitionId,
        auth: Auth,
        registered: Registered,
        flag: Arc<Flag>,
        stamps: Stamps,
    ) -> Device {
        Device {
            id,
            key: registered.link.key.clone(),
            partition,
            auth,
            registered,
            flag,
            stamps,
            is_open: false,
            waiting: Vec::new(),
            links: Vec::new(),
            sent: 0,
            acks: VecDeque::new(),
            work: VecDeque::new(),
            running: None,
            commands: Commands::default(),
            twin: Twin::default(),
            methods: Methods::default(),
        }
    }

    /// The session is open.
    pub(crate) fn opened(&mut self, epoch: u64, desired_version: u64, generation: String) {
        self.registered.link.opened(epoch);
        self.stamps.generation = generation;
        self.twin.sent = desired_version;
        self.is_open = true;
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.registered.link
    }

    /// The link towards the device for a node.
    pub(crate) fn receiver(&self, node: DeviceNode) -> Option<LinkId> {
        self.links.iter().find(|link| link.to_device && link.node == node).map(|link| link.id)
    }

    /// A link is attached. Gives the one whose place it takes.
    pub(crate) fn attached(&mut self, link: DeviceLink) -> Option<LinkId> {
        let former = if link.to_device { self.receiver(link.node) } else { None };
        if let Some(former) = former {
            self.detached(former);
        }
        self.links.push(link);
        if link.to_device && link.node == DeviceNode::Commands {
            self.commands.wanted = true;
        }
        former
    }

    /// A link is gone.
    pub(crate) fn detached(&mut self, id: LinkId) {
        self.waiting.retain(|waiting| waiting.id != id);
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let link = self.links.swap_remove(at);
        match link.node {
            DeviceNode::Commands => {
                // What it had is fetched again for the next one; what is being settled stays held.
                let dropped = self.commands.fetched.drain(..).map(|row| row.sequence);
                let open = std::mem::take(&mut self.commands.open);
                for sequence in dropped.chain(open.into_values()) {
                    self.commands.held.remove(&sequence);
                }
                self.commands.after = 0;
            }
            DeviceNode::Twin if link.to_device => {
                self.twin.replies.clear();
                self.twin.notifies = false;
            }
            DeviceNode::Methods if link.to_device => self.drop_methods(),
            _ => {}
        }
        self.acks.retain(|(_, receipt)| receipt.link != id);
    }

    pub(crate) fn has_links(&self) -> bool {
        !self.links.is_empty() || !self.waiting.is_empty()
    }

    /// Records up to `sent` were given to the ingest for this delivery.
    pub(crate) fn given(&mut self, receipt: Receipt) {
        self.acks.push_back((self.sent, receipt));
    }

    /// The next delivery that is stored.
    pub(crate) fn next_stored(&mut self, acked: u64) -> Option<Receipt> {
        match self.acks.front() {
            Some((number, _)) if *number <= acked => self.acks.pop_front().map(|(_, receipt)| receipt),
            _ => None,
        }
    }

    // ---- work

    /// Queues work; `false` when there is too much.
    pub(crate) fn push_work(&mut self, work: Work) -> bool {
        if self.work.len() >= WORK_MAX {
            return false;
        }
        self.work.push_back(work);
        true
    }

    /// The next piece of work, when none is running. `credit` is that of the commands' link.
    pub(crate) fn next_work(&mut self, credit: u32, deliveries_max: usize) -> Option<Work> {
        if !self.is_open || self.running.is_some() {
            return None;
        }
        if let Some(work) = self.work.pop_front() {
            return Some(work);
        }
        let listens = self.receiver(DeviceNode::Methods).is_some();
        if listens != self.methods.told {
            self.methods.told = listens;
            return Some(Work::Listen { listens });
        }
        let commands = &mut self.commands;
        let room = deliveries_max.saturating_sub(commands.held.len()).min(credit as usize);
        if commands.wanted && commands.fetched.is_empty() && room > 0 {
            commands.wanted = false;
            commands.fetching = true;
            // Those that are held may stand in front of the next ones.
            return Some(Work::Commands { after: commands.after, limit: room + commands.held.len() });
        }
        if self.twin.wanted && self.twin.notifies && self.twin.replies.len() < REPLIES_MAX {
            self.twin.wanted = false;
            self.twin.fetching = true;
            return Some(Work::Desired { after: self.twin.sent });
        }
        None
    }

    /// Outcomes that wait; the device's end must not lose them.
    pub(crate) fn take_settles(&mut self) -> Vec<Work> {
        self.work.drain(..).filter(|work| matches!(work, Work::Settle { .. })).collect()
    }

    // ---- commands

    pub(crate) fn want_commands(&mut self) {
        self.commands.wanted = self.receiver(DeviceNode::Commands).is_some();
    }

    pub(crate) fn is_fetching_commands(&self) -> bool {
        self.commands.fetching || (self.commands.wanted && self.is_open)
    }

    /// Commands were fetched.
    pub(crate) fn on_commands(&mut self, rows: Vec<CommandRow>) {
        self.commands.fetching = false;
        if self.receiver(DeviceNode::Commands).is_none() {
            return;
        }
        for row in rows {
            self.commands.after = self.commands.after.max(row.sequence);
            if self.commands.held.insert(row.sequence) {
                self.commands.fetched.push_back(row);
                // There may be more.
                self.commands.wanted = true;
            }
        }
    }

    pub(crate) fn next_command(&self) -> Option<&CommandRow> {
        self.commands.fetched.front()
    }

    /// The first fetched command was sent.
    pub(crate) fn command_sent(&mut self, sent: SentId) {
        if let Some(row) = self.commands.fetched.pop_front() {
            self.commands.open.insert(sent, row.sequence);
        }
    }

    /// The device has given its word on a command.
    pub(crate) fn on_outcome(&mut self, sent: SentId, outcome: &PeerOutcome, settled: bool) {
        let Some(sequence) = self.commands.open.remove(&sent) else { return };
        let settle = match outcome {
            PeerOutcome::Accepted | PeerOutcome::None => Settle::Complete,
            PeerOutcome::Rejected(_) => Settle::Reject,
            PeerOutcome::Released => Settle::Abandon,
            PeerOutcome::Modified { undeliverable_here: true, .. } => Settle::Reject,
            PeerOutcome::Modified { .. } => Settle::Abandon,
        };
        let sent = (!settled).then_some(sent);
        self.work.push_back(Work::Settle { sequence, settle, sent });
    }

    /// The leader has settled a command.
    pub(crate) fn on_settled(&mut self, sequence: u64, settle: Settle) {
        self.commands.held.remove(&sequence);
        if settle == Settle::Abandon {
            self.commands.after = self.commands.after.min(sequence.saturating_sub(1));
        }
        self.want_commands();
    }
}
