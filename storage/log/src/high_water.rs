//! The durable mark: how far the log was once synced, kept outside of it.
//!
//! A torn tail and rot in the last synced frames look alike from inside the log. So after each
//! sync the sequence number reached goes to a small file of its own, in parallel with the next
//! round. A log that is found shorter than its mark has lost what it acknowledged.
//!
//! ```text
//!   0                 512               1024
//!   | seq u64, crc u32 | seq u64, crc u32 |     written in turns, so that a torn write costs one
//! ```
//!
//! Called by the writer (a new target) and by the mark's thread or `pump` (the write). Not here:
//! what a short log means (`recovery.rs`).

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetline_env::{Disk, DiskFile, Monotonic, OpenMode};
use parking_lot::{Condvar, Mutex};

const SLOT_BYTES: usize = 512;
/// Its name in the log's folder.
pub(crate) const FILE_NAME: &str = "high_water";

/// When the mark is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkPolicy {
    /// After every sync, in parallel with the next round; marks that are overtaken are skipped.
    EverySync,
    /// At most once in this time. What was acknowledged since can rot unnoticed, if it is the very
    /// tail of the log.
    Lagging(Duration),
    /// Never: rot in the tail of the log is taken for a torn tail.
    Off,
}

/// The mark of one log.
#[derive(Debug)]
pub(crate) struct HighWater {
    file: Arc<dyn DiskFile>,
    policy: MarkPolicy,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    target: u64,
    written: u64,
    /// Slot that the next write goes to.
    slot: usize,
    last_set: Option<Monotonic>,
    stop: bool,
}

impl HighWater {
    /// Opens the file; also gives the mark it holds, `None` when there is no readable one.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, policy: MarkPolicy) -> io::Result<(Self, Option<u64>)> {
        let file = disk.open(&dir.join(FILE_NAME), OpenMode::OpenOrCreate)?;
        let mut bytes = [0; 2 * SLOT_BYTES];
        file.read_at(0, &mut bytes)?;
        let slots = [decode(&bytes[..SLOT_BYTES]), decode(&bytes[SLOT_BYTES..])];
        let mark = slots.iter().flatten().max().copied();
        // The newer slot must survive the next write.
        let slot = usize::from(mark.is_some() && slots[0] == mark);
        let state = State { written: mark.unwrap_or(0), slot, ..State::default() };
        Ok((HighWater { file, policy, state: Mutex::new(state), changed: Condvar::new() }, mark))
    }

    /// Everything up to `seq` is synced.
    pub(crate) fn set(&self, seq: u64, now: Monotonic) {
        let mut state = self.state.lock();
        match self.policy {
            MarkPolicy::Off => return,
            MarkPolicy::Lagging(gap) if state.last_set.is_some_and(|last| now.since(last) < gap) => return,
            MarkPolicy::Lagging(_) | MarkPolicy::EverySync => {}
        }
        state.last_set = Some(now);
        state.target = seq;
        drop(state);
        self.changed.notify_one();
    }

    /// Writes the mark if there is a new one. Called by one thread at a time.
    pub(crate) fn write_pending(&self) -> io::Result<bool> {
        let (target, slot) = {
            let state = self.state.lock();
            if state.target <= state.written {
                return Ok(false);
            }
            (state.target, state.slot)
        };
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&target.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..8]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at((slot * SLOT_BYTES) as u64, &[IoSlice::new(&bytes)])?;
        self.file.sync_data()?;
        let mut state = self.state.lock();
        state.written = target;
        state.slot = 1 - slot;
        Ok(true)
    }

    /// Waits for a new mark or the end; `false` is the end.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.stop && state.target <= state.written {
            self.changed.wait(&mut state);
        }
        state.target > state.written
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }
}

fn decode(slot: &[u8]) -> Option<u64> {
    let seq: [u8; 8] = slot.get(..8)?.try_into().ok()?;
    let crc: [u8; 4] = slot.get(8..12)?.try_into().ok()?;
    let seq_number = u64::from_le_bytes(seq);
    (crc32c::crc32c(&seq) == u32::from_le_bytes(crc) && seq_number > 0).then_some(seq_number)
}

#[cfg(test)]
mod tests {
    use fleetline_env::memory::MemDisk;

    use super::*;

    /// The newest good slot counts, and one bad slot costs one mark only.
    #[test]
    fn slots_take_turns() {
        let disk = MemDisk::new();
        let dir = Path::new("/");
        let (mark, found) = HighWater::open(&disk, dir, MarkPolicy::EverySync).unwrap();
        assert_eq!(found, None);
        for seq in [3, 8, 11] {
            mark.set(seq, Monotonic::default());
            assert!(mark.write_pending().unwrap());
            assert!(!mark.write_pending().unwrap());
        }
        let (_, found) = HighWater::open(&disk, dir, MarkPolicy::EverySync).unwrap();
        assert_eq!(found, Some(11));
        disk.corrupt(&dir.join(FILE_NAME), 2, 1).unwrap();
        let (mark, found) = HighWater::open(&disk, dir, MarkPolicy::EverySync).unwrap();
        assert_eq!(found, Some(8));
        mark.set(12, Monotonic::default());
        mark.write_pending().unwrap();
        disk.corrupt(&dir.join(FILE_NAME), 514, 1).unwrap();
        assert_eq!(HighWater::open(&disk, dir, MarkPolicy::EverySync).unwrap().1, Some(12));
    }

    /// A lagging mark waits for its time, and no mark is ever written when off.
    #[test]
    fn policies() {
        let disk = MemDisk::new();
        let lagging = MarkPolicy::Lagging(Duration::from_secs(1));
        let (mark, _) = HighWater::open(&disk, Path::new("/"), lagging).unwrap();
        let at = |ms| Monotonic(Duration::from_millis(ms));
        mark.set(1, at(0));
        assert!(mark.write_pending().unwrap());
        mark.set(2, at(999));
        assert!(!mark.write_pending().unwrap());
        mark.set(3, at(1000));
        assert!(mark.write_pending().unwrap());
        let (mark, found) = HighWater::open(&disk, Path::new("/"), MarkPolicy::Off).unwrap();
        mark.set(9, at(0));
        assert!(!mark.write_pending().unwrap());
        assert_eq!(found, Some(3));
    }
}
