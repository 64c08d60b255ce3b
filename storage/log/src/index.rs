//! What is known of one group, and where its entries stand.
//!
//! [`GroupMeta`] is the logical state: vote, purge point, range and terms of the entries. The same
//! code runs when a caller asks for a change, when the writer has written the frame (its copy is
//! what the next segment's checkpoint restates), and when recovery replays it; so the three can't
//! disagree. [`GroupIndex`] adds the place of every entry's bytes: 12 bytes an entry, terms as runs.
//!
//! Invariant: `first <= purged + 1 <= next`, `locs` covers exactly `first..next`, and so do the
//! runs of terms.
//!
//! Not here: locks, bytes of entries, files.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes};
use fleetline_types::{LogId, LogIndex, Term};

use crate::frame::{Frame, FrameKind};
use crate::{InstallPrefix, LogError, VoteRecord};

/// Term of entries whose term was lost with their bytes.
const UNKNOWN: u64 = u64::MAX;

/// A run of entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    term: u64,
}

/// The logical state of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupMeta {
    pub(crate) vote: Option<VoteRecord>,
    pub(crate) purged: Option<LogId>,
    /// First entry kept.
    pub(crate) first: u64,
    /// One behind the last entry; `purged + 1` when none lies behind the purge point.
    pub(crate) next: u64,
    pub(crate) amnesia: bool,
    /// The group was removed here, and nothing but votes came since.
    pub(crate) removed: bool,
    runs: VecDeque<Run>,
}

impl GroupMeta {
    pub(crate) fn new(amnesia: bool) -> GroupMeta {
        GroupMeta { amnesia, ..GroupMeta::default() }
    }

    /// Whether anything is stored that the group could go on from.
    pub(crate) fn holds_anything(&self) -> bool {
        !self.removed && (self.vote.is_some() || self.purged.is_some() || self.next > 0)
    }

    /// One behind the purge point.
    pub(crate) fn floor(&self) -> u64 {
        self.purged.map_or(0, |id| id.index.0 + 1)
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        if self.next == self.floor() {
            return self.purged;
        }
        // An entry of unknown term is never left last, except by a truncation between damaged ones.
        let index = self.next - 1;
        self.id_at(index).or_else(|| Some(LogId { term: self.term_floor(index), index: LogIndex(index) }))
    }

