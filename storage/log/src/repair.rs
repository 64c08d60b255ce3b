//! Giving bytes back: repaired entries, and those that come with a snapshot.
//!
//! Both put an entry where the log knows (or, for a snapshot, expects) one, and never move the end
//! of the log. Called under the group's lock by `seg_log.rs`.
//!
//! Not here: finding damage (`reader.rs`, `recovery.rs`), fetching from peers (`raft/driver`).

use crate::cell::CellState;
use crate::frame::FrameKind;
use crate::index::Loc;
use crate::shared::Work;
use crate::{LogEntry, LogError};

/// Takes the entry in if it is the one that was lost. Nothing to do when the bytes are fine.
pub(crate) fn repair(state: &mut CellState, entry: LogEntry) -> Result<Option<Work>, LogError> {
    let index = entry.id.index.0;
    let Some(loc) = state.index.loc(index) else {
        return Err(LogError::Misuse(format!("repair of entry {index}, which the log doesn't hold")));
    };
    if !state.index.meta.fits(entry.id) {
        let found = entry.id;
        return Err(LogError::Misuse(format!(
            "repair with entry {found}, which isn't the one that was lost"
        )));
    }
    if loc.on_disk() {
        return Ok(None);
    }
    if loc == Loc::MISSING {
        state.index.meta.set_term(index, entry.id.term.0);
        state.overlay(&entry);
    }
    Ok(Some(Work::Entries(FrameKind::Repair, vec![entry])))
}

/// Takes in entries below the purge point, between what `install_begin` announced.
pub(crate) fn install(state: &mut CellState, entries: Vec<LogEntry>) -> Result<Option<Work>, LogError> {
    let meta = &state.index.meta;
    for entry in &entries {
        let index = entry.id.index.0;
        let other = meta.id_at(index).is_some_and(|id| id != entry.id);
        if index < meta.first || index >= meta.floor() || other {
            let found = entry.id;
            return Err(LogError::Misuse(format!(
                "entry {found} isn't part of the snapshot being installed"
            )));
        }
    }
    for entry in &entries {
        state.index.meta.set_term(entry.id.index.0, entry.id.term.0);
        state.overlay(entry);
    }
    Ok((!entries.is_empty()).then_some(Work::Entries(FrameKind::InstallEntry, entries)))
}
