//! One partition of one function: from the claim until it is given up or taken away.
//!
//! A batch of a function that takes many records is one invocation. One of a function that takes single
//! records is an invocation each: those of one device one after the other, those of different devices at
//! the same time; their effects are committed in the records' order, as many at a time as fit into an entry.
//!
//! When the effects of one invocation don't fit into an entry, it runs again with half of its records; for
//! one record, it is a failure. Whether they fit is known before anything is done outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fleetline_devices::Op;
use fleetline_gateway::hub::{HubError, ReadFrom};
use fleetline_types::{MemberId, PartitionId, TimestampMs};
use fleetline_worker::LogLevel;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::attempt::{Attempted, Job, attempt};
use super::batch::{Cursor, Filled, RecordBatch};
use super::commit::{Committed, Owner};
use super::{Stop, StreamFunction, poison};
use crate::host_json::Initial;
use crate::ids::guid_of;
use crate::outside::{Appender, Doer};
use crate::placing::{self, Placed};
use crate::records::{self, Origin, StreamRecord};
use crate::state::KeyedState;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop, and has.
    Released,
    /// Somebody else owns the partition, or something moved that must not: it is claimed anew if it is
    /// still this member's.
    Fenced,
}

/// Why an invocation's effects are not committed.
enum GivenUp {
    /// The function can't process its records.
    Poison(String),
    /// They don't fit into one entry.
    TooLarge(String),
}

/// See the module's header.
pub(crate) struct Run {
    function: Arc<StreamFunction>,
    partition: PartitionId,
    epoch: u64,
    stop: Stop,
    appender: Appender,
    state: KeyedState,
    /// The checkpoint.
    position: u64,
    hub_name: String,
    host_name: String,
}

/// What one record, or one batch, led to.
struct Settled {
    own: Vec<Op>,
    state: BTreeMap<String, Option<Bytes>>,
    poisoned: u64,
}

impl Run {
    /// Takes the partition and processes it.
    pub(crate) async fn run(
        function: Arc<StreamFunction>,
        partition: PartitionId,
        epoch: u64,
        member: MemberId,
        stop: Stop,
    ) -> Ended {
        let host_name = function.core.host_name();
        let hub_name = match function.trigger.hub_name.is_empty() {
            true => host_name.split('.').next().unwrap_or_default().to_owned(),
            false => function.trigger.hub_name.clone(),
        };
        let appender = Appender::of_owner(&function.app.name, &function.spec.name, partition, epoch);
        let mut run = Run {
            stop,
            partition,
            epoch,
            appender,
            state: KeyedState::default(),
            position: 0,
            hub_name,
            host_name,
            function,
        };
        let ended = match run.take(member).await {
            Ok(()) => run.process().await,
            Err(ended) => ended,
        };
        run.function.stats.forget_lag(partition.0);
        ended
    }

