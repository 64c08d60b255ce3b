//! The disk door: just what an append-only log, small marker files and staged snapshots need.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; writing fails.
    Read,
    /// It must exist.
    ReadWrite,
    /// It must not exist.
    CreateNew,
    /// It is created when missing and kept as it is when there.
    OpenOrCreate,
}

/// A folder tree on durable storage. Paths are those of the real file system, or names in a memory
/// disk; parents must exist.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Creates `dir` and its parents, and makes their names durable.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names (not paths) of the files in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Whether a file of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Removes a file. Durable after [`Disk::sync_dir`] of its folder.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file within one folder, replacing what had that name. Durable after
    /// [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes all names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that an unprivileged writer can still write to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the lock file at `path` for this process, until the returned guard is dropped.
    ///
    /// # Errors
    /// `ErrorKind::WouldBlock` when another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// Holds a lock on a folder until dropped.
pub trait FileLock: Send + Sync + Debug {}

/// One open file. All methods take `&self`: positions are explicit.
#[allow(clippy::len_without_is_empty)] // an empty file has no special meaning
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all bytes of all `parts`, one behind the other, from `offset` on.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads up to `buf.len()` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Makes everything written to this file durable, its length included.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeroes) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
}
