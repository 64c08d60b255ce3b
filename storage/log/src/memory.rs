//! The model of the log in memory: what the contract says, written as plainly as possible.
//!
//! It is the oracle of this crate's tests and the log of other crates' tests. It shares no code
//! with the files, so that a slip in one of them shows as a difference.
//!
//! A model is either durable at once ([`MemLog::new`]), or nothing is durable until
//! [`MemLog::pump`] is called ([`MemLog::manual`]); [`MemLog::crash`] then forgets the rest.
//!
//! Not here: bounds on memory. A test that appends for ever runs out of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;

use fleetline_types::{GroupId, LogId, LogIndex, Term};
use parking_lot::Mutex;

use crate::{Done, GroupLogState, InstallPrefix, LogEntry, LogError, LogStats, NodeLog, VoteRecord};

/// A log in memory. See the head of the module.
pub struct MemLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What callers see.
    seen: BTreeMap<GroupId, Group>,
    /// What a crash leaves; unused when everything is durable at once.
    durable: BTreeMap<GroupId, Group>,
    manual: bool,
    pending: VecDeque<(GroupId, Op, u64, Option<Done>)>,
    poisoned: Option<String>,
    full: bool,
    /// Groups that aren't known may have been lost: as callers see it, and after a crash.
    doubt: bool,
    durable_doubt: bool,
    frames: u64,
    syncs: u64,
}

/// One entry, or the memory of one that is damaged.
#[derive(Clone, Debug)]
struct Slot {
    /// `None` when it was damaged together with its term.
    id: Option<LogId>,
    entry: Option<LogEntry>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    vote: Option<VoteRecord>,
    purged: Option<LogId>,
    first: u64,
    slots: BTreeMap<u64, Slot>,
    amnesia: bool,
    /// Removed, and nothing but votes came since.
    removed: bool,
    /// One behind the last durable entry.
    durable_next: u64,
    /// Raised by everything that removes entries; older completions then count no more.
    epoch: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<LogEntry>),
    Vote(VoteRecord),
    Truncate(Option<LogIndex>),
    Purge(LogId),
    Retain(LogIndex),
    Repair(LogEntry),
    InstallBegin(InstallPrefix),
    InstallEntries(Vec<LogEntry>),
    Remove,
    ClearAmnesia,
    Trust(Vec<GroupId>),
}

impl MemLog {
    /// A log whose requests are durable, and completed, before they return.
    pub fn new() -> MemLog {
        MemLog { state: Mutex::default() }
    }

    /// A log in which nothing becomes durable before [`MemLog::pump`].
    pub fn manual() -> MemLog {
        MemLog { state: Mutex::new(State { manual: true, ..State::default() }) }
    }

    /// Makes everything queued durable, then completes it in order. Returns how many requests.
    pub fn pump(&self) -> usize {
        self.pump_some(usize::MAX)
    }

    /// As [`MemLog::pump`], for at most `max` requests.
    pub fn pump_some(&self, max: usize) -> usize {
        let mut dones = Vec::new();
        let mut count = 0;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            while count < max {
                let Some((group, op, epoch, done)) = state.pending.pop_front() else {
                    break;
                };
                count += 1;
                let doubt = &mut state.durable_doubt;
                apply(&mut state.durable, doubt, group, &op).expect("an operation that was seen to be valid");
                if let Some(seen) = state.seen.get_mut(&group) {
                    seen.completed(&op, epoch);
                }
                dones.push(done);
            }
            state.syncs += u64::from(count > 0);
        }
        for done in dones.into_iter().flatten() {
            done(Ok(()));
        }
        count
    }

    /// Loses the power: forgets what isn't durable, and never completes it.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        if state.manual {
            state.pending.clear();
            state.seen = state.durable.clone();
            state.doubt = state.durable_doubt;
            for group in state.seen.values_mut() {
                group.durable_next = group.next();
            }
        }
        state.poisoned = None;
    }

    /// Fails everything queued and everything that comes, as after a failed sync.
    pub fn poison(&self, reason: &str) {
        let pending = {
            let mut state = self.state.lock();
            state.poisoned.get_or_insert_with(|| reason.to_owned());
            std::mem::take(&mut state.pending)
        };
        for done in pending.into_iter().filter_map(|(_, _, _, done)| done) {
            done(Err(LogError::Poisoned { reason: reason.to_owned() }));
        }
    }

    /// Makes [`NodeLog::admit`] refuse (or accept again) as on a full disk.
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Damages the bytes of an entry; it then reads as unavailable until repaired.
    pub fn damage(&self, group: GroupId, index: LogIndex) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for groups in [&mut state.seen, &mut state.durable] {
            if let Some(slot) = groups.get_mut(&group).and_then(|group| group.slots.get_mut(&index.0)) {
                slot.entry = None;
            }
        }
    }

    /// Sets the amnesia mark, as recovery does after a loss.
    pub fn set_amnesia(&self, group: GroupId) {
        let mut state = self.state.lock();
        state.seen.entry(group).or_default().amnesia = true;
        state.durable.entry(group).or_default().amnesia = true;
    }

    /// Doubts whether groups that aren't known were here, as recovery does after a loss.
    pub fn set_doubt(&self) {
        let mut state = self.state.lock();
        (state.doubt, state.durable_doubt) = (true, true);
    }

    fn submit(&self, group: GroupId, op: Op, done: Option<Done>) -> Result<(), LogError> {
        let done = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if let Some(reason) = &state.poisoned {
                return Err(LogError::Poisoned { reason: reason.clone() });
            }
            apply(&mut state.seen, &mut state.doubt, group, &op)?;
            state.frames += op.frames();
            let epoch = state.seen.get(&group).map_or(0, |group| group.epoch);
            if state.manual {
                state.pending.push_back((group, op, epoch, done));
                None
            } else {
                if let Some(group) = state.seen.get_mut(&group) {
                    group.durable_next = group.next();
                }
                state.syncs += 1;
                done
            }
        };
        if let Some(done) = done {
            done(Ok(()));
        }
        Ok(())
    }

    fn with_group<T>(&self, group: GroupId, ask: impl FnOnce(&Group) -> T) -> Option<T> {
        self.state.lock().seen.get(&group).map(ask)
    }
}