    fn owner(&self) -> Owner<'_> {
        Owner { function: &self.function, partition: self.partition, epoch: self.epoch }
    }

    /// Claims the partition, and finds out where to go on.
    async fn take(&mut self, member: MemberId) -> Result<(), Ended> {
        let mut backoff = self.function.core.backoff();
        loop {
            match self.try_take(member).await {
                Ok(()) => return Ok(()),
                Err(HubError::Fenced { .. }) => return Err(Ended::Fenced),
                Err(error) => {
                    tracing::debug!(partition = %self.partition, group = self.function.group, %error, "claim failed");
                }
            }
            if !self.stop.sleep(backoff.next()).await {
                return Err(Ended::Released);
            }
        }
    }

    async fn try_take(&mut self, member: MemberId) -> Result<(), HubError> {
        let StreamFunction { core, app, spec, group, .. } = self.function.as_ref();
        let found = core.hub.claim(self.partition, group, member, self.epoch).await?;
        self.position = match found.next {
            Some(next) => next.0,
            None => {
                let from = match app.host.initial {
                    Initial::Start => ReadFrom::Earliest,
                    Initial::End => ReadFrom::Latest,
                    Initial::Time(ms) => ReadFrom::Time(TimestampMs(ms)),
                };
                let first = core.hub.resolve(self.partition, from).await?;
                // Whoever comes next begins here too, not where the end is then.
                core.hub.checkpoint(self.partition, group, self.epoch, first).await?;
                first.0
            }
        };
        if app.keeps_state() {
            let state = KeyedState::read(core.devices.as_ref(), &app.name, &spec.name, self.partition).await;
            self.state = state.map_err(|error| HubError::Unavailable(error.to_string()))?;
        }
        Ok(())
    }

    async fn process(&mut self) -> Ended {
        let function = self.function.clone();
        let mut cursor = Cursor::new(self.partition, self.position);
        let most = function.app.host.event_batch;
        let mut limit = most;
        loop {
            let mut stop = self.stop.clone();
            let outcome = match cursor.fill(&function, limit, &mut stop).await {
                Filled::Stopped => return Ended::Released,
                Filled::Skipped(next) => {
                    let commit = self.owner().make(self.position, next, Vec::new());
                    let committed = self.owner().commit(commit, &mut stop).await;
                    self.after(committed, next)
                }
                Filled::Batch(batch) if function.trigger.many => {
                    limit = match self.many(batch, &mut cursor).await {
                        Ok(None) => most,
                        // It was too large, and its records are in the cursor again.
                        Ok(Some(smaller)) => smaller,
                        Err(ended) => return ended,
                    };
                    Ok(())
                }
                Filled::Batch(batch) => self.each(batch).await,
            };
            match outcome {
                Ok(()) => {}
                Err(ended) => return ended,
            }
            function.stats.set_lag(self.partition.0, cursor.lag(self.position));
        }
    }

    /// What follows from a commit.
    fn after(&mut self, committed: Committed, next: u64) -> Result<(), Ended> {
        match committed {
            Committed::Done => {
                self.position = next;
                Ok(())
            }
            Committed::Fenced => Err(Ended::Fenced),
            Committed::Stopped => Err(Ended::Released),
            // Two runs of the same owner can't be: whatever it is, the partition is taken anew.
            Committed::Moved(to) => {
                tracing::warn!(partition = %self.partition, at = self.position, to, "checkpoint moved without this run");
                Err(Ended::Fenced)
            }
            Committed::Refused(reason) => {
                tracing::error!(partition = %self.partition, reason, "a commit within its bounds was refused");
                Err(Ended::Fenced)
            }
        }
    }

    fn id_of(&self, record: &StreamRecord) -> String {
        let (app, function) = (&self.function.app.name, &self.function.spec.name);
        guid_of(&["invocation", app, function, &self.partition.0.to_string(), &record.offset.to_string()])
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            partition: self.partition.0,
            group: &self.function.group,
            hub: &self.hub_name,
            host: &self.host_name,
        }
    }

    fn poison(&self, records: &[StreamRecord], reason: &str) -> Settled {
        let text =
            format!("{} records from offset {} on are given up: {reason}", records.len(), records[0].offset);
        let function = &self.function;
        function.core.say(&function.app.name, &function.spec.name, LogLevel::Error, text);
        let own = poison::emits(&function.origin(), self.partition, records, reason, function.core.now_ms());
        Settled { own, state: BTreeMap::new(), poisoned: records.len() as u64 }
    }

    /// All records in one invocation; gives a smaller size when the effects don't fit into one entry.
    async fn many(&mut self, batch: RecordBatch, cursor: &mut Cursor) -> Result<Option<usize>, Ended> {
        let RecordBatch { records, next } = batch;
        let Some(first) = records.first() else { return Ok(None) };
        let function = self.function.clone();
        let device = &first.view.device;
        let same = records.iter().all(|record| record.view.device == *device);
        let job = Job {
            id: self.id_of(first),
            partition: self.partition,
            data: records::many(&function.trigger, &self.origin(), &records),
            device: same.then(|| first.device()).filter(|device| !device.is_empty()),
            state: function.app.keeps_state().then(|| self.state.input()),
        };
        let mut stop = self.stop.clone();
        let outcome = attempt(&function, job, &mut stop).await;
        let result = match self.settle(outcome, &self.state, next).await? {
            Ok(result) => result,
            Err(GivenUp::TooLarge(reason)) if records.len() > 1 => {
                let smaller = records.len() / 2;
                let text = format!("{reason}: the batch runs again with {smaller} records");
                function.core.say(&function.app.name, &function.spec.name, LogLevel::Warning, text);
                cursor.give_back(records);
                return Ok(Some(smaller));
            }
            Err(GivenUp::Poison(reason) | GivenUp::TooLarge(reason)) => self.poison(&records, &reason),
        };
        self.store(vec![(result, next)], &mut stop).await.map(|()| None)
    }

    /// From an attempt to what a commit has to do; outside effects are done.
    async fn settle(
        &self,
        outcome: Attempted,
        state: &KeyedState,
        next: u64,
    ) -> Result<Result<Settled, GivenUp>, Ended> {
        let (placed, changes) = match outcome {
            Attempted::Done { placed, state } => (placed, state),
            Attempted::Poison(reason) => return Ok(Err(GivenUp::Poison(reason))),
            Attempted::Stopped => return Err(Ended::Released),
        };
        let Placed { mut own, outside } = placed;
        match state.operations(&changes) {
            Ok(ops) => own.extend(ops),
            Err(reason) => return Ok(Err(GivenUp::Poison(reason))),
        }
        let commit = self.owner().make(self.position, next, own);
        if let Err(reason) = placing::check(&commit) {
            return Ok(Err(GivenUp::TooLarge(reason)));
        }
        let stop = self.stop.clone();
        let doer = Doer {
            core: &self.function.core,
            app: &self.function.app.name,
            function: &self.function.spec.name,
            stats: &self.function.stats,
            appender: &self.appender,
            must_stop: &move || stop.is_set(),
        };
        if let Err(error) = doer.all(outside).await {
            tracing::debug!(%error, "effects of a function are left for the next owner");
            return Err(Ended::Released);
        }
        let own = commit.changes.ops.into_iter().filter_map(|item| item.op).collect();
        Ok(Ok(Settled { own, state: changes, poisoned: 0 }))
    }

    /// An invocation for each record.
    async fn each(&mut self, batch: RecordBatch) -> Result<(), Ended> {
        let RecordBatch { records, next } = batch;
        let next_of = |index: usize| records.get(index + 1).map_or(next, |record| record.offset);
        let mut results: Vec<Option<Settled>> = records.iter().map(|_| None).collect();
        let mut ended = None;
        if self.function.app.keeps_state() {
            // Each sees what the last one has left.
            let mut state = self.state.clone();
            for (index, record) in records.iter().enumerate() {
                match self.single(record, &state, next_of(index)).await {
                    Ok(result) => {
                        state.apply(&result.state);
                        results[index] = Some(result);
                    }
                    Err(end) => {
                        ended = Some(end);
                        break;
                    }
                }
            }
        } else {
            let mut chains: HashMap<Bytes, Vec<usize>> = HashMap::new();
            for (index, record) in records.iter().enumerate() {
                chains.entry(record.view.device.clone()).or_default().push(index);
            }
            let (run, records) = (&*self, &records);
            let chain = |indexes: Vec<usize>| async move {
                let mut done = Vec::new();
                for index in indexes {
                    match run.single(&records[index], &run.state, next_of(index)).await {
                        Ok(result) => done.push((index, result)),
                        Err(end) => return (done, Some(end)),
                    }
                }
                (done, None)
            };
            let mut running: FuturesUnordered<_> = chains.into_values().map(chain).collect();
            while let Some((done, end)) = running.next().await {
                done.into_iter().for_each(|(index, result)| results[index] = Some(result));
                ended = ended.or(end);
            }
        }
        // Also when the run has to stop: what is done in front need not be done again.
        let mut stored = Vec::new();
        for (index, result) in results.into_iter().enumerate() {
            let Some(result) = result else { break };
            stored.push((result, next_of(index)));
        }
        let mut stop = self.stop.clone();
        self.store(stored, &mut stop).await?;
        ended.map_or(Ok(()), Err)
    }

    async fn single(&self, record: &StreamRecord, state: &KeyedState, next: u64) -> Result<Settled, Ended> {
        let function = &self.function;
        let job = Job {
            id: self.id_of(record),
            partition: self.partition,
            data: records::one(&function.trigger, &self.origin(), record),
            device: Some(record.device()).filter(|device| !device.is_empty()),
            state: function.app.keeps_state().then(|| state.input()),
        };
        let outcome = attempt(function, job, &mut self.stop.clone()).await;
        match self.settle(outcome, state, next).await? {
            Ok(result) => Ok(result),
            Err(GivenUp::Poison(reason) | GivenUp::TooLarge(reason)) => {
                Ok(self.poison(std::slice::from_ref(record), &reason))
            }
        }
    }

    /// Commits results in order, as many at a time as fit into an entry. Each has the checkpoint behind it.
    async fn store(&mut self, results: Vec<(Settled, u64)>, stop: &mut Stop) -> Result<(), Ended> {
        let mut results = results.into_iter().peekable();
        while results.peek().is_some() {
            let (mut ops, mut bytes, mut poisoned) = (Vec::new(), 0, 0);
            let (mut next, mut changed) = (self.position, Vec::new());
            while let Some((result, _)) = results.peek() {
                let more: usize = result.own.iter().map(placing::size).sum();
                if next > self.position && !placing::fits(ops.len() + result.own.len(), bytes + more) {
                    break;
                }
                let Some((result, behind)) = results.next() else { break };
                bytes += more;
                ops.extend(result.own);
                changed.push(result.state);
                poisoned += result.poisoned;
                next = behind;
            }
            let commit = self.owner().make(self.position, next, ops);
            let committed = self.owner().commit(commit, stop).await;
            self.after(committed, next)?;
            changed.iter().for_each(|changes| self.state.apply(changes));
            if poisoned > 0 {
                self.function.stats.poisoned(poisoned);
            }
        }
        Ok(())
    }
}
