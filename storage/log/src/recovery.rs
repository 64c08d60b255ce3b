//! What a start does: finds the segments, replays their frames, and decides what was lost.
//!
//! ```text
//!   newest good head: which older segments exist, and their first and last frame
//!     older segment   sidecar if it says the same, else scan; missing: all its entries are damaged
//!     newer, last     scan; an honest torn tail is cut off
//!   then: a new segment that restates everything begins. Old ones are never written to again.
//! ```
//! Three outcomes of a bad stretch:
//! - *torn tail*: nothing in it was ever acknowledged, and the durable mark agrees; it is cut off;
//! - *damaged entries*: a later checkpoint, or the numbering of entries, tells what should be there;
//!   these entries are unavailable here until repaired;
//! - *amnesia*: a vote may have been in it (no later checkpoint restates them), or the log ends
//!   before its mark. Every group then has amnesia, known or not, until peers have refilled it.
//!
//! Nothing is deleted but what a frame of the log, or an unfinished last write, explains.
//!
//! Not here: finding damage in bytes of entries when a good sidecar spares us the scan; reads find it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fleetline_env::OpenMode;
use fleetline_types::GroupId;

use crate::cell::{Cell, CellState};
use crate::frame::{Frame, FrameKind, HEADER_BYTES, Place, SegmentHead, SegmentSpan};
use crate::index::{GroupIndex, Loc};
use crate::scan::{Gap, Scan, scan};
use crate::seg_log::io_error;
use crate::segment::{
    Found, Segment, Sidecar, SidecarBuilder, parse_name, read_file, segment_path, sidecar_path,
};
use crate::shared::Core;
use crate::writer::Start;
use crate::{DamagedRange, LogError, RecoveryReport};

/// Recovers the log; fills the groups and segments of `core`.
pub(crate) fn recover(core: &Core, mark: Option<u64>) -> Result<(Start, RecoveryReport), LogError> {
    let mut recovery = Recovery::new(core, mark)?;
    recovery.load_tail()?;
    recovery.replay_older()?;
    recovery.replay_tail();
    recovery.remove_explained();
    Ok(recovery.finish())
}

struct Recovery<'a> {
    core: &'a Core,
    report: RecoveryReport,
    /// All segment files.
    files: BTreeMap<u32, Arc<Segment>>,
    sidecars: BTreeSet<u32>,
    /// Older segments that exist by the newest good head.
    older: Vec<SegmentSpan>,
    /// From the newest good head on: files to be read in full.
    tail_ids: Vec<u32>,
    tail: Vec<(u32, Scan)>,
    replay: Replay,
    live: BTreeMap<u32, SegmentSpan>,
    /// Files that the log itself says are superfluous.
    superfluous: Vec<u32>,
    highest_seq: u64,
}