impl Default for MemLog {
    fn default() -> MemLog {
        MemLog::new()
    }
}

impl fmt::Debug for MemLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("MemLog")
            .field("groups", &state.seen.len())
            .field("pending", &state.pending.len())
            .field("poisoned", &state.poisoned)
            .finish()
    }
}

impl Op {
    fn frames(&self) -> u64 {
        match self {
            Op::Append(entries) | Op::InstallEntries(entries) => entries.len() as u64,
            _ => 1,
        }
    }
}

fn misuse<T>(text: String) -> Result<T, LogError> {
    Err(LogError::Misuse(text))
}

fn apply(
    groups: &mut BTreeMap<GroupId, Group>,
    doubt: &mut bool,
    id: GroupId,
    op: &Op,
) -> Result<(), LogError> {
    if let Op::Trust(doubtful) = op {
        for group in doubtful.iter().filter(|_| *doubt) {
            groups.entry(*group).or_insert_with(|| Group { amnesia: true, ..Group::default() });
        }
        *doubt = false;
        return Ok(());
    }
    let mut fresh = Group { amnesia: *doubt, ..Group::default() };
    let group = groups.get_mut(&id);
    let known = group.is_some();
    let group = group.unwrap_or(&mut fresh);
    match op {
        Op::Append(entries) => group.append(entries)?,
        Op::Vote(vote) => group.vote = Some(vote.clone()),
        Op::Truncate(keep) => group.truncate(*keep)?,
        Op::Purge(upto) => group.purge(*upto),
        Op::Retain(first) if known => group.retain(first.0),
        Op::Retain(_) => return Ok(()),
        Op::Repair(entry) => group.repair(entry)?,
        Op::InstallBegin(prefix) => group.install_begin(prefix)?,
        Op::InstallEntries(entries) => group.install_entries(entries)?,
        Op::Remove => group.remove(),
        Op::ClearAmnesia => group.amnesia = false,
        Op::Trust(_) => {}
    }
    if !known {
        groups.insert(id, fresh);
    }
    Ok(())
}

impl Group {
    /// One behind the last entry.
    fn next(&self) -> u64 {
        let purged = self.purged.map_or(0, |id| id.index.0 + 1);
        self.slots.last_key_value().map_or(purged, |(index, _)| purged.max(index + 1))
    }

    fn last(&self) -> Option<LogId> {
        match self.slots.last_key_value() {
            Some((index, slot)) if self.purged.is_none_or(|purged| purged.index.0 < *index) => slot.id,
            _ => self.purged,
        }
    }

    fn id_at(&self, index: u64) -> Option<LogId> {
        let purged = self.purged.filter(|id| id.index.0 == index);
        self.slots.get(&index).and_then(|slot| slot.id).or(purged)
    }

    fn holds_anything(&self) -> bool {
        !self.removed && (self.vote.is_some() || self.purged.is_some() || self.next() > 0)
    }

    /// Forgets all but the vote, and that it has forgotten.
    fn remove(&mut self) {
        let (vote, epoch) = (self.vote.take(), self.epoch + 1);
        *self = Group { vote, epoch, amnesia: true, removed: true, ..Group::default() };
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), LogError> {
        for (next, entry) in (self.next()..).zip(entries) {
            if entry.id.index.0 != next {
                return misuse(format!("append of entry {} where {next} is next", entry.id.index));
            }
        }
        for entry in entries {
            self.slots.insert(entry.id.index.0, Slot { id: Some(entry.id), entry: Some(entry.clone()) });
            self.removed = false;
        }
        Ok(())
    }