    /// The id at `index`, unless it isn't in the log or its term is lost.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.purged.filter(|id| id.index.0 == index) {
            return Some(purged);
        }
        if index < self.first || index >= self.next {
            return None;
        }
        let term = self.run_of(index)?.term;
        (term != UNKNOWN).then(|| LogId::new(term, index))
    }

    fn run_at(&self, index: u64) -> Option<usize> {
        self.runs.partition_point(|run| run.first <= index).checked_sub(1)
    }

    fn run_of(&self, index: u64) -> Option<Run> {
        // The last run is where appends and most reads are.
        match self.runs.back() {
            Some(run) if run.first <= index => Some(*run),
            _ => self.run_at(index).and_then(|at| self.runs.get(at).copied()),
        }
    }

    /// The term at `index`, or that of the closest entry before whose term is known.
    pub(crate) fn term_floor(&self, index: u64) -> Term {
        let known = self.runs.iter().rev().find(|run| run.first <= index && run.term != UNKNOWN);
        known.map_or(Term(0), |run| Term(run.term))
    }

    fn term_ceiling(&self, index: u64) -> u64 {
        let known = self.runs.iter().find(|run| run.first > index && run.term != UNKNOWN);
        known.map_or(u64::MAX, |run| run.term)
    }

    pub(crate) fn term_starts(&self) -> Vec<LogId> {
        let mut starts: Vec<LogId> = Vec::with_capacity(self.runs.len());
        for run in self.runs.iter().filter(|run| run.term != UNKNOWN) {
            if starts.last().is_none_or(|start| start.term.0 != run.term) {
                starts.push(LogId::new(run.term, run.first));
            }
        }
        starts
    }

    pub(crate) fn append(&mut self, id: LogId) {
        self.removed = false;
        self.push(id.term.0);
    }

    fn push(&mut self, term: u64) {
        if self.runs.back().is_none_or(|run| run.term != term) {
            self.runs.push_back(Run { first: self.next, term });
        }
        self.next += 1;
    }

    /// Keeps what lies before `next`.
    fn truncate(&mut self, next: u64) {
        self.next = self.next.min(next.max(self.floor()));
        while self.runs.back().is_some_and(|run| run.first >= self.next) {
            self.runs.pop_back();
        }
    }

    /// Returns whether all entries went.
    fn purge(&mut self, upto: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return false;
        }
        self.removed = false;
        let conflict = self.id_at(upto.index.0).is_some_and(|id| id != upto);
        let reset = upto.index.0 >= self.next || conflict;
        if reset {
            self.reset(upto.index.0 + 1);
        }
        self.purged = Some(upto);
        reset
    }

    /// Forgets the entries. The vote stands, and what was acknowledged here is gone: should the group
    /// come back, this replica must not vote before it is refilled.
    fn remove(&mut self) {
        *self = GroupMeta { vote: self.vote.take(), amnesia: true, removed: true, ..GroupMeta::default() };
    }

    fn reset(&mut self, first: u64) {
        self.runs.clear();
        self.first = first;
        self.next = first;
    }

    fn retain(&mut self, first: u64) {
        self.first = self.first.max(first.min(self.floor()));
        self.trim_front();
    }

    fn trim_front(&mut self) {
        while self.runs.get(1).is_some_and(|run| run.first <= self.first) {
            self.runs.pop_front();
        }
        if self.first >= self.next {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(self.first);
        }
    }

    /// Returns whether all entries went.
    fn install(&mut self, prefix: &InstallPrefix) -> bool {
        let (last, first) = (prefix.snapshot_last, prefix.first_retained.0);
        self.removed = false;
        let keep = self.id_at(last.index.0) == Some(last);
        if !keep {
            self.reset(first);
        }
        if first > self.first {
            self.first = first;
            self.trim_front();
        } else if first < self.first {
            if self.next > self.first {
                self.runs.push_front(Run { first, term: UNKNOWN });
            } else {
                self.next = first;
            }
            self.first = first;
        }
        while self.next <= last.index.0 {
            self.push(UNKNOWN);
        }
        self.purged = Some(last);
        if first <= last.index.0 {
            self.set_term(last.index.0, last.term.0);
        }
        !keep
    }

    /// Fills in a lost term.
    pub(crate) fn set_term(&mut self, index: u64, term: u64) {
        if index < self.first || index >= self.next {
            return;
        }
        let Some(at) = self.run_at(index) else { return };
        let run = self.runs[at];
        if run.term == term {
            return;
        }
        let end = self.runs.get(at + 1).map_or(self.next, |run| run.first);
        self.runs.remove(at);
        let pieces = [(run.first, index, run.term), (index, index + 1, term), (index + 1, end, run.term)];
        for (first, end, term) in pieces.into_iter().rev() {
            if first < end {
                self.runs.insert(at, Run { first, term });
            }
        }
        let mut merged: VecDeque<Run> = VecDeque::new();
        // Runs are few; only installs and repairs come here.
        if self.runs.len() > at + 1 || at > 0 {
            for run in self.runs.drain(..) {
                if merged.back().is_none_or(|before| before.term != run.term) {
                    merged.push_back(run);
                }
            }
            self.runs = merged;
        }
    }

    /// Marks the terms of `from..to` as lost.
    fn forget_terms(&mut self, from: u64, to: u64) {
        for index in from.max(self.first)..to.min(self.next) {
            self.set_term(index, UNKNOWN);
        }
    }

    /// Whether `id` can be the entry at its index.
    pub(crate) fn fits(&self, id: LogId) -> bool {
        match self.id_at(id.index.0) {
            Some(known) => known == id,
            None => self.term_floor(id.index.0) <= id.term && id.term.0 <= self.term_ceiling(id.index.0),
        }
    }

    /// What a checkpoint restates.
    pub(crate) fn encode(&self) -> Bytes {
        let vote = self.vote.as_ref();
        let mut out = Vec::with_capacity(64 + 16 * self.runs.len());
        let bits = [self.amnesia, vote.is_some(), self.purged.is_some(), self.removed];
        let flags = bits.into_iter().rev().fold(0, |flags, bit| flags << 1 | u8::from(bit));
        out.put_u8(flags);
        let purged = self.purged.unwrap_or_default();
        for number in [self.first, self.next, purged.term.0, purged.index.0] {
            out.put_u64_le(number);
        }
        let vote = vote.map_or(&[][..], |vote| &vote.0);
        out.put_u32_le(vote.len() as u32);
        out.put_slice(vote);
        out.put_u32_le(self.runs.len() as u32);
        for run in &self.runs {
            out.put_u64_le(run.first);
            out.put_u64_le(run.term);
        }
        out.into()
    }

    /// `None` when the bytes contradict themselves.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<GroupMeta> {
        let flags = bytes.try_get_u8().ok()?;
        let first = bytes.try_get_u64_le().ok()?;
        let next = bytes.try_get_u64_le().ok()?;
        let purged = LogId::new(bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
        let vote_len = bytes.try_get_u32_le().ok()? as usize;
        let vote = bytes.get(..vote_len)?;
        bytes = bytes.get(vote_len..)?;
        let count = bytes.try_get_u32_le().ok()? as usize;
        if bytes.len() != count.checked_mul(16)? || first > next {
            return None;
        }
        let runs = (0..count).map(|_| Run { first: bytes.get_u64_le(), term: bytes.get_u64_le() }).collect();
        Some(GroupMeta {
            vote: (flags & 2 != 0).then(|| VoteRecord(Bytes::copy_from_slice(vote))),
            purged: (flags & 4 != 0).then_some(purged),
            first,
            next,
            amnesia: flags & 1 != 0,
            removed: flags & 8 != 0,
            runs,
        })
    }

    /// Applies a change that isn't an entry at the end. Returns whether all entries went.
    pub(crate) fn apply_note(&mut self, frame: &Frame, payload: &Bytes) -> bool {
        match frame.kind {
            FrameKind::Vote => self.vote = Some(VoteRecord(payload.clone())),
            FrameKind::Truncate => self.truncate(frame.index),
            FrameKind::Purge => return self.purge(frame.id()),
            FrameKind::Retain => self.retain(frame.index),
            FrameKind::InstallBegin => {
                let first = payload.as_ref().try_get_u64_le().unwrap_or(frame.index + 1);
                let prefix = InstallPrefix { snapshot_last: frame.id(), first_retained: LogIndex(first) };
                return self.install(&prefix);
            }
            FrameKind::ClearAmnesia => self.amnesia = false,
            FrameKind::RemoveGroup => {
                self.remove();
                return true;
            }
            FrameKind::Repair | FrameKind::InstallEntry => self.set_term(frame.index, frame.term),
            FrameKind::Entry => self.append(frame.id()),
            FrameKind::GroupState => {
                if let Some(meta) = GroupMeta::decode(payload) {
                    *self = meta;
                }
            }
            FrameKind::Relocated
            | FrameKind::SegmentHeader
            | FrameKind::SegmentDrop
            | FrameKind::TrustUnknown => {}
        }
        false
    }

    /// Checks a truncation that a caller asks for; gives the first index to remove.
    pub(crate) fn check_truncate(&self, keep: Option<LogIndex>) -> Result<u64, LogError> {
        let next = keep.map_or(self.floor(), |keep| keep.0.saturating_add(1));
        if next < self.floor() {
            return Err(LogError::Misuse(format!(
                "truncation to {next} below the purge point {}",
                self.floor()
            )));
        }
        Ok(next)
    }

    pub(crate) fn check_install(&self, prefix: &InstallPrefix) -> Result<(), LogError> {
        let (last, first) = (prefix.snapshot_last, prefix.first_retained.0);
        let text = if first > last.index.0 + 1 {
            format!("snapshot up to {} whose entries begin at {first}", last.index)
        } else if self.purged.is_some_and(|purged| purged.index > last.index) {
            format!("snapshot up to {} is older than the purge point", last.index)
        } else {
            return Ok(());
        };
        Err(LogError::Misuse(text))
    }
}