impl<'a> Recovery<'a> {
    fn new(core: &'a Core, mark: Option<u64>) -> Result<Recovery<'a>, LogError> {
        let (mut files, mut sidecars) = (BTreeMap::new(), BTreeSet::new());
        for name in core.disk.list(core.dir()).map_err(io_error)? {
            if let Some(id) = parse_name(&name, ".seg") {
                let path = segment_path(core.dir(), id);
                let file = core.disk.open(&path, OpenMode::ReadWrite).map_err(io_error)?;
                let bytes = file.len().map_err(io_error)?;
                files.insert(id, Segment::new(id, file, bytes));
            } else if let Some(id) = parse_name(&name, ".idx") {
                sidecars.insert(id);
            }
        }
        let mut heads =
            files.values().rev().filter_map(|segment| read_head(segment).map(|head| (segment.id, head)));
        let newest = heads.next();
        drop(heads);
        let first_tail = newest.as_ref().map_or(0, |(id, _)| *id);
        let older = newest.map(|(_, head)| head.live).unwrap_or_default();
        let tail_ids = files.range(first_tail..).map(|(id, _)| *id).collect();
        let listed: BTreeSet<u32> = older.iter().map(|span| span.id).collect();
        let superfluous =
            files.range(..first_tail).map(|(id, _)| *id).filter(|id| !listed.contains(id)).collect();
        let report = RecoveryReport { mark, ..RecoveryReport::default() };
        Ok(Recovery {
            core,
            report,
            files,
            sidecars,
            older,
            tail_ids,
            tail: Vec::new(),
            replay: Replay::default(),
            live: BTreeMap::new(),
            superfluous,
            highest_seq: 0,
        })
    }

    /// Reads the newest segments, and cuts off an unfinished last write.
    fn load_tail(&mut self) -> Result<(), LogError> {
        let mut last_seq = self.older.last().map_or(0, |span| span.last_seq);
        let last_id = self.tail_ids.last().copied();
        for id in self.tail_ids.clone() {
            let segment = self.files[&id].clone();
            let mut scan = self.scan(&segment)?;
            if Some(id) == last_id
                && let Some(gap) = scan.torn()
            {
                let before = gap.before.checked_sub(1).map_or(last_seq, |at| scan.frames[at].frame.seq);
                if self.report.mark.is_none_or(|mark| before >= mark) {
                    self.cut(&segment, &mut scan, gap)?;
                }
            }
            if scan.frames.is_empty() && Some(id) == last_id {
                // Its first write never finished, or (the mark says) was lost: then it is kept aside.
                let keep = !scan.gaps.is_empty();
                self.put_away(id, keep)?;
                continue;
            }
            last_seq = scan.frames.last().map_or(last_seq, |found| found.frame.seq);
            self.replay.collect_drops(&scan.frames);
            self.tail.push((id, scan));
        }
        Ok(())
    }

    fn scan(&mut self, segment: &Segment) -> Result<Scan, LogError> {
        self.report.scanned += 1;
        // A file that can't be read at all is an error of the machine, not a reason to forget it.
        let bytes = read_file(&*segment.file).map_err(io_error)?;
        Ok(scan(segment.id, &Bytes::from(bytes)))
    }

    fn cut(&mut self, segment: &Segment, scan: &mut Scan, gap: Gap) -> Result<(), LogError> {
        let len = segment.bytes.load(Ordering::Relaxed);
        segment.file.set_len(gap.from).and_then(|()| segment.file.sync_data()).map_err(io_error)?;
        segment.bytes.store(gap.from, Ordering::Relaxed);
        self.report.torn_bytes += len - gap.from;
        scan.frames.truncate(gap.before);
        scan.gaps.clear();
        Ok(())
    }

    /// Takes a file without a single good frame out of the log.
    fn put_away(&mut self, id: u32, keep: bool) -> Result<(), LogError> {
        let path = segment_path(self.core.dir(), id);
        let done = if keep {
            let bytes = self.files[&id].bytes.load(Ordering::Relaxed);
            self.damage(id, 0, bytes);
            self.core.disk.rename(&path, &path.with_extension("lost"))
        } else {
            self.core.disk.remove(&path)
        };
        done.map_err(io_error)?;
        self.files.remove(&id);
        Ok(())
    }

    /// Replays the segments that the newest head lists.
    fn replay_older(&mut self) -> Result<(), LogError> {
        for span in self.older.clone() {
            if self.replay.dropped.contains(&u64::from(span.id)) {
                self.superfluous.push(span.id);
                continue;
            }
            self.live.insert(span.id, span);
            self.highest_seq = self.highest_seq.max(span.last_seq);
            let segment = self.files.get(&span.id).cloned();
            if let Some(sidecar) = self.sidecar(span) {
                let len = segment.as_ref().map_or(0, |s| s.bytes.load(Ordering::Relaxed));
                if len < sidecar.bytes {
                    self.report.damaged_ranges.push(DamagedRange { segment: span.id, from: len, to: len });
                }
                self.replay_frames(span.id, &sidecar.frames, len);
            } else if let Some(segment) = &segment {
                let mut scan = self.scan(segment)?;
                scan.frames.retain(|found| found.frame.seq <= span.last_seq);
                self.replay_scan(segment, &scan, Some(span));
            } else {
                self.damage(span.id, 0, 0);
            }
            match segment {
                Some(segment) => self.core.segments.add(segment),
                None => self.core.chore(|chores| chores.lost.push(span.id)),
            }
            self.report.segments += 1;
        }
        Ok(())
    }

    /// The sidecar of a segment if it speaks of just the frames that were sealed.
    fn sidecar(&self, span: SegmentSpan) -> Option<Sidecar> {
        if !self.sidecars.contains(&span.id) {
            return None;
        }
        let file = self.core.disk.open(&sidecar_path(self.core.dir(), span.id), OpenMode::Read).ok()?;
        let bytes = Bytes::from(read_file(&*file).ok()?);
        Sidecar::decode(span.id, &bytes).filter(|sidecar| sidecar.span == span)
    }

    fn replay_tail(&mut self) {
        for (id, scan) in std::mem::take(&mut self.tail) {
            let Some(segment) = self.files.get(&id).cloned() else { continue };
            self.replay_scan(&segment, &scan, None);
            let (first, last) = (scan.frames.first(), scan.frames.last());
            let seq = |found: Option<&Found>| found.map_or(0, |found| found.frame.seq);
            self.live.insert(id, SegmentSpan { id, first_seq: seq(first), last_seq: seq(last) });
            self.core.segments.add(segment);
            self.report.segments += 1;
        }
    }

    /// Replays what a scan found, and damage where it was found; `span` is what there should be.
    fn replay_scan(&mut self, segment: &Segment, scan: &Scan, span: Option<SegmentSpan>) {
        let mut at = 0;
        let len = segment.bytes.load(Ordering::Relaxed);
        let whole = scan.gaps.is_empty();
        let last = scan.frames.last().map_or(0, |found| found.frame.seq);
        let beyond =
            |gap: &Gap| span.is_some_and(|span| gap.before == scan.frames.len() && last == span.last_seq);
        for gap in scan.gaps.iter().filter(|gap| gap.before <= scan.frames.len() && !beyond(gap)) {
            self.replay_frames(segment.id, &scan.frames[at..gap.before], len);
            at = gap.before;
            self.damage(segment.id, gap.from, gap.to);
        }
        self.replay_frames(segment.id, &scan.frames[at..], len);
        let short = span.is_some_and(|span| last < span.last_seq);
        if short && whole {
            self.damage(segment.id, len, len);
        }
        if whole && !short && !scan.frames.is_empty() {
            let mut sidecar = SidecarBuilder::default();
            scan.frames.iter().for_each(|found| sidecar.add(&found.frame, &found.payload));
            let bytes = sidecar.finish(segment.id, len);
            self.core.chore(|chores| chores.sealed.push((segment.id, bytes)));
        }
    }

    /// Replays good frames; entries beyond `len`, where the file ends, are damaged.
    fn replay_frames(&mut self, segment: u32, frames: &[Found], len: u64) {
        for found in frames {
            let there = u64::from(found.pos) + found.frame.bytes() <= len;
            let loc = Loc { segment, pos: found.pos, len: found.frame.len };
            self.replay.apply(&found.frame, &found.payload, if there { loc } else { Loc::MISSING });
            self.highest_seq = self.highest_seq.max(found.frame.seq);
            self.report.recovered_seq = self.report.recovered_seq.max(found.frame.seq);
        }
        self.report.frames += frames.len() as u64;
    }

    fn damage(&mut self, segment: u32, from: u64, to: u64) {
        tracing::error!(segment, from, to, "log segment is damaged");
        self.report.damaged_ranges.push(DamagedRange { segment, from, to });
        self.replay.damage();
    }

    /// Removes files whose deletion the log has recorded but a crash has prevented.
    fn remove_explained(&mut self) {
        let dir = self.core.dir();
        for id in &self.superfluous {
            self.files.remove(id);
            for path in [segment_path(dir, *id), sidecar_path(dir, *id)] {
                if self.core.disk.exists(&path).unwrap_or(false)
                    && let Err(error) = self.core.disk.remove(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "file of a deleted segment stays");
                }
            }
        }
    }