    fn truncate(&mut self, keep: Option<LogIndex>) -> Result<(), LogError> {
        let floor = self.purged.map_or(0, |id| id.index.0 + 1);
        let next = keep.map_or(floor, |keep| keep.0.saturating_add(1));
        if next < floor {
            return misuse(format!("truncation to {next} below the purge point {floor}"));
        }
        self.slots.retain(|index, _| *index < next);
        self.durable_next = self.durable_next.min(next);
        self.epoch += 1;
        Ok(())
    }

    fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.removed = false;
        let conflict = self.id_at(upto.index.0).is_some_and(|id| id != upto);
        if upto.index.0 >= self.next() || conflict {
            self.reset(upto.index.0 + 1);
        }
        self.purged = Some(upto);
    }

    fn retain(&mut self, first: u64) {
        let first = first.min(self.purged.map_or(0, |id| id.index.0 + 1));
        self.first = self.first.max(first);
        let first = self.first;
        self.slots.retain(|index, _| *index >= first);
    }

    fn repair(&mut self, entry: &LogEntry) -> Result<(), LogError> {
        let index = entry.id.index.0;
        let before = self.slots.range(..index).rev().find_map(|(_, slot)| slot.id).map(|id| id.term);
        let after = self.slots.range(index + 1..).find_map(|(_, slot)| slot.id).map(|id| id.term);
        let Some(slot) = self.slots.get_mut(&index) else {
            return misuse(format!("repair of entry {index}, which the log doesn't hold"));
        };
        let fits = match slot.id {
            Some(id) => id == entry.id,
            None => before.is_none_or(|t| t <= entry.id.term) && after.is_none_or(|t| entry.id.term <= t),
        };
        if !fits {
            return misuse(format!("repair with entry {}, which isn't the one that was lost", entry.id));
        }
        *slot = Slot { id: Some(entry.id), entry: Some(entry.clone()) };
        Ok(())
    }

    fn install_begin(&mut self, prefix: &InstallPrefix) -> Result<(), LogError> {
        let (last, first) = (prefix.snapshot_last, prefix.first_retained.0);
        if first > last.index.0 + 1 {
            return misuse(format!("snapshot up to {} whose entries begin at {first}", last.index));
        }
        if self.purged.is_some_and(|purged| purged.index > last.index) {
            return misuse(format!("snapshot up to {} is older than the purge point", last.index));
        }
        self.removed = false;
        if self.id_at(last.index.0) != Some(last) {
            self.reset(first);
        }
        self.first = first;
        self.slots.retain(|index, _| *index >= first);
        for index in first..=last.index.0 {
            self.slots.entry(index).or_insert(Slot { id: None, entry: None });
        }
        if let Some(slot) = self.slots.get_mut(&last.index.0) {
            slot.id = Some(last);
        }
        self.purged = Some(last);
        self.epoch += 1;
        self.durable_next = self.durable_next.min(last.index.0 + 1);
        Ok(())
    }

    fn install_entries(&mut self, entries: &[LogEntry]) -> Result<(), LogError> {
        let end = self.purged.map_or(0, |id| id.index.0 + 1);
        for entry in entries {
            let index = entry.id.index.0;
            let known = self.id_at(index).is_some_and(|id| id != entry.id);
            if index < self.first || index >= end || known {
                return misuse(format!("entry {} isn't part of the snapshot being installed", entry.id));
            }
        }
        for entry in entries {
            self.slots.insert(entry.id.index.0, Slot { id: Some(entry.id), entry: Some(entry.clone()) });
        }
        Ok(())
    }

    fn reset(&mut self, first: u64) {
        self.slots.clear();
        self.first = first;
        self.durable_next = 0;
        self.epoch += 1;
    }

    /// A request that was made in `epoch` is durable now.
    fn completed(&mut self, op: &Op, epoch: u64) {
        if self.epoch != epoch {
            return;
        }
        let next = match op {
            Op::Append(entries) => entries.last().map_or(0, |entry| entry.id.index.0 + 1),
            Op::Truncate(Some(keep)) => keep.0.saturating_add(1).min(self.next()),
            Op::Truncate(None) | Op::Purge(_) | Op::InstallBegin(_) => {
                self.purged.map_or(0, |id| id.index.0 + 1)
            }
            _ => 0,
        };
        self.durable_next = self.durable_next.max(next);
    }

    fn state(&self) -> GroupLogState {
        GroupLogState {
            vote: self.vote.clone(),
            purged: self.purged,
            last: self.last(),
            first_retained: LogIndex(self.first),
            durable: self.durable_next.checked_sub(1).map(LogIndex),
            amnesia: self.amnesia,
            removed: self.removed,
        }
    }

    fn read(&self, id: GroupId, range: Range<LogIndex>, max_bytes: u64) -> Result<Vec<LogEntry>, LogError> {
        let end = range.end.0.min(self.next());
        if range.start.0 < self.first && range.start < range.end {
            return Err(LogError::Gone { group: id, index: range.start, first: LogIndex(self.first) });
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in range.start.0..end {
            match self.slots.get(&index).and_then(|slot| slot.entry.as_ref()) {
                Some(entry) => {
                    bytes += entry.payload.len() as u64;
                    if !entries.is_empty() && bytes > max_bytes {
                        break;
                    }
                    entries.push(entry.clone());
                }
                None if entries.is_empty() => {
                    return Err(LogError::EntryUnavailable { group: id, index: LogIndex(index) });
                }
                None => break,
            }
        }
        Ok(entries)
    }

    fn term_starts(&self) -> Vec<LogId> {
        let mut starts: Vec<LogId> = Vec::new();
        for id in self.slots.values().filter_map(|slot| slot.id) {
            if starts.last().is_none_or(|start| start.term != id.term) {
                starts.push(id);
            }
        }
        starts
    }

    /// Damaged entries; where the term went too, it is that of the entry before.
    fn damaged(&self) -> Vec<LogId> {
        let mut term = Term(0);
        let mut found = Vec::new();
        for (index, slot) in &self.slots {
            term = slot.id.map_or(term, |id| id.term);
            if slot.entry.is_none() {
                found.push(LogId { term, index: LogIndex(*index) });
            }
        }
        found
    }
}

