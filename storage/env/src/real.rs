//! The machine: its files, its clocks, its random numbers.
//!
//! Used by `broker/node` when it builds a real node, and by nothing else. Writes are positioned
//! and vectored (`pwritev`), so a frame made of many slices goes out in one system call without
//! being copied; `sync_data` is `fdatasync`, which includes the length.
//!
//! Invariants:
//! 1. `write_at` has written everything or says that it failed; short writes and interrupts are
//!    gone on with here.
//! 2. A folder that `create_dir_all` returns from can't vanish in a power cut.
//!
//! Not here: retries of failed syncs (there is no safe one), caching, direct I/O.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fleetline_types::TimestampMs;
use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::{Errno, pwritev};

use crate::{Clock, Disk, DiskFile, Entropy, FileLock, Monotonic, OpenMode};

/// The most slices that Linux takes in one `pwritev` (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at {
            if path.as_os_str().is_empty() || path.is_dir() {
                break;
            }
            missing.push(path);
            at = path.parent();
        }
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
                other => other?,
            }
            sync_folder(parent_of(path))?;
        }
        // The folder may be there because an earlier run made it and lost power before the sync.
        sync_folder(parent_of(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::OpenOrCreate => options.write(true).create(true).truncate(false),
        };
        let file = options.open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(ErrorKind::IsADirectory, format!("{} is a folder", path.display())));
        }
        Ok(Arc::new(RealFile { file }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::metadata(path) {
            Ok(meta) => Ok(meta.is_file()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if parent_of(from) != parent_of(to) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("rename from {} to {} crosses folders", from.display(), to.display()),
            ));
        }
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_folder(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

/// The kernel drops the lock when the file is closed, also when the process is killed.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl FileLock for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl RealFile {
    /// Writes up to [`SLICES_MAX`] slices completely.
    fn write_some(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut done = self.write_once(offset, parts, total)?;
        if done < total {
            // Rare: a signal, or a disk that is nearly full.
            let mut owned = parts.to_vec();
            let mut left = owned.as_mut_slice();
            IoSlice::advance_slices(&mut left, done);
            while done < total {
                let written = self.write_once(offset + done as u64, left, total - done)?;
                IoSlice::advance_slices(&mut left, written);
                done += written;
            }
        }
        offset += total as u64;
        Ok(offset)
    }

    fn write_once(&self, offset: u64, parts: &[IoSlice<'_>], expected: usize) -> io::Result<usize> {
        if expected == 0 {
            return Ok(0);
        }
        loop {
            match pwritev(&self.file, parts, offset) {
                Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "the disk took no bytes")),
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        for some in parts.chunks(SLICES_MAX) {
            offset = self.write_some(offset, some)?;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// The clocks of this machine. `monotonic` counts from the making of this value; clones agree.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock that starts now.
    pub fn new() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    fn wall(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The kernel's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, buf: &mut [u8]) {
        getrandom::fill(buf).expect("the kernel of a running machine gives random bytes");
    }
}

/// The folder of `path`; the working folder for a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More slices than one system call takes, many of them empty, arrive whole and in order.
    #[test]
    fn writes_more_slices_than_one_call_takes() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("many"), OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..5_000u32).map(|i| (i % 251) as u8).collect();
        let mut parts: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
        for at in (0..parts.len()).step_by(7) {
            parts.insert(at, IoSlice::new(&[]));
        }
        assert!(parts.len() > 2 * SLICES_MAX);
        file.write_at(3, &parts).unwrap();
        let mut found = vec![0; 5_003];
        assert_eq!(file.read_at(0, &mut found).unwrap(), 5_003);
        assert_eq!(&found[..3], &[0, 0, 0]);
        assert_eq!(&found[3..], bytes);
    }

    /// Clocks and entropy of the machine answer plausibly.
    #[test]
    fn clocks_move_forward_and_entropy_differs() {
        let clock = RealClock::new();
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        assert!(clock.wall() > TimestampMs(1_700_000_000_000), "{}", clock.wall());
        assert_ne!(RealEntropy.next_u64(), RealEntropy.next_u64());
    }
}