    fn finish(mut self) -> (Start, RecoveryReport) {
        let short = self.report.mark.is_some_and(|mark| self.report.recovered_seq < mark);
        let amnesia_all = short || self.replay.damaged;
        self.replay.amnesia_unknown |= amnesia_all;
        let mut metas = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for (id, mut group) in std::mem::take(&mut self.replay.groups) {
            group.index.meta.amnesia |= amnesia_all;
            if group.index.meta.amnesia {
                self.report.amnesia_groups.push(id);
            }
            self.report.damaged_entries += group.index.missing();
            metas.insert(id, group.index.meta.clone());
            groups.insert(id, Arc::new(Cell::new(id, CellState::recovered(group.index))));
        }
        *self.core.groups.write() = groups;
        let amnesia_unknown = self.replay.amnesia_unknown;
        self.core.amnesia_unknown.store(amnesia_unknown, Ordering::Release);
        self.report.amnesia_unknown = amnesia_unknown;
        self.report.bytes = self.core.segments.totals().1;
        if amnesia_all {
            tracing::error!(
                mark = ?self.report.mark, recovered = self.report.recovered_seq,
                "log has lost frames that it may have acknowledged; all groups have amnesia"
            );
        }
        self.core.meters.damaged.increment(self.report.damaged_entries);
        let highest_id = self.live.keys().chain(self.files.keys()).max().copied().unwrap_or(0);
        let start = Start {
            metas,
            live: self.live,
            next_seq: self.highest_seq.max(self.report.mark.unwrap_or(0)) + 1,
            segment: highest_id + 1,
            amnesia_all,
            amnesia_unknown,
        };
        (start, self.report)
    }
}

