//! The stream workload: producers that send until they have an answer, readers that follow the stream from
//! its beginning. What they do is kept in the account and in the journal.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleetline_batch::{BatchBuilder, BatchReader, Compression, Producer, RecordRef};
use fleetline_checker::Outcome;
use fleetline_native::HubError;
use fleetline_native::model::ReadReply;
use fleetline_partition::Partition;
use fleetline_types::{Offset, ProducerId};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::account::{Account, Stored};
use crate::journal::Journal;
use crate::node::SimNode;
use crate::plant::Plant;
use crate::rng::Rng;
use crate::world::{Options, Trace};

/// How long a client waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Readers that follow the stream.
const READERS: u64 = 2;

/// What the clients share.
#[derive(Clone)]
pub(crate) struct StreamClients {
    pub(crate) nodes: Rc<RefCell<Vec<SimNode>>>,
    pub(crate) stop: Rc<Cell<bool>>,
    pub(crate) account: Rc<RefCell<Account>>,
    pub(crate) journal: Rc<RefCell<Journal>>,
    pub(crate) trace: Rc<RefCell<Trace>>,
    /// The last epoch that an owner was given.
    pub(crate) epoch: Rc<Cell<u64>>,
    pub(crate) options: Rc<Options>,
}

impl StreamClients {
    /// Starts everybody.
    pub(crate) fn start(&self) -> Vec<JoinHandle<()>> {
        let mut tasks: Vec<_> = (0..self.options.producers)
            .map(|number| tokio::task::spawn_local(self.clone().produce(number)))
            .collect();
        tasks.extend((0..READERS).map(|number| tokio::task::spawn_local(self.clone().follow(number))));
        tasks.extend(self.start_owners());
        tasks
    }

    pub(crate) fn count(&self) -> u64 {
        self.options.nodes
    }

    pub(crate) fn planted(&self, plant: Plant) -> bool {
        self.options.plant == Some(plant)
    }

    /// The replica of the node at `place`, modulo their number.
    pub(crate) fn partition(&self, place: u64) -> Option<Arc<Partition>> {
        let place = (place % self.count()) as usize;
        self.nodes.borrow()[place].running.as_ref().map(|running| running.partition.clone())
    }

    /// Sends batches of one device, in order, each again and again until it has an answer.
    async fn produce(self, number: u64) {
        let mut rng = Rng::new(self.options.seed, 1000 + number);
        let device = format!("device-{number}");
        let process = self.journal.borrow_mut().process();
        let id = if self.planted(Plant::ForgetProducers) { ProducerId(0) } else { ProducerId(number + 1) };
        let (mut first_sequence, mut builder) = (0u64, BatchBuilder::default());
        while !self.stop.get() {
            let bodies: Vec<String> =
                (0..=rng.below(4)).map(|n| format!("{device}/{:08}", first_sequence + n)).collect();
            for body in &bodies {
                self.account.borrow_mut().sent(body);
                let (device, body) = (device.as_bytes(), body.as_bytes());
                if builder.push(&RecordRef { device, body, ..RecordRef::default() }).is_err() {
                    return;
                }
            }
            let Some(batch) = builder.finish(Producer { id, epoch: 1, first_sequence }, Compression::None)
            else {
                return;
            };
            let invoke = self.journal.borrow_mut().now();
            let answer = self.send(&mut rng, batch).await;
            let outcome = if answer.is_some() { Outcome::Ok } else { Outcome::Unknown };
            let base_offset = answer.flatten();
            self.journal.borrow_mut().sent(process, invoke, (&device, &bodies), outcome, base_offset);
            if answer.is_none() {
                return;
            }
            for (body, offset) in bodies.iter().zip(base_offset.into_iter().flat_map(|base| base..)) {
                self.account.borrow_mut().acknowledged(body, offset);
            }
            self.trace.borrow_mut().note(("ack", number, base_offset));
            first_sequence += bodies.len() as u64;
            sleep(Duration::from_millis(1 + rng.below(40))).await;
        }
    }

