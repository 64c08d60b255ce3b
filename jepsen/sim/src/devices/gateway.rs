//! A gateway: connections of devices, and their records in batches that carry the number of the last fence
//! that it has applied. It learns of fences from any node, however far behind.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{CloseSession, ConnectionPlace, DeviceKey, Op, OpenSession, PatchReported, WillRow};
use fleetline_iothub::errors::ErrorCode;
use fleetline_native::HubError;
use fleetline_native::model::Appended;
use fleetline_types::ProducerId;
use tokio::time::{sleep, timeout};

use super::history::{Opened, Used};
use super::{Answer, Clients, PATIENCE};
use crate::rng::Rng;

/// Fences learnt at a time: few, so that pages follow one another.
const FENCES_PAGE: usize = 2;

/// A device's connection.
struct Session {
    epoch: u64,
    /// Number of its next record.
    next: u64,
}

/// A record on its way.
struct Sent {
    device: String,
    epoch: u64,
    body: String,
}

struct Gateway {
    clients: Clients,
    number: u64,
    rng: Rng,
    fence: u32,
    /// Of the producer.
    epoch: u32,
    /// Of the producer's next record.
    sequence: u64,
    connections: u64,
    sessions: BTreeMap<String, Session>,
    /// By device: sessions of lower epochs are over.
    over: BTreeMap<String, u64>,
}

/// Runs a gateway until the run stops.
pub(super) async fn run(clients: Clients, number: u64) {
    let rng = Rng::new(clients.seed, 2100 + number);
    let (sessions, over, stop) = (BTreeMap::new(), BTreeMap::new(), clients.stop.clone());
    let (fence, epoch, sequence, connections) = (1, 1, 0, 0);
    let mut gateway = Gateway { clients, number, rng, fence, epoch, sequence, connections, sessions, over };
    while !stop.get() {
        match gateway.rng.below(20) {
            0 | 1 => gateway.open().await,
            2 | 3 if gateway.sessions.is_empty() => gateway.open().await,
            3 => gateway.close().await,
            4 | 5 => gateway.report().await,
            6 => gateway.catch_up(),
            _ => gateway.send().await,
        }
        sleep(Duration::from_millis(1 + gateway.rng.below(60))).await;
    }
}

impl Gateway {
    fn some_session(&mut self) -> Option<DeviceKey> {
        let place = self.rng.below(self.sessions.len() as u64) as usize;
        self.sessions.keys().nth(place).map(DeviceKey::device)
    }

    async fn open(&mut self) {
        let key = self.clients.any_key(&mut self.rng);
        let device = self.clients.some(&mut self.rng).map(|partition| partition.devices().device(&key));
        let Some(Ok(Some(row))) = device else { return };
        self.connections += 1;
        let (node, connection) = (self.number, self.connections);
        let will = format!("will/{}/{node}/{connection}", key.device);
        let open = OpenSession {
            key: key.clone(),
            auth_version: row.auth_version,
            place: ConnectionPlace { node, incarnation: 1, connection },
            clean: self.rng.below(2) == 0,
            will: Some(WillRow { bag: String::new(), body: will.into_bytes().into() }),
            ..OpenSession::default()
        };
        let invoked = self.clients.history.borrow_mut().tick();
        let answer = self.clients.change(&mut self.rng, Op::OpenSession(open)).await;
        if let Answer::Done { reply, head } = answer
            && let Some(opened) = reply.opened
        {
            let mut history = self.clients.history.borrow_mut();
            let (span, epoch) = (history.span(invoked), opened.session.epoch);
            history.opened.push(Opened { device: key.device.clone(), epoch, span, head });
            self.sessions.insert(key.device, Session { epoch, next: 0 });
        }
    }

    /// A connection breaks, or says good-bye.
    async fn close(&mut self) {
        let Some(key) = self.some_session() else { return };
        let Some(session) = self.sessions.remove(&key.device) else { return };
        let graceful = self.rng.below(2) == 0;
        self.in_session(
            key.clone(),
            session.epoch,
            Op::CloseSession(CloseSession { key, epoch: session.epoch, graceful }),
        )
        .await;
    }