/// Where the bytes of an entry are: segment, position of the frame, length of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loc {
    pub(crate) segment: u32,
    pub(crate) pos: u32,
    pub(crate) len: u32,
}

impl Loc {
    /// On its way to the disk; readable from memory.
    pub(crate) const PENDING: Loc = Loc { segment: u32::MAX, pos: 0, len: 0 };
    /// Damaged or not yet installed.
    pub(crate) const MISSING: Loc = Loc { segment: u32::MAX - 1, pos: 0, len: 0 };

    /// Whether the bytes are on disk.
    pub(crate) fn on_disk(self) -> bool {
        self.segment < Loc::MISSING.segment
    }
}

/// The logical state and the places.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    pub(crate) meta: GroupMeta,
    /// Place of entry `base + i`; `base` is `meta.first`.
    locs: VecDeque<Loc>,
    base: u64,
    missing: u64,
}

impl GroupIndex {
    pub(crate) fn missing(&self) -> u64 {
        self.missing
    }

    pub(crate) fn loc(&self, index: u64) -> Option<Loc> {
        self.locs.get(usize::try_from(index.checked_sub(self.base)?).ok()?).copied()
    }

    pub(crate) fn append(&mut self, id: LogId, loc: Loc) {
        self.meta.append(id);
        self.locs.push_back(loc);
        self.missing += u64::from(loc == Loc::MISSING);
    }

