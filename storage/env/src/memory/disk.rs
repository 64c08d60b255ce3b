//! The disk in memory: the calls, their faults, and ways to cut its power.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::entropy::Dice;
use super::fault::{FaultKind, FaultRule, Faults, eio, enospc};
use super::image::{Change, FileId, Image, Rot, Survival};
use crate::{Disk, DiskFile, FileLock, OpenMode};

/// Free bytes of a disk without a capacity.
const FREE_BYTES_UNLIMITED: u64 = 1 << 50;
/// The longest file; a longer one is a bug of the caller and would exhaust the memory.
const FILE_BYTES_MAX: u64 = 1 << 36;

/// A disk in memory. Clones are handles of one disk; the folders `""` and `"/"` always exist.
///
/// A test cuts the power in one of two ways:
/// - [`MemDisk::power_off_after`] some changes; everything then fails, and [`MemDisk::crash`] gives
///   the disk that the next start finds. For tests that span several stores.
/// - [`MemDisk::record`], run once, then [`MemDisk::images_after`] every change. For tests of one.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    faults: Faults,
    capacity_bytes: Option<u64>,
    locks: BTreeSet<PathBuf>,
    /// How many handles each file has.
    opens: BTreeMap<FileId, u64>,
    /// Changes since the disk was made.
    changes: u64,
    /// No change after this many.
    changes_max: Option<u64>,
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    base: Image,
    changes: Vec<Change>,
}

impl MemDisk {
    /// An empty disk without a capacity.
    pub fn new() -> MemDisk {
        MemDisk::from_image(Image::default(), None)
    }

    /// Limits the bytes of all files together; `None` lifts the limit. Beyond it writes are short
    /// and fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Makes some calls fail.
    pub fn inject(&self, rule: FaultRule) {
        self.state.lock().faults.add(rule);
    }

    /// Lifts all rules of [`MemDisk::inject`].
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Changes (writes, syncs, creations, renames, …) since the disk was made.
    pub fn change_count(&self) -> u64 {
        self.state.lock().changes
    }

    /// After `changes` more changes the power is off: every call fails, also those that read.
    pub fn power_off_after(&self, changes: u64) {
        let mut state = self.state.lock();
        state.changes_max = Some(state.changes.saturating_add(changes));
    }

    /// The disk as the next start finds it after a power cut now: any subset of the unsynced writes
    /// survives, torn at sectors, and unsynced names may vanish. Equal seeds give equal disks.
    pub fn crash(&self, seed: u64) -> MemDisk {
        self.after_crash(Survival::Seeded(seed))
    }

    /// As [`MemDisk::crash`], but everything unsynced is lost.
    pub fn crash_all_lost(&self) -> MemDisk {
        self.after_crash(Survival::Lost)
    }

    /// As [`MemDisk::crash`], but everything unsynced survives (as after a kill of the process).
    pub fn crash_all_kept(&self) -> MemDisk {
        self.after_crash(Survival::Kept)
    }

    /// Starts to record every change, from the present state on.
    pub fn record(&self) {
        let mut state = self.state.lock();
        state.recording = Some(Recording { base: state.image.clone(), changes: Vec::new() });
    }

    /// Changes recorded so far; zero without a recording.
    pub fn recorded(&self) -> usize {
        self.state.lock().recording.as_ref().map_or(0, |recording| recording.changes.len())
    }

    /// What change `n` (from 0) of the recording was, for messages of tests.
    pub fn describe(&self, n: usize) -> String {
        let state = self.state.lock();
        let change = state.recording.as_ref().and_then(|recording| recording.changes.get(n));
        match change {
            Some(Change::Write { file, offset, bytes }) => {
                format!("write of {} bytes at {offset} of file {file}", bytes.len())
            }
            Some(other) => format!("{other:?}"),
            None => format!("no change {n} was recorded"),
        }
    }

    /// The running disk as it was after the first `n` recorded changes: what was unsynced then is
    /// unsynced in it.
    ///
    /// # Panics
    /// Without a recording.
    pub fn state_after(&self, n: usize) -> MemDisk {
        let state = self.state.lock();
        let recording = state.recording.as_ref().expect("record() was called before state_after()");
        let mut image = recording.base.clone();
        for change in recording.changes.iter().take(n) {
            image.apply(change);
        }
        MemDisk::from_image(image, state.capacity_bytes)
    }

