//! The keeper: sidecars for sealed segments, and the end of segments that nobody needs.
//!
//! A segment goes when no group's index points into it: everything in it is below what its group
//! retains, was truncated, or stands elsewhere. Votes and purge points don't hold it, because later
//! segments restate them. One that is held by a few entries only (less than a tenth of its bytes)
//! is emptied by copying these to the end of the log.
//!
//! Deletion takes two steps: a frame in the log says that the segment goes (it is queued behind
//! whatever made the segment dead, so that is durable as well), then the file is removed. Recovery
//! removes what a crash in between left, and takes any other missing segment for a loss.
//!
//! Called by the keeper's thread or by `pump`. Not here: how far a group retains.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fleetline_types::{GroupId, LogIndex};

use crate::LogEntry;
use crate::cell::Cell;
use crate::frame::FrameKind;
use crate::reader;
use crate::segment::{Segment, segment_path, sidecar_path, write_file};
use crate::shared::{Chores, Core, Work, note};

/// A segment is emptied when its live bytes are less than one part in this many.
const COPY_FORWARD_PART: u64 = 10;
/// Most bytes of one copied request.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// Does what waits. Failures here cost space or time, never data; so they are logged, not fatal.
pub(crate) fn keep_house(core: &Arc<Core>) {
    let (chores, lost) = {
        let mut waiting = core.chores.lock();
        let lost = if waiting.look { std::mem::take(&mut waiting.lost) } else { Vec::new() };
        let kept = std::mem::take(&mut waiting.lost);
        let chores = std::mem::replace(&mut *waiting, Chores { lost: kept, ..Chores::default() });
        (chores, lost)
    };
    for (id, bytes) in chores.sealed {
        if let Err(error) = write_file(&*core.disk, &sidecar_path(core.dir(), id), &bytes) {
            tracing::warn!(segment = id, %error, "sidecar of a sealed segment wasn't written");
        }
    }
    remove_dropped(core, &chores.dropped);
    if chores.look && core.poisoned().is_ok() {
        look(core);
        strike_off(core, lost);
    }
    if chores.stop {
        core.chores.lock().stop = true;
    }
}

/// The loop of the keeper's thread.
pub(crate) fn run(core: &Arc<Core>) {
    loop {
        {
            let mut chores = core.chores.lock();
            while !chores.stop && !chores.look && chores.sealed.is_empty() && chores.dropped.is_empty() {
                core.chores_changed.wait(&mut chores);
            }
            if chores.stop {
                chores.look = false;
            }
        }
        keep_house(core);
        if core.chores.lock().stop {
            return;
        }
    }
}

fn remove_dropped(core: &Core, dropped: &[u32]) {
    for id in dropped {
        core.segments.remove(*id);
        for path in [segment_path(core.dir(), *id), sidecar_path(core.dir(), *id)] {
            match core.disk.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "file of a deleted segment stays until the next start");
                }
                _ => {}
            }
        }
        tracing::debug!(segment = *id, "segment deleted");
    }
    if !dropped.is_empty() {
        if let Err(error) = core.disk.sync_dir(core.dir()) {
            tracing::warn!(%error, "folder of the log wasn't synced after a deletion");
        }
        core.measure_segments();
    }
}

/// Finds segments that may go, and those that can be emptied.
fn look(core: &Arc<Core>) {
    let active = core.active.load(Ordering::Acquire);
    let candidates: Vec<Arc<Segment>> =
        core.segments.all().into_iter().filter(|segment| segment.id < active).collect();
    if candidates.is_empty() {
        return;
    }
    let live = live_bytes(core);
    let previous = candidates.last().map_or(0, |segment| segment.id);
    for segment in candidates {
        match live.get(&segment.id).copied().unwrap_or(0) {
            0 => drop_segment(core, &segment),
            bytes => {
                let sparse = bytes * COPY_FORWARD_PART < segment.bytes.load(Ordering::Relaxed);
                if sparse && segment.id != previous && !segment.relocating.swap(true, Ordering::AcqRel) {
                    copy_forward(core, &segment);
                }
            }
        }
    }
}

/// Segments that were found missing leave the list when all their entries are repaired or gone.
fn strike_off(core: &Arc<Core>, lost: Vec<u32>) {
    if !lost.is_empty() && core.damaged() > 0 {
        core.chores.lock().lost.extend(lost);
        return;
    }
    lost.into_iter().for_each(|id| drop_id(core, id));
}

/// Bytes of entries that some index points to, by segment.
fn live_bytes(core: &Core) -> BTreeMap<u32, u64> {
    let mut live = BTreeMap::new();
    for cell in core.cells() {
        let state = cell.state.lock();
        for (_, loc) in state.index.locs().filter(|(_, loc)| loc.on_disk()) {
            *live.entry(loc.segment).or_default() += u64::from(loc.len) + 1;
        }
    }
    live
}

fn drop_segment(core: &Arc<Core>, segment: &Segment) {
    if segment.dropping.swap(true, Ordering::AcqRel) {
        return;
    }
    drop_id(core, segment.id);
}

fn drop_id(core: &Arc<Core>, id: u32) {
    let keeper = Arc::downgrade(core);
    let done = move |result: Result<(), crate::LogError>| {
        if let (Ok(()), Some(core)) = (result, keeper.upgrade()) {
            core.chore(|chores| chores.dropped.push(id));
        }
    };
    let work = Work::Note(note(FrameKind::SegmentDrop, GroupId::CONTROL, u64::from(id), 0), Bytes::new());
    let bytes = work.bytes();
    core.push_own(None, work, bytes, Some(Box::new(done)));
}

/// Copies the live entries of a segment to the end of the log. When the copies are durable, the
/// next look finds the segment empty.
fn copy_forward(core: &Arc<Core>, segment: &Segment) {
    for cell in core.cells() {
        let wanted: Vec<u64> = {
            let state = cell.state.lock();
            state.index.locs().filter(|(_, loc)| loc.segment == segment.id).map(|(index, _)| index).collect()
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for index in wanted {
            let one = LogIndex(index)..LogIndex(index + 1);
            // What is gone or damaged by now needs no copy.
            let read = reader::read(core, &cell, one, u64::MAX).unwrap_or_default();
            bytes += read.iter().map(|entry| entry.payload.len() as u64).sum::<u64>();
            batch.extend(read);
            if bytes >= COPY_BYTES_MAX {
                relocate(core, &cell, std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        relocate(core, &cell, batch);
    }
}

fn relocate(core: &Arc<Core>, cell: &Arc<Cell>, entries: Vec<LogEntry>) {
    if entries.is_empty() {
        return;
    }
    let keeper = Arc::downgrade(core);
    let done = move |_: Result<(), crate::LogError>| {
        if let Some(core) = keeper.upgrade() {
            core.chore(|chores| chores.look = true);
        }
    };
    let work = Work::Entries(FrameKind::Relocated, entries);
    let bytes = work.bytes();
    core.push_own(Some(cell.clone()), work, bytes, Some(Box::new(done)));
}
