//! The state machine of a partition's group: stored commands in, stored replies out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetline_batch::BatchHeader;
use fleetline_devices::{
    Commit, CommitReply, DeviceCommand, DeviceHead, DeviceState, Effect, OUTBOX_PRODUCER,
};
use fleetline_raft_group::{Command, Machine, MachineError, Reply};
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{Head, StreamCommand, StreamError, StreamLimits, StreamReply, StreamState};
use fleetline_types::{LogId, Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Effects that wait to be performed at the most. Each only says "look", and gateways look by
/// themselves when a partition's leader changes, so one too many is dropped and counted.
const EFFECTS_MAX: usize = 1 << 16;

/// Effects of applied commands, for whoever performs them.
#[derive(Debug, Default)]
pub struct Effects {
    waiting: Mutex<Vec<Effect>>,
    arrived: Notify,
    /// Effects that were put, and those of them that were performed, since the start.
    put: AtomicU64,
    performed: watch::Sender<u64>,
}

impl Effects {
    fn put(&self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let taken = effects.len().min(EFFECTS_MAX.saturating_sub(waiting.len()));
        let dropped = effects.len() - taken;
        if dropped > 0 {
            metrics::counter!("fleetline_device_effects_dropped_total").increment(dropped as u64);
        }
        waiting.extend(effects.into_iter().take(taken));
        self.put.fetch_add(taken as u64, Ordering::AcqRel);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for effects and takes them all. When they are performed, say so with
    /// [`Effects::performed`].
    pub async fn take(&self) -> Vec<Effect> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    /// So many of those that were taken are performed.
    pub fn performed(&self, count: usize) {
        self.performed.send_modify(|performed| *performed += count as u64);
    }

    /// Waits until all effects that were put before the call are performed.
    pub async fn settled(&self) {
        let put = self.put.load(Ordering::Acquire);
        let mut performed = self.performed.subscribe();
        // The sender lives as long as this does.
        drop(performed.wait_for(|performed| *performed >= put).await);
    }
}

/// What a machine publishes once a round is in the store.
#[derive(Clone, Debug)]
pub struct Published {
    /// The ends of the stream.
    pub head: watch::Receiver<Head>,
    /// Counters of the devices.
    pub devices: watch::Receiver<DeviceHead>,
    /// What the leader has to do.
    pub effects: Arc<Effects>,
}

/// Hands a group's commands to `broker/streams` and `broker/devices`, and publishes the ends of the
/// stream that readers may see: those of a whole round.
pub struct PartitionMachine {
    partition: PartitionId,
    partitions: u32,
    limits: StreamLimits,
    store: Arc<dyn StateStore>,
    state: Option<(StreamState, DeviceState)>,
    head: watch::Sender<Head>,
    devices: watch::Sender<DeviceHead>,
    effects: Arc<Effects>,
}

impl PartitionMachine {
    /// A machine for `partition` of a hub with `partitions` whose rows are in `store`, and what it
    /// will publish.
    pub fn new(
        partition: PartitionId,
        partitions: u32,
        limits: StreamLimits,
        store: Arc<dyn StateStore>,
    ) -> (PartitionMachine, Published) {
        let (head, head_receiver) = watch::channel(Head::default());
        let (devices, devices_receiver) = watch::channel(DeviceHead::default());
        let effects = Arc::new(Effects::default());
        let published =
            Published { head: head_receiver, devices: devices_receiver, effects: effects.clone() };
        let machine =
            PartitionMachine { partition, partitions, limits, store, state: None, head, devices, effects };
        (machine, published)
    }

    fn state(&mut self) -> &mut (StreamState, DeviceState) {
        self.state.as_mut().expect("invariant: a group loads its machine before it applies")
    }

    fn apply_device(
        &mut self,
        id: LogId,
        command: &Command,
        out: &mut StateBatch,
    ) -> Result<Reply, MachineError> {
        let decoded = DeviceCommand::decode_entry(&command.head, &command.body)
            .map_err(|error| MachineError::UnknownEntry { id, reason: error.to_string() })?;
        let reply = self.state().1.apply(id, &decoded, out)?;
        Ok(Reply(prost::Message::encode_to_vec(&reply).into()))
    }

    /// The checkpoint decides: when it is refused, nothing else is done.
    fn apply_commit(
        &mut self,
        id: LogId,
        command: &Command,
        out: &mut StateBatch,
    ) -> Result<Reply, MachineError> {
        let unknown =
            |error: &dyn std::fmt::Display| MachineError::UnknownEntry { id, reason: error.to_string() };
        let commit = Commit::decode_entry(&command.head, &command.body).map_err(|error| unknown(&error))?;
        let (streams, devices) = self.state();
        let (first, next) = (Offset(commit.first), Offset(commit.next));
        let stream = streams.commit_checkpoint(&commit.group, commit.epoch, first, next, out);
        let changes = match stream {
            StreamReply::Refused(_) => None,
            _ => Some(devices.apply(id, &commit.command(), out)?),
        };
        let reply = CommitReply { stream: stream.encode(), changes };
        Ok(Reply(prost::Message::encode_to_vec(&reply).into()))
    }

    fn apply_stream(
        &mut self,
        id: LogId,
        command: &Command,
        out: &mut StateBatch,
    ) -> Result<StreamReply, MachineError> {
        let unknown =
            |error: &dyn std::fmt::Display| MachineError::UnknownEntry { id, reason: error.to_string() };
        let decoded = StreamCommand::decode(&command.head).map_err(|error| unknown(&error))?;
        let (streams, devices) = self.state();
        let header = match decoded {
            StreamCommand::Append { .. } => BatchHeader::parse(&command.body).ok(),
            _ => None,
        };
        let Some(header) = header else {
            return streams.apply(id, &decoded, &command.body, out).map_err(|error| unknown(&error));
        };
        if !devices.batch_passes(header.fence, &command.body)? {
            let (current, given) = (u64::from(devices.head().fence), u64::from(header.fence));
            return Ok(StreamReply::Refused(StreamError::Fenced {
                what: "a device".to_owned(),
                current,
                given,
            }));
        }
        if header.producer.id.0 != OUTBOX_PRODUCER {
            return streams.apply(id, &decoded, &command.body, out).map_err(|error| unknown(&error));
        }
        let (first, count) = (header.producer.first_sequence, u64::from(header.count));
        if devices.outbox_fits(first, count).is_err() {
            let expected = devices.head().outbox_done;
            return Ok(StreamReply::Refused(StreamError::OutOfSequence { expected, given: first }));
        }
        let reply = streams.append_unnumbered(id, &decoded, &header, command.body.len() as u32);
        if matches!(reply, StreamReply::Appended { .. })
            && devices.outbox_appended(first, count, out).is_err()
        {
            unreachable!("invariant: what fits the outbox leaves it");
        }
        Ok(reply)
    }
}

impl Machine for PartitionMachine {
    fn load(&mut self, store: &dyn StateStore) -> Result<(), MachineError> {
        let streams = StreamState::load(store, self.partition, self.partitions, self.limits)?;
        let devices = DeviceState::load(self.store.clone(), self.partition)?;
        self.state = Some((streams, devices));
        Ok(())
    }

    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        match &command.head {
            head if DeviceCommand::is_head(head) => self.apply_device(id, command, out),
            head if Commit::is_head(head) => self.apply_commit(id, command, out),
            _ => Ok(Reply(self.apply_stream(id, command, out)?.encode())),
        }
    }

    fn end_of_round(&mut self, out: &mut StateBatch) -> Result<(), MachineError> {
        let (streams, devices) = self.state();
        streams.end_of_round(out);
        devices.end_of_round(out);
        Ok(())
    }

    fn published(&mut self, _id: LogId) {
        let (streams, devices) = self.state();
        let (head, devices_head, effects) = (streams.head(), devices.head(), devices.published());
        self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        self.devices.send_if_modified(|seen| std::mem::replace(seen, devices_head) != devices_head);
        self.effects.put(effects);
    }
}
