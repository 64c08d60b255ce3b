//! Reading entries: from memory, or by position from the segments.
//!
//! A read makes its plan under the group's lock and does its I/O without it. Frames that lie behind
//! each other are read at once, and entries are slices of that one buffer. Every frame is checked;
//! one that isn't what the index says makes its entry "unavailable here".
//!
//! Not here: read-ahead, and keeping what was read (readers that come again hit the page cache).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_types::{LogId, LogIndex};

use crate::cell::{Cell, CellState};
use crate::frame::{Frame, HEADER_BYTES, Place};
use crate::index::Loc;
use crate::segment::Segment;
use crate::shared::Core;
use crate::{LogEntry, LogError, Payload};

/// Most bytes of frames that are read at once.
const RUN_BYTES_MAX: u64 = 8 << 20;

/// An entry to be read from disk. Its id is unknown only if the log is inconsistent.
#[derive(Clone)]
struct Wanted {
    id: LogId,
    loc: Loc,
    segment: Arc<Segment>,
}

enum Step {
    Have(LogEntry),
    Disk(Wanted),
}

/// See [`crate::NodeLog::read`].
pub(crate) fn read(
    core: &Core,
    cell: &Cell,
    range: Range<LogIndex>,
    max_bytes: u64,
) -> Result<Vec<LogEntry>, LogError> {
    let plan = plan(core, cell, range, max_bytes)?;
    let mut entries = Vec::with_capacity(plan.len());
    let mut steps = plan.into_iter().peekable();
    while let Some(step) = steps.next() {
        let first = match step {
            Step::Have(entry) => {
                entries.push(entry);
                continue;
            }
            Step::Disk(wanted) => wanted,
        };
        let (mut run, mut bytes) = (vec![first.clone()], frame_bytes(first.loc));
        while let Some(Step::Disk(next)) = steps.peek() {
            let last = &run[run.len() - 1].loc;
            let adjacent = next.loc.segment == last.segment && u64::from(next.loc.pos) == end_of(*last);
            bytes += frame_bytes(next.loc);
            if !adjacent || bytes > RUN_BYTES_MAX {
                break;
            }
            if let Some(Step::Disk(next)) = steps.next() {
                run.push(next);
            }
        }
        if let Some(bad) = read_run(&run, &mut entries) {
            damaged(core, cell, &bad);
            if entries.is_empty() {
                return Err(LogError::EntryUnavailable { group: cell.id, index: bad.id.index });
            }
            break;
        }
    }
    Ok(entries)
}

fn frame_bytes(loc: Loc) -> u64 {
    HEADER_BYTES as u64 + u64::from(loc.len)
}

fn end_of(loc: Loc) -> u64 {
    u64::from(loc.pos) + frame_bytes(loc)
}

fn plan(core: &Core, cell: &Cell, range: Range<LogIndex>, max_bytes: u64) -> Result<Vec<Step>, LogError> {
    let state = cell.state.lock();
    let meta = &state.index.meta;
    if range.start.0 < meta.first && range.start < range.end {
        return Err(LogError::Gone { group: cell.id, index: range.start, first: LogIndex(meta.first) });
    }
    let (mut steps, mut bytes) = (Vec::new(), 0u64);
    for index in range.start.0..range.end.0.min(meta.next) {
        let Some((step, len)) = step(core, &state, index) else {
            if steps.is_empty() {
                return Err(LogError::EntryUnavailable { group: cell.id, index: LogIndex(index) });
            }
            break;
        };
        bytes += len;
        if !steps.is_empty() && bytes > max_bytes {
            break;
        }
        steps.push(step);
    }
    Ok(steps)
}

/// Where the entry is, and the bytes of its payload; `None` when it is damaged.
fn step(core: &Core, state: &CellState, index: u64) -> Option<(Step, u64)> {
    let loc = state.index.loc(index)?;
    if loc != Loc::MISSING
        && let Some(entry) = state.cached(index)
    {
        return Some((Step::Have(entry.clone()), entry.payload.len() as u64));
    }
    if !loc.on_disk() {
        return None;
    }
    // A segment goes only after no index points to it, so under this lock it is there.
    let wanted =
        Wanted { id: state.index.meta.id_at(index)?, loc, segment: core.segments.find(loc.segment)? };
    Some((Step::Disk(wanted), u64::from(loc.len)))
}

/// Reads frames that lie behind each other. Gives the first one that is bad, if any.
fn read_run(run: &[Wanted], entries: &mut Vec<LogEntry>) -> Option<Wanted> {
    let first = run.first()?;
    let bytes: u64 = run.iter().map(|wanted| frame_bytes(wanted.loc)).sum();
    let Ok(buf) = first.segment.read(u64::from(first.loc.pos), bytes as usize) else {
        // A block that can't be read spoils its own entries only; so try them one by one.
        return match run {
            [single] => Some(single.clone()),
            _ => run.iter().find_map(|wanted| read_run(std::slice::from_ref(wanted), entries)),
        };
    };
    let buf = Bytes::from(buf);
    let mut at = 0;
    for wanted in run {
        let end = at + frame_bytes(wanted.loc) as usize;
        match decode(wanted, &buf.slice(at..end)) {
            Some(entry) => entries.push(entry),
            None => return Some(wanted.clone()),
        }
        at = end;
    }
    None
}

fn decode(wanted: &Wanted, bytes: &Bytes) -> Option<LogEntry> {
    let place = Place { segment: wanted.loc.segment, pos: wanted.loc.pos };
    let frame = Frame::decode(place, bytes)?;
    if !frame.kind.is_entry() || frame.id() != wanted.id || frame.len != wanted.loc.len {
        return None;
    }
    let body_at = HEADER_BYTES + usize::from(frame.head_len);
    let payload = Payload { head: bytes.slice(HEADER_BYTES..body_at), body: bytes.slice(body_at..) };
    Some(LogEntry { id: wanted.id, kind: frame.entry_kind, payload })
}

/// Remembers that the bytes of an entry are bad.
fn damaged(core: &Core, cell: &Cell, bad: &Wanted) {
    let newly = cell.state.lock().index.set_missing(bad.id.index.0, bad.loc);
    if newly {
        core.meters.damaged.increment(1);
        tracing::error!(
            group = %cell.id, index = %bad.id.index, segment = bad.loc.segment, position = bad.loc.pos,
            "entry is damaged on this disk"
        );
    }
}
