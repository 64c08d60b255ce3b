//! Owners of the partition in a consumer group: they claim it, read on from the checkpoint and store new
//! ones, until they are fenced or tire of it. A looker-on reads the checkpoint.
//!
//! Epochs come from a counter of the run in place of the group's coordinator (which `broker/streams` tests
//! by itself): each claim has a higher one than all before it. An owner that was replaced doesn't know, and
//! goes on until it is told.

use std::time::Duration;

use fleetline_checker::{Kind, Outcome, Record, hash_bytes};
use fleetline_native::HubError;
use fleetline_streams::StreamQuery;
use fleetline_types::{MemberId, Offset};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use crate::node::PARTITION;
use crate::plant::Plant;
use crate::rng::Rng;
use crate::stream::{PATIENCE, StreamClients};

/// Owners that take the partition from each other.
const OWNERS: u64 = 2;
/// Their group.
const GROUP: &str = "owners";

/// How a request ended.
enum Ended<T> {
    Done(T),
    /// Another owner has it.
    Fenced,
    /// Nothing was done.
    Refused,
    Unknown,
}

impl<T> Ended<T> {
    fn of(answer: Result<Result<T, HubError>, Elapsed>) -> Ended<T> {
        match answer {
            Ok(Ok(done)) => Ended::Done(done),
            Ok(Err(HubError::Fenced { .. })) => Ended::Fenced,
            Ok(Err(error)) if error.is_definite() => Ended::Refused,
            Ok(Err(_)) | Err(_) => Ended::Unknown,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Ended::Done(_) => Outcome::Ok,
            Ended::Fenced | Ended::Refused => Outcome::Failed,
            Ended::Unknown => Outcome::Unknown,
        }
    }
}

fn record(kind: Kind, process: u32, epoch: u64, offset: Option<u64>) -> Record {
    Record { key: hash_bytes(GROUP.as_bytes()), epoch, offset, ..Record::new(kind, process, PARTITION.0) }
}

impl StreamClients {
    pub(crate) fn start_owners(&self) -> Vec<JoinHandle<()>> {
        let mut tasks: Vec<_> =
            (0..OWNERS).map(|number| tokio::task::spawn_local(self.clone().own(number))).collect();
        tasks.push(tokio::task::spawn_local(self.clone().look_on()));
        tasks
    }

    async fn own(self, number: u64) {
        let mut rng = Rng::new(self.options.seed, 4000 + number);
        let process = self.journal.borrow_mut().process();
        while !self.stop.get() {
            let epoch = self.epoch.get() + 1;
            self.epoch.set(epoch);
            if let Some(next) = self.claim(&mut rng, process, MemberId(number + 1), epoch).await {
                self.act(&mut rng, process, epoch, next).await;
            }
            sleep(Duration::from_millis(rng.below(800))).await;
        }
    }

    /// Claims the partition, at one node after the other; gives where to read on.
    async fn claim(&self, rng: &mut Rng, process: u32, member: MemberId, epoch: u64) -> Option<u64> {
        let begin = rng.below(self.count());
        for place in begin..begin + 2 * self.count() {
            if let Some(partition) = self.partition(place) {
                let invoke = self.journal.borrow_mut().now();
                let answer = timeout(PATIENCE, partition.claim(GROUP, member, epoch)).await;
                let ended = Ended::of(answer);
                let outcome = ended.outcome();
                let next = match &ended {
                    Ended::Done(found) => found.next.map(|next| next.0),
                    _ => None,
                };
                let claim = Record { outcome, ..record(Kind::Claim, process, epoch, next) };
                self.journal.borrow_mut().ended(invoke, claim);
                match ended {
                    Ended::Done(_) => {
                        self.trace.borrow_mut().note(("claim", epoch, next));
                        return Some(next.unwrap_or(0));
                    }
                    Ended::Fenced => return None,
                    Ended::Refused | Ended::Unknown => {}
                }
            }
            sleep(Duration::from_millis(5 + rng.below(40))).await;
        }
        None
    }

    /// Reads and stores checkpoints.
    async fn act(&self, rng: &mut Rng, process: u32, epoch: u64, mut next: u64) {
        self.journal.borrow_mut().seek(process, next);
        let mut place = rng.below(self.count());
        for _ in 0..rng.below(30) {
            if self.stop.get() {
                return;
            }
            match self.read(process, place, next).await {
                Some(behind) => next = behind,
                None => place += 1,
            }
            // Now and then an older one, which changes nothing.
            let stored = if rng.below(8) == 0 { rng.below(next + 1) } else { next };
            if !self.checkpoint(process, place, epoch, stored).await {
                return;
            }
            sleep(Duration::from_millis(1 + rng.below(60))).await;
            place = rng.below(self.count());
        }
    }

    /// Stores a checkpoint through a node, and through the next ones while those don't take it. Whether the
    /// owner may go on.
    async fn checkpoint(&self, process: u32, place: u64, epoch: u64, next: u64) -> bool {
        for place in place..place + self.count() {
            let Some(partition) = self.partition(place) else { continue };
            let invoke = self.journal.borrow_mut().now();
            let answer = timeout(PATIENCE, partition.checkpoint(GROUP, epoch, Offset(next))).await;
            let ended = Ended::of(answer);
            let stored = record(Kind::Checkpoint, process, epoch, Some(next));
            self.journal.borrow_mut().ended(invoke, Record { outcome: ended.outcome(), ..stored });
            match ended {
                Ended::Done(()) => {
                    self.trace.borrow_mut().note(("checkpoint", epoch, next));
                    return true;
                }
                Ended::Fenced => return false,
                Ended::Refused | Ended::Unknown => {}
            }
        }
        true
    }

    async fn look_on(self) {
        let mut rng = Rng::new(self.options.seed, 4100);
        let process = self.journal.borrow_mut().process();
        while !self.stop.get() {
            let place = rng.below(self.count());
            let invoke = self.journal.borrow_mut().now();
            if let Some((epoch, next)) = self.checkpoint_at(place).await {
                let found = record(Kind::CheckpointRead, process, epoch, next.map(|next| next.0));
                self.journal.borrow_mut().ended(invoke, found);
                self.trace.borrow_mut().note(("checkpoint read", epoch, next));
            }
            sleep(Duration::from_millis(rng.below(60))).await;
        }
    }

    /// The checkpoint as the node at `place` tells it: epoch and next record.
    async fn checkpoint_at(&self, place: u64) -> Option<(u64, Option<Offset>)> {
        let partition = self.partition(place)?;
        if self.planted(Plant::ReadCheckpointAnywhere) {
            let nodes = self.nodes.borrow();
            let state = &nodes[(place % self.count()) as usize].state;
            let row = StreamQuery::new(state, PARTITION).checkpoint(GROUP).ok()?;
            return Some((row.epoch, row.next));
        }
        let found = timeout(PATIENCE, partition.checkpoint_read(GROUP)).await.ok()?.ok()?;
        Some((found.epoch, found.next))
    }
}