    /// Sets the place of an entry if the log (still) holds just that entry.
    pub(crate) fn set_loc(&mut self, id: LogId, loc: Loc) -> bool {
        if self.meta.id_at(id.index.0) != Some(id) || id.index.0 < self.base {
            return false;
        }
        let slot = self.locs.get_mut((id.index.0 - self.base) as usize);
        let Some(slot) = slot else { return false };
        self.missing -= u64::from(*slot == Loc::MISSING);
        self.missing += u64::from(loc == Loc::MISSING);
        *slot = loc;
        true
    }

    /// Notes that the bytes at `loc` are bad, unless the entry has moved meanwhile.
    pub(crate) fn set_missing(&mut self, index: u64, loc: Loc) -> bool {
        let at = index.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.locs.get_mut(at)) {
            Some(slot) if *slot == loc && loc != Loc::MISSING => {
                *slot = Loc::MISSING;
                self.missing += 1;
                true
            }
            _ => false,
        }
    }

    /// Applies any frame except entries at the end; places follow the logical state.
    pub(crate) fn apply_note(&mut self, frame: &Frame, payload: &Bytes) {
        let before = (frame.kind == FrameKind::GroupState).then(|| self.meta.clone());
        if self.meta.apply_note(frame, payload) {
            self.locs.clear();
            self.missing = 0;
            self.base = self.meta.first;
        }
        self.reconcile();
        if let Some(before) = before {
            self.distrust(&before);
        }
    }

    /// Makes `locs` cover `first..next` again.
    fn reconcile(&mut self) {
        let (first, next) = (self.meta.first, self.meta.next);
        while self.base < first && !self.locs.is_empty() {
            self.missing -= u64::from(self.locs.pop_front() == Some(Loc::MISSING));
            self.base += 1;
        }
        if self.locs.is_empty() {
            self.base = first;
        }
        while self.base > first {
            self.locs.push_front(Loc::MISSING);
            self.missing += 1;
            self.base -= 1;
        }
        let want = (next - first) as usize;
        while self.locs.len() > want {
            self.missing -= u64::from(self.locs.pop_back() == Some(Loc::MISSING));
        }
        while self.locs.len() < want {
            self.locs.push_back(Loc::MISSING);
            self.missing += 1;
        }
    }

    /// After a checkpoint: places of entries that it knows under another term are not theirs.
    fn distrust(&mut self, before: &GroupMeta) {
        for (at, slot) in self.locs.iter_mut().enumerate() {
            let index = self.base + at as u64;
            if *slot != Loc::MISSING && before.id_at(index) != self.meta.id_at(index) {
                *slot = Loc::MISSING;
                self.missing += 1;
            }
        }
    }

    /// Replays an entry at its place, where frames before it may have been lost: holes are filled
    /// with damaged entries. With `suspect` a truncation may have been lost as well.
    /// Returns how many entries became damaged.
    pub(crate) fn replay_entry(&mut self, id: LogId, loc: Loc, suspect: bool) -> u64 {
        let before = self.missing;
        if id.index.0 < self.meta.next {
            self.meta.truncate(id.index.0);
            self.reconcile();
            if id.index.0 < self.meta.next {
                return 0; // at or below the purge point: committed, and so the same entry
            }
        }
        let last = self.meta.last();
        let certain = last.is_none_or(|last| last.term == id.term || last.index.0 < self.meta.floor());
        if suspect && !certain {
            let from = self.meta.floor();
            self.meta.forget_terms(from, self.meta.next);
            for index in from..self.meta.next {
                if let Some(loc) = self.loc(index) {
                    self.set_missing(index, loc);
                }
            }
        }
        let hole_term = if certain && last.is_some_and(|l| l.term == id.term) { id.term.0 } else { UNKNOWN };
        while self.meta.next < id.index.0 {
            self.meta.push(hole_term);
            self.locs.push_back(Loc::MISSING);
            self.missing += 1;
        }
        self.append(id, loc);
        self.missing - before.min(self.missing)
    }

    /// Fills the log with damaged entries up to `id`, which is known to have been in it.
    pub(crate) fn pad_to(&mut self, id: LogId) {
        if self.meta.next > id.index.0 {
            return;
        }
        while self.meta.next <= id.index.0 {
            self.meta.push(UNKNOWN);
            self.locs.push_back(Loc::MISSING);
            self.missing += 1;
        }
        self.meta.set_term(id.index.0, id.term.0);
    }

    /// The damaged entries, oldest first; where the term went too, it is that of the entry before.
    pub(crate) fn damaged(&self, limit: usize) -> Vec<LogId> {
        if self.missing == 0 {
            return Vec::new();
        }
        let missing = self.locs.iter().enumerate().filter(|(_, loc)| **loc == Loc::MISSING);
        missing
            .take(limit)
            .map(|(at, _)| {
                let index = self.base + at as u64;
                let known = self.meta.id_at(index);
                known.unwrap_or(LogId { term: self.meta.term_floor(index), index: LogIndex(index) })
            })
            .collect()
    }

    /// All places, with their index.
    pub(crate) fn locs(&self) -> impl Iterator<Item = (u64, Loc)> + '_ {
        self.locs.iter().enumerate().map(|(at, loc)| (self.base + at as u64, *loc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loc(pos: u32) -> Loc {
        Loc { segment: 1, pos, len: 1 }
    }

    fn filled(terms: &[u64]) -> GroupIndex {
        let mut index = GroupIndex::default();
        for (at, term) in terms.iter().enumerate() {
            index.append(LogId::new(*term, at as u64), loc(at as u32));
        }
        index
    }

    /// A checkpoint survives encoding, and cut bytes are refused.
    #[test]
    fn meta_round_trip() {
        let mut meta = filled(&[1, 1, 2, 5]).meta;
        meta.vote = Some(VoteRecord(Bytes::from_static(b"v")));
        meta.purge(LogId::new(1, 1));
        let bytes = meta.encode();
        assert_eq!(GroupMeta::decode(&bytes), Some(meta));
        for len in 0..bytes.len() {
            assert_eq!(GroupMeta::decode(&bytes[..len]), None);
        }
    }

    /// Terms that were lost can be filled in one by one, and runs stay merged.
    #[test]
    fn lost_terms_are_filled_in() {
        let mut index = filled(&[1, 1, 1, 4, 4]);
        index.meta.forget_terms(1, 4);
        assert_eq!(index.meta.id_at(2), None);
        assert!(index.meta.fits(LogId::new(3, 2)) && !index.meta.fits(LogId::new(5, 2)));
        for (at, term) in [(1, 1), (3, 4), (2, 1)] {
            index.meta.set_term(at, term);
        }
        assert_eq!(index.meta, filled(&[1, 1, 1, 4, 4]).meta);
    }

    /// After a lost stretch, an entry of a new term makes everything not purged uncertain, because
    /// a truncation may have been lost; one of the same term proves that none was.
    #[test]
    fn suspect_entries() {
        let mut same = filled(&[1, 2, 2]);
        assert_eq!(same.replay_entry(LogId::new(2, 5), loc(9), true), 2);
        assert_eq!(same.damaged(9), vec![LogId::new(2, 3), LogId::new(2, 4)]);
        let mut other = filled(&[1, 2, 2]);
        other.meta.purge(LogId::new(1, 0));
        assert_eq!(other.replay_entry(LogId::new(3, 3), loc(9), true), 2);
        assert_eq!(other.damaged(9).len(), 2);
        assert_eq!(other.meta.last(), Some(LogId::new(3, 3)));
    }
}