impl NodeLog for MemLog {
    fn groups(&self) -> Vec<GroupId> {
        let state = self.state.lock();
        state.seen.iter().filter(|(_, group)| group.holds_anything()).map(|(id, _)| *id).collect()
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        let amnesia = self.state.lock().doubt;
        let unknown = || GroupLogState { amnesia, ..GroupLogState::default() };
        self.with_group(group, Group::state).unwrap_or_else(unknown)
    }

    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Append(entries), Some(done))
    }

    fn admit(&self, bytes: u64) -> Result<(), LogError> {
        let state = self.state.lock();
        match &state.poisoned {
            Some(reason) => Err(LogError::Poisoned { reason: reason.clone() }),
            None if state.full => Err(LogError::DiskFull { free_bytes: 0, reserve_bytes: bytes }),
            None => Ok(()),
        }
    }

    fn save_vote(&self, group: GroupId, vote: VoteRecord, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Vote(vote), Some(done))
    }

    fn truncate_after(&self, group: GroupId, keep: Option<LogIndex>, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Truncate(keep), Some(done))
    }

    fn purge(&self, group: GroupId, upto: LogId, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Purge(upto), Some(done))
    }

    fn retain_from(&self, group: GroupId, first: LogIndex) -> Result<(), LogError> {
        self.submit(group, Op::Retain(first), None)
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.with_group(group, |found| found.read(group, range, max_bytes)).unwrap_or(Ok(Vec::new()))
    }

    fn log_id(&self, group: GroupId, index: LogIndex) -> Option<LogId> {
        self.with_group(group, |group| group.id_at(index.0)).flatten()
    }

    fn term_starts(&self, group: GroupId) -> Vec<LogId> {
        self.with_group(group, Group::term_starts).unwrap_or_default()
    }

    fn damaged(&self, group: GroupId, limit: usize) -> Vec<LogId> {
        let mut found = self.with_group(group, Group::damaged).unwrap_or_default();
        found.truncate(limit);
        found
    }

    fn repair(&self, group: GroupId, entry: LogEntry, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Repair(entry), Some(done))
    }

    fn install_begin(&self, group: GroupId, prefix: InstallPrefix, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::InstallBegin(prefix), Some(done))
    }

    fn install_entries(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::InstallEntries(entries), Some(done))
    }

    fn remove_group(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::Remove, Some(done))
    }

    fn clear_amnesia(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        self.submit(group, Op::ClearAmnesia, Some(done))
    }

    fn doubts_unknown(&self) -> bool {
        self.state.lock().doubt
    }

    fn trust_unknown_groups(&self, doubtful: &[GroupId], done: Done) -> Result<(), LogError> {
        self.submit(GroupId::CONTROL, Op::Trust(doubtful.to_vec()), Some(done))
    }

    fn stats(&self) -> LogStats {
        let state = self.state.lock();
        LogStats {
            syncs: state.syncs,
            frames: state.frames,
            queued: state.pending.len() as u64,
            damaged: state.seen.values().map(|group| group.damaged().len() as u64).sum(),
            free_bytes: if state.full { 0 } else { u64::MAX },
            ..LogStats::default()
        }
    }
}
