//! The device workload: gateways, services and devices' own clients, all through the leader, under the same
//! faults as the stream workload. What they invoke and learn is kept in a [`History`]; `check` judges it.
//!
//! Each client speaks as the real one does: it asks any node, goes on to the next when that one says for sure
//! that nothing was done, and calls everything else unknown.

mod check;
mod device;
mod gateway;
mod history;
mod outbox;
mod register;
mod service;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleetline_devices::{
    CommandRow, Condition, DeviceCommand, DeviceKey, DeviceQuery, DeviceReply, DeviceSpec, FeedbackRow, Op,
    PutDevice,
};
use fleetline_iothub::errors::ErrorCode;
use fleetline_native::HubError;
use fleetline_partition::Partition;
use fleetline_state::{KeyKind, StateError};
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use check::Replica;
pub(crate) use history::History;

use crate::account::{Stored, is_thing};
use crate::node::{PARTITION, START_MS, SimNode};
use crate::rng::Rng;
use crate::world::Trace;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Gateways; two, so that devices move between them.
const GATEWAYS: u64 = 2;

/// What the clients share.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) nodes: Rc<RefCell<Vec<SimNode>>>,
    pub(crate) stop: Rc<Cell<bool>>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) trace: Rc<RefCell<Trace>>,
    pub(crate) seed: u64,
    pub(crate) devices: u64,
}

/// How a change ended.
enum Answer {
    /// It was accepted; behind it the stream ended no farther than at `head` on the node that answered.
    Done { reply: Box<DeviceReply>, head: u64 },
    /// It was refused, which changed nothing.
    Refused(ErrorCode),
    /// Nobody took it.
    NotDone,
    /// It may happen once, later, or never.
    Unknown,
}

impl Clients {
    fn key(number: u64) -> DeviceKey {
        DeviceKey::device(format!("thing-{number}"))
    }

    fn any_key(&self, rng: &mut Rng) -> DeviceKey {
        Clients::key(rng.below(self.devices))
    }

    fn partition(&self, place: u64) -> Option<Arc<Partition>> {
        let nodes = self.nodes.borrow();
        let place = (place % nodes.len() as u64) as usize;
        nodes[place].running.as_ref().map(|running| running.partition.clone())
    }

    fn count(&self) -> u64 {
        self.nodes.borrow().len() as u64
    }

    /// The replica of some node that runs.
    fn some(&self, rng: &mut Rng) -> Option<Arc<Partition>> {
        self.partition(rng.below(self.count()))
    }

    /// The time that nobody's clock shows exactly.
    fn wall_ms(&self) -> u64 {
        START_MS + self.trace.borrow().begun.elapsed().as_millis() as u64
    }

    fn note(&self, what: impl std::hash::Hash) {
        self.trace.borrow_mut().note(what);
    }

    /// Proposes a change, at one node after the other.
    async fn change(&self, rng: &mut Rng, op: Op) -> Answer {
        let begin = rng.below(self.count());
        for place in begin..begin + 2 * self.count() {
            if let Some(partition) = self.partition(place) {
                let proposed =
                    timeout(PATIENCE, partition.change_devices(DeviceCommand::new(op.clone()))).await;
                match proposed {
                    Ok(Ok(reply)) => return self.answered(&partition, reply),
                    Ok(Err(error)) if nothing_was_done(&error) => {}
                    Ok(Err(_)) | Err(_) => return Answer::Unknown,
                }
            }
            sleep(Duration::from_millis(5 + rng.below(40))).await;
        }
        Answer::NotDone
    }

    fn answered(&self, partition: &Partition, reply: DeviceReply) -> Answer {
        match &reply.error {
            Some(error) => {
                Answer::Refused(ErrorCode::from_number(error.code).unwrap_or(ErrorCode::ServerError))
            }
            None => {
                self.history.borrow_mut().changes += 1;
                let head = partition.head().next.0;
                self.note(("device change", head, reply.encode_to_vec()));
                Answer::Done { reply: Box::new(reply), head }
            }
        }
    }