/// The head of a segment if it is good.
fn read_head(segment: &Segment) -> Option<SegmentHead> {
    let header = segment.read(0, HEADER_BYTES).ok()?;
    let len = u32::from_le_bytes(header.get(8..12)?.try_into().ok()?) as usize;
    if (HEADER_BYTES + len) as u64 > segment.bytes.load(Ordering::Relaxed) {
        return None;
    }
    let bytes = segment.read(0, HEADER_BYTES + len).ok()?;
    let frame = Frame::decode(Place { segment: segment.id, pos: 0 }, &bytes)?;
    if frame.kind != FrameKind::SegmentHeader {
        return None;
    }
    SegmentHead::decode(&bytes[HEADER_BYTES..])
}

/// The state that the frames build up.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupId, ReplayGroup>,
    dropped: BTreeSet<u64>,
    amnesia_unknown: bool,
    /// Frames were lost since the last complete checkpoint.
    damaged: bool,
    checkpoint: Option<Checkpoint>,
}

#[derive(Default)]
struct ReplayGroup {
    index: GroupIndex,
    /// Frames of this group may have been lost just before.
    suspect: bool,
}

struct Checkpoint {
    left: u32,
    seen: BTreeSet<GroupId>,
}

impl Replay {
    fn collect_drops(&mut self, frames: &[Found]) {
        let drops = frames.iter().filter(|found| found.frame.kind == FrameKind::SegmentDrop);
        self.dropped.extend(drops.map(|found| found.frame.index));
    }

    fn damage(&mut self) {
        self.damaged = true;
        self.checkpoint = None;
        for group in self.groups.values_mut() {
            group.suspect = true;
        }
    }

    fn group(&mut self, id: GroupId) -> &mut ReplayGroup {
        let (amnesia, suspect) = (self.amnesia_unknown, self.damaged);
        self.groups.entry(id).or_insert_with(|| {
            let mut group = ReplayGroup { suspect, ..ReplayGroup::default() };
            group.index.meta.amnesia = amnesia;
            group
        })
    }

    fn apply(&mut self, frame: &Frame, payload: &Bytes, loc: Loc) {
        match frame.kind {
            FrameKind::SegmentHeader => self.begin_checkpoint(payload),
            FrameKind::GroupState => {
                let group = self.group(frame.group);
                group.index.apply_note(frame, payload);
                group.suspect = false;
                if let Some(checkpoint) = &mut self.checkpoint {
                    checkpoint.left = checkpoint.left.saturating_sub(1);
                    checkpoint.seen.insert(frame.group);
                }
                self.end_checkpoint();
            }
            FrameKind::Entry => {
                let group = self.group(frame.group);
                let suspect = std::mem::take(&mut group.suspect);
                group.index.replay_entry(frame.id(), loc, suspect);
            }
            FrameKind::Relocated | FrameKind::Repair | FrameKind::InstallEntry => {
                let index = &mut self.group(frame.group).index;
                if frame.kind != FrameKind::Relocated && index.meta.fits(frame.id()) {
                    index.meta.set_term(frame.index, frame.term);
                }
                index.set_loc(frame.id(), loc);
            }
            FrameKind::RemoveGroup => {
                let group = self.group(frame.group);
                group.index.apply_note(frame, payload);
                group.suspect = false;
            }
            FrameKind::SegmentDrop => {}
            FrameKind::TrustUnknown => self.amnesia_unknown = false,
            FrameKind::Purge => {
                let group = self.group(frame.group);
                if group.suspect {
                    group.index.pad_to(frame.id());
                }
                group.index.apply_note(frame, payload);
            }
            FrameKind::Vote
            | FrameKind::Truncate
            | FrameKind::Retain
            | FrameKind::InstallBegin
            | FrameKind::ClearAmnesia => self.group(frame.group).index.apply_note(frame, payload),
        }
    }

    fn begin_checkpoint(&mut self, payload: &[u8]) {
        let Some(head) = SegmentHead::decode(payload) else { return };
        if head.amnesia_all {
            self.groups.values_mut().for_each(|group| group.index.meta.amnesia = true);
        }
        self.amnesia_unknown = head.amnesia_unknown;
        self.checkpoint = Some(Checkpoint { left: head.groups, seen: BTreeSet::new() });
        self.end_checkpoint();
    }

    /// A complete checkpoint tells everything: groups that aren't in it don't exist.
    fn end_checkpoint(&mut self) {
        if let Some(checkpoint) = self.checkpoint.take_if(|checkpoint| checkpoint.left == 0) {
            self.groups.retain(|id, _| checkpoint.seen.contains(id));
            self.damaged = false;
        }
    }
}