    async fn report(&mut self) {
        let Some(key) = self.some_session() else { return };
        let epoch = self.sessions[&key.device].epoch;
        let patch = Bytes::from(format!(r#"{{"n":{}}}"#, self.rng.below(1000)));
        let patch = PatchReported { key: key.clone(), epoch, patch, if_version: 0 };
        self.in_session(key, epoch, Op::PatchReported(patch)).await;
    }

    /// Does something that only a living session may.
    async fn in_session(&mut self, key: DeviceKey, epoch: u64, op: Op) {
        let invoked = self.clients.history.borrow_mut().tick();
        match self.clients.change(&mut self.rng, op).await {
            Answer::Done { .. } => {
                let mut history = self.clients.history.borrow_mut();
                let span = history.span(invoked);
                history.used.push(Used { device: key.device, epoch, span });
            }
            Answer::Refused(ErrorCode::DeviceConnectionClosedRemotely) => {
                self.sessions.remove(&key.device);
            }
            Answer::Refused(_) | Answer::NotDone | Answer::Unknown => {}
        }
    }

    fn is_over(&self, device: &str, epoch: u64) -> bool {
        self.over.get(device).is_some_and(|fenced| epoch < *fenced)
    }

    /// Applies the fences that some node knows, which may be none.
    fn catch_up(&mut self) {
        let Some(partition) = self.clients.some(&mut self.rng) else { return };
        while let Ok(Some(fences)) = partition.devices().fences(self.fence, FENCES_PAGE) {
            let Some(last) = fences.last().map(|fence| fence.number) else { break };
            for fence in fences {
                self.over.insert(fence.key.device, fence.index);
            }
            self.fence = last;
        }
        let over = std::mem::take(&mut self.sessions).into_iter();
        self.sessions = over.filter(|(device, session)| !self.is_over(device, session.epoch)).collect();
    }

    /// Sends some records of each session, and the same batch again until it has an answer.
    async fn send(&mut self) {
        let (mut records, mut unknown) = (self.records(), false);
        let mut place = self.rng.below(self.clients.count());
        while !records.is_empty() && !self.clients.stop.get() {
            match self.append(place, &records).await {
                Ok(appended) => {
                    self.stored(&records, Some(appended.base_offset.0));
                    self.sequence += records.len() as u64;
                    return;
                }
                Err(HubError::Fenced { .. }) => {
                    self.catch_up();
                    records.retain(|sent| !self.is_over(&sent.device, sent.epoch));
                    if records.is_empty() && unknown {
                        // What nobody waits for any more may be stored with these numbers.
                        (self.epoch, self.sequence) = (self.epoch + 1, 0);
                    }
                }
                Err(HubError::OutOfSequence { expected, given }) => {
                    self.sequence = expected;
                    if expected > given {
                        // It was stored at an earlier attempt, in the form that it had then.
                        self.stored(&records, None);
                        return;
                    }
                }
                Err(error) => {
                    unknown |= !super::nothing_was_done(&error);
                    place += 1;
                    if self.rng.below(3) == 0 {
                        // A connection breaks while its records are on their way: they stay in the batch.
                        self.close().await;
                    }
                }
            }
            sleep(Duration::from_millis(5 + self.rng.below(60))).await;
        }
    }

    /// New records of all sessions.
    fn records(&mut self) -> Vec<Sent> {
        let (mut records, mut history) = (Vec::new(), self.clients.history.borrow_mut());
        for (device, session) in &mut self.sessions {
            for _ in 0..=self.rng.below(2) {
                let (device, epoch) = (device.clone(), session.epoch);
                let body = format!("rec/{device}/{epoch}/{}", session.next);
                session.next += 1;
                history.sent.insert(body.clone());
                records.push(Sent { device, epoch, body });
            }
        }
        records
    }

    async fn append(&self, place: u64, records: &[Sent]) -> Result<Appended, HubError> {
        let mut builder = BatchBuilder::default();
        builder.set_fence(self.fence);
        for sent in records {
            let (device, body) = (sent.device.as_bytes(), sent.body.as_bytes());
            let record = RecordRef { device, body, ..RecordRef::default() };
            builder.push(&record).map_err(|error| HubError::Internal(error.to_string()))?;
        }
        let id = ProducerId(1000 + self.number);
        let producer = Producer { id, epoch: self.epoch, first_sequence: self.sequence };
        let batch = builder.finish(producer, Compression::None);
        let batch = batch.ok_or_else(|| HubError::Internal("an empty batch".to_owned()))?;
        let Some(partition) = self.clients.partition(place) else {
            return Err(HubError::Unavailable("node is down".to_owned()));
        };
        let unknown = |_| HubError::Unknown("no answer in time".to_owned());
        timeout(PATIENCE, partition.append(batch)).await.map_err(unknown)?
    }

    fn stored(&self, records: &[Sent], base_offset: Option<u64>) {
        let mut history = self.clients.history.borrow_mut();
        for (sent, place) in records.iter().zip(0..) {
            history.stored.insert(sent.body.clone(), base_offset.map(|base| base + place));
        }
        self.clients.note(("batch", self.number, base_offset, records.len()));
    }
}