    /// Disks that the next start may find after a power cut behind the first `n` recorded changes:
    /// all lost, all kept, and `samples` mixtures drawn from `seed`.
    ///
    /// # Panics
    /// Without a recording.
    pub fn images_after(&self, n: usize, seed: u64, samples: usize) -> Vec<MemDisk> {
        let live = self.state_after(n);
        let mut dice = Dice::new(seed ^ Dice::new(n as u64).draw());
        let mut images = vec![live.crash_all_lost(), live.crash_all_kept()];
        images.extend((0..samples).map(|_| live.crash(dice.draw())));
        images
    }

    /// Flips the bits of `xor` in the stored byte at `offset`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when the file ends before `offset`.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) -> io::Result<()> {
        self.damage(path, offset + 1, Rot::Flip { offset, xor })
    }

    /// Replaces stored bytes by zeroes.
    ///
    /// # Errors
    /// As [`MemDisk::corrupt`].
    pub fn zero(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.damage(path, range.end, Rot::Zero { from: range.start, to: range.end })
    }

    /// Cuts a stored file; what remains counts as synced.
    ///
    /// # Errors
    /// As [`MemDisk::corrupt`].
    pub fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.damage(path, len, Rot::Cut { len })
    }

    /// The bytes of a file as a reader sees them now; `None` when there is no such file.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let (dir, name) = split(path).ok()?;
        let file = state.image.lookup(&dir, &name)?;
        state.image.files.get(&file).map(|content| content.current.clone())
    }

    fn from_image(mut image: Image, capacity_bytes: Option<u64>) -> MemDisk {
        for root in ["", "/"] {
            image.apply(&Change::CreateDir { dir: PathBuf::from(root) });
        }
        MemDisk { state: Arc::new(Mutex::new(State { image, capacity_bytes, ..State::default() })) }
    }

    fn after_crash(&self, survival: Survival) -> MemDisk {
        let state = self.state.lock();
        MemDisk::from_image(state.image.cut_power(survival), state.capacity_bytes)
    }

    fn damage(&self, path: &Path, len_min: u64, rot: Rot) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.find(path)?;
        let len = state.image.files.get(&file).map_or(0, |content| content.current.len() as u64);
        if len < len_min {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{} has {len} bytes", path.display()),
            ));
        }
        state.change(Change::Rot { file, rot })
    }
}

impl State {
    /// Applies a change if there is still power.
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.powered()?;
        self.changes += 1;
        self.image.apply(&change);
        if let Some(recording) = &mut self.recording {
            recording.changes.push(change);
        }
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        match self.changes_max {
            Some(max) if self.changes >= max => Err(io::Error::other("the disk has no power")),
            _ => Ok(()),
        }
    }

    fn check(&mut self, kind: FaultKind, path: &Path) -> io::Result<()> {
        self.powered()?;
        if self.faults.strikes(kind, path) { Err(eio()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = split(path)?;
        self.image.lookup(&dir, &name).ok_or_else(|| not_found(path))
    }

    fn create(&mut self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = split(path)?;
        if !self.image.dirs.contains_key(&dir) {
            return Err(not_found(&dir));
        }
        let file = self.image.fresh_file();
        self.change(Change::Create { dir, name, file })?;
        Ok(file)
    }

    /// How long `file` may become, for a write that wants it to be `wanted` long.
    fn len_allowed(&self, file: FileId, wanted: u64) -> u64 {
        let len = self.image.files.get(&file).map_or(0, |content| content.current.len() as u64);
        match self.capacity_bytes {
            Some(capacity) if wanted > len => {
                wanted.min(len + capacity.saturating_sub(self.image.used_bytes()))
            }
            _ => wanted,
        }
    }

    fn close(&mut self, file: FileId) {
        if let Some(count) = self.opens.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                self.opens.remove(&file);
            }
        }
    }

    fn forget_unnamed(&mut self) {
        let opens = &self.opens;
        self.image.forget_unnamed(|file| opens.contains_key(&file));
    }
}