    /// Sends the same bytes until they are acknowledged, and gives where they are; `None` when the run ends
    /// before.
    async fn send(&self, rng: &mut Rng, batch: bytes::Bytes) -> Option<Option<u64>> {
        let mut place = rng.below(self.count());
        // The planted node says that it has stored a batch which it has only proposed.
        let hasty = self.planted(Plant::AcknowledgeBeforeQuorum);
        let patience = if hasty { Duration::from_millis(2) } else { PATIENCE };
        loop {
            let answer = match self.partition(place) {
                Some(partition) => timeout(patience, partition.append(batch.clone())).await,
                None => Ok(Err(HubError::Unavailable("node is down".to_owned()))),
            };
            match answer {
                Ok(Ok(appended)) => return Some(Some(appended.base_offset.0)),
                Err(_) if hasty => return Some(None),
                Ok(Err(_)) | Err(_) if self.stop.get() => return None,
                Ok(Err(_)) | Err(_) => {}
            }
            // Somebody else may lead by now, or it was stored and the answer is lost: same bytes again.
            place += 1;
            sleep(Duration::from_millis(20 + rng.below(80))).await;
        }
    }

    /// Follows the stream from its beginning, on one replica until that can't serve it, or by a whim.
    async fn follow(self, number: u64) {
        let mut rng = Rng::new(self.options.seed, 3000 + number);
        let process = self.journal.borrow_mut().process();
        self.journal.borrow_mut().seek(process, 0);
        let (mut next, mut place) = (0, rng.below(self.count()));
        while !self.stop.get() {
            match self.read(process, place, next).await {
                Some(behind) if rng.below(8) > 0 => next = behind,
                Some(behind) => (next, place) = (behind, rng.below(self.count())),
                None => {
                    place += 1;
                    sleep(Duration::from_millis(5 + rng.below(100))).await;
                }
            }
        }
    }

    /// Reads what comes next at `place`; gives where to go on, `None` when that replica can't serve it.
    pub(crate) async fn read(&self, process: u32, place: u64, next: u64) -> Option<u64> {
        let partition = self.partition(place)?;
        let invoke = self.journal.borrow_mut().now();
        let wait = Duration::from_millis(200);
        let reply = timeout(PATIENCE, partition.read(Offset(next), 2 << 10, wait)).await.ok()?.ok()?;
        let behind = reply.next.0;
        let records = records(reply, next).ok()?;
        self.journal.borrow_mut().read(process, invoke, &records);
        self.trace.borrow_mut().note(("read", process, behind));
        Some(behind)
    }

    /// Reads all that the node at `place` holds.
    pub(crate) async fn read_all(&self, place: u64) -> Result<Vec<Stored>, String> {
        let partition = self.partition(place).ok_or("a node doesn't run")?;
        let process = self.journal.borrow_mut().process();
        self.journal.borrow_mut().seek(process, 0);
        let (mut all, mut from) = (Vec::new(), Offset(0));
        while from < partition.head().next {
            let invoke = self.journal.borrow_mut().now();
            let reply =
                partition.read(from, 64 << 10, Duration::from_secs(30)).await.map_err(|e| e.to_string())?;
            if reply.next == from {
                return Err(format!("reading stops at {from}"));
            }
            let next = reply.next;
            let records = records(reply, from.0)?;
            self.journal.borrow_mut().read(process, invoke, &records);
            all.extend(records);
            from = next;
        }
        Ok(all)
    }
}

/// The records of a reply from `from` on; those before are of the same batch.
fn records(reply: ReadReply, from: u64) -> Result<Vec<Stored>, String> {
    let mut records = Vec::new();
    for stored in reply.batches {
        let batch = BatchReader::new(stored.batch).map_err(|error| error.to_string())?;
        for (record, offset) in batch.zip(stored.base_offset.0..) {
            let record = record.map_err(|error| error.to_string())?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if offset >= from {
                records.push(Stored { offset, device: text(&record.device), body: text(&record.body) });
            }
        }
    }
    Ok(records)
}