    /// A replica that has everything which was committed before the call.
    async fn fresh(&self, rng: &mut Rng) -> Option<Arc<Partition>> {
        let begin = rng.below(self.count());
        for place in begin..begin + self.count() {
            if let Some(partition) = self.partition(place)
                && let Ok(Ok(())) = timeout(PATIENCE, partition.read_barrier()).await
            {
                return Some(partition);
            }
            sleep(Duration::from_millis(5 + rng.below(40))).await;
        }
        None
    }

    /// Makes the devices, then starts everybody.
    pub(crate) async fn start(&self) -> Vec<JoinHandle<()>> {
        if self.devices == 0 {
            return Vec::new();
        }
        let mut rng = Rng::new(self.seed, 2000);
        for number in 0..self.devices {
            let put = PutDevice {
                key: Clients::key(number),
                spec: DeviceSpec::default(),
                condition: Condition::absent(),
                new_primary_key: "a2V5".to_owned(),
                new_secondary_key: "a2V5Mg==".to_owned(),
                ..PutDevice::default()
            };
            while let Answer::NotDone | Answer::Unknown =
                self.change(&mut rng, Op::PutDevice(put.clone())).await
            {}
        }
        let mut tasks = Vec::new();
        for number in 0..GATEWAYS {
            tasks.push(tokio::task::spawn_local(gateway::run(self.clone(), number)));
            tasks.push(tokio::task::spawn_local(service::run(self.clone(), number)));
            tasks.push(tokio::task::spawn_local(device::run(self.clone(), number)));
        }
        tasks.push(tokio::task::spawn_local(outbox::run(self.clone())));
        tasks
    }
}

impl Clients {
    /// Checks what the node at `place` holds in the end, of whose stream these are all records.
    pub(crate) fn check(&self, place: usize, records: &[Stored]) -> Result<(), String> {
        let nodes = self.nodes.borrow();
        let rows = |place: usize| -> Vec<_> {
            let rows = nodes[place].state.rows().into_iter();
            rows.filter(|(row, _)| (KeyKind::Device..=KeyKind::Upload).contains(&row.kind)).collect()
        };
        if rows(place) != rows(0) {
            return Err("P3: rows of devices differ from those of node 1".to_owned());
        }
        let records = records.iter().filter(|record| is_thing(&record.device)).cloned().collect();
        let replica = self.replica(&nodes[place], records).map_err(|error| error.to_string())?;
        check::check(&self.history.borrow(), &replica)
    }

    fn replica(&self, node: &SimNode, records: Vec<Stored>) -> Result<Replica, StateError> {
        let query = DeviceQuery::new(&node.state, PARTITION);
        let mut replica = Replica { records, events: query.head()?.outbox_done, ..Replica::default() };
        for key in (0..self.devices).map(Clients::key) {
            if let (Some(twin), Some(device)) = (query.twin(&key)?, query.device(&key)?) {
                replica.registers.insert(service::twin_name(&key), service::twin_value(&twin));
                replica.registers.insert(service::identity_name(&key), service::identity_value(&device));
            }
        }
        for (row, value) in node.state.rows() {
            match row.kind {
                KeyKind::Command => {
                    replica.waiting.extend(CommandRow::decode(value).map(|command| command.message_id));
                }
                KeyKind::Feedback => {
                    let ended = FeedbackRow::decode(value);
                    replica.ended.extend(ended.map(|row| (row.message_id.clone(), row.outcome())));
                }
                _ => {}
            }
        }
        Ok(replica)
    }
}

/// An error that promises that nothing was done.
fn nothing_was_done(error: &HubError) -> bool {
    matches!(
        error,
        HubError::NotLeader { .. }
            | HubError::Unavailable(_)
            | HubError::Busy { .. }
            | HubError::DiskFull(_)
            | HubError::Invalid(_)
    )
}