impl Disk for MemDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.powered()?;
        let ancestors: Vec<PathBuf> = dir.ancestors().map(Path::to_path_buf).collect();
        for path in ancestors.into_iter().rev() {
            if state.image.dirs.contains_key(&path) {
                continue;
            }
            if state.find(&path).is_ok() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{} is a file", path.display()),
                ));
            }
            state.change(Change::CreateDir { dir: path })?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.powered()?;
        let folder = state.image.dirs.get(dir).ok_or_else(|| not_found(dir))?;
        Ok(folder.current.keys().cloned().collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.check(FaultKind::Open, path)?;
        if state.image.dirs.contains_key(path) {
            return Err(io::Error::new(ErrorKind::IsADirectory, format!("{} is a folder", path.display())));
        }
        let file = match (state.find(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(file), _) => file,
            (Err(_), OpenMode::CreateNew | OpenMode::OpenOrCreate) => state.create(path)?,
            (Err(error), OpenMode::Read | OpenMode::ReadWrite) => return Err(error),
        };
        *state.opens.entry(file).or_default() += 1;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(MemFile { disk: self.clone(), file, path: path.to_path_buf(), writable }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        state.powered()?;
        Ok(state.find(path).is_ok())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(FaultKind::Remove, path)?;
        state.find(path)?;
        let (dir, name) = split(path)?;
        state.change(Change::Remove { dir, name })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(FaultKind::Rename, from)?;
        state.find(from)?;
        let ((dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        if dir != to_dir {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("rename from {} to {} crosses folders", from.display(), to.display()),
            ));
        }
        state.change(Change::Rename { dir, from: from_name, to: to_name })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(FaultKind::SyncDir, dir)?;
        if !state.image.dirs.contains_key(dir) {
            return Err(not_found(dir));
        }
        state.change(Change::SyncDir { dir: dir.to_path_buf() })?;
        state.forget_unnamed();
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        state.powered()?;
        if !state.image.dirs.contains_key(dir) {
            return Err(not_found(dir));
        }
        let used = || state.image.used_bytes();
        Ok(state.capacity_bytes.map_or(FREE_BYTES_UNLIMITED, |capacity| capacity.saturating_sub(used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut state = self.state.lock();
        state.check(FaultKind::Open, path)?;
        if state.locks.contains(path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        if state.find(path).is_err() {
            state.create(path)?;
        }
        state.locks.insert(path.to_path_buf());
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

#[derive(Debug)]
struct MemLock {
    disk: MemDisk,
    path: PathBuf,
}

impl FileLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: FileId,
    /// The name it was opened by, for faults.
    path: PathBuf,
    writable: bool,
}

impl MemFile {
    fn writable(&self, state: &State) -> io::Result<()> {
        state.powered()?;
        if self.writable { Ok(()) } else { Err(rustix::io::Errno::BADF.into()) }
    }
}

impl DiskFile for MemFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes = Bytes::from(parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>());
        let len = bytes.len() as u64;
        let mut state = self.disk.state.lock();
        self.writable(&state)?;
        state.check(FaultKind::Write, &self.path)?;
        let end = end_of_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let short = state.check(FaultKind::ShortWrite, &self.path);
        let room = state.len_allowed(self.file, end).saturating_sub(offset).min(len);
        let kept = if short.is_err() { room.min(len / 2) } else { room };
        if kept > 0 {
            state.change(Change::Write { file: self.file, offset, bytes: bytes.slice(..kept as usize) })?;
        }
        short?;
        if kept < len { Err(enospc()) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.check(FaultKind::Read, &self.path)?;
        let content = state.image.files.get(&self.file).ok_or_else(|| not_found(&self.path))?;
        let start = content.current.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let found = &content.current[start..];
        let count = found.len().min(buf.len());
        buf[..count].copy_from_slice(&found[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.powered()?;
        if state.faults.strikes(FaultKind::Sync, &self.path) {
            let seed = Dice::new(state.changes).draw();
            state.change(Change::SyncFailed { file: self.file, seed })?;
            return Err(eio());
        }
        state.change(Change::Sync { file: self.file })
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.powered()?;
        let content = state.image.files.get(&self.file).ok_or_else(|| not_found(&self.path))?;
        Ok(content.current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.writable(&state)?;
        state.check(FaultKind::Write, &self.path)?;
        end_of_write(0, len)?;
        if state.len_allowed(self.file, len) < len {
            return Err(enospc());
        }
        state.change(Change::SetLen { file: self.file, len })
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        self.disk.state.lock().close(self.file);
    }
}

fn end_of_write(offset: u64, len: u64) -> io::Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(end),
        _ => Err(rustix::io::Errno::FBIG.into()),
    }
}

/// Folder and name of a path.
fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir.to_path_buf(), name.to_string_lossy().into_owned())),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, format!("{} names no file", path.display()))),
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{} doesn't exist", path.display()))
}
