//! The folder of a node's snapshots: at most three files a group, each named for what is known of it.
//!
//! ```text
//!   g7.state      rows of a snapshot made here, complete     write_state → source
//!   g7.staging    a transfer that is under way               begin → write → finish
//!   g7.install    a complete snapshot that must be installed install
//!   *.tmp         being written; worthless after a crash
//! ```
//!
//! One caller at a time per group and kind of file; different groups don't touch each other.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetline_env::{Disk, DiskFile, OpenMode};
use fleetline_log::NodeLog;
use fleetline_state::{StateSnapshot, StateStore};
use fleetline_types::GroupId;
use ring::digest::{Context, SHA256};

use crate::format::{
    CHUNK_BYTES, FRAME_HEAD_BYTES, FrameKind, ROW_BYTES_MAX, SnapshotMeta, Trailer, frame_head, prelude,
    put_row,
};
use crate::walk::{Part, SnapshotReader};
use crate::{SnapshotError, SnapshotSource, Staging};

/// Where snapshots are kept, and what must be left free beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// The folder; created when missing.
    pub dir: PathBuf,
    /// Bytes of the file system that snapshots never use, so that they can't stop the log. Default
    /// 256 MiB.
    pub reserve_bytes: u64,
}

impl SnapshotOptions {
    /// The default reserve.
    pub fn new(dir: impl Into<PathBuf>) -> SnapshotOptions {
        SnapshotOptions { dir: dir.into(), reserve_bytes: 256 << 20 }
    }
}

/// The snapshots of one node. Clones are handles of one folder.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    disk: Arc<dyn Disk>,
    options: SnapshotOptions,
}

impl SnapshotDir {
    /// Opens the folder, creating it when missing.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(disk: Arc<dyn Disk>, options: SnapshotOptions) -> Result<SnapshotDir, SnapshotError> {
        disk.create_dir_all(&options.dir).map_err(|error| SnapshotError::io(&options.dir, &error))?;
        Ok(SnapshotDir { disk, options })
    }

    /// Writes the state part of a new snapshot, replacing the group's older one. `rows` must be a
    /// view as of `meta.last`; `meta.first_retained` fixes the log range that will be sent with it.
    /// Transfers of the older snapshot that are under way go on.
    ///
    /// # Errors
    /// `OverLimit`, `DiskFull`, `State`, `Io`. The older state part is then still there.
    pub fn write_state(
        &self,
        meta: &SnapshotMeta,
        rows: &mut dyn StateSnapshot,
    ) -> Result<(), SnapshotError> {
        let path = self.path(meta.group, "state");
        meta.check().map_err(|error| SnapshotError::decode(&path, 0, &error))?;
        let mut writer = StateWriter::begin(self, self.path(meta.group, "state.tmp"))?;
        writer.raw(&prelude())?;
        writer.frame(FrameKind::Meta, &meta.encode())?;
        writer.all_rows(rows)?;
        writer.end()?;
        self.give_name(&writer.path, &path)
    }

    /// The state part of `group`, verified; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `NewerFormat`, `Io`.
    pub fn state(&self, group: GroupId) -> Result<Option<SnapshotReader>, SnapshotError> {
        optional(self.verified(group, "state", Part::State))
    }

    /// The byte stream of the snapshot whose state part is stored for `group`. Reads and verifies
    /// the state part once; entries come from `log` while the stream is read.
    ///
    /// # Errors
    /// `Missing`, `Damaged`, `NewerFormat`, `Gone`, `Io`.
    pub fn source(&self, group: GroupId, log: Arc<dyn NodeLog>) -> Result<SnapshotSource, SnapshotError> {
        let path = self.path(group, "state");
        let file = self.open_file(&path, OpenMode::Read)?;
        SnapshotSource::open(&path, file, log)
    }

    /// Begins or resumes to receive the snapshot that `meta` describes. Bytes of another snapshot of
    /// the group are dropped.
    ///
    /// # Errors
    /// `OverLimit`, `Io`.
    pub fn begin(&self, meta: &SnapshotMeta) -> Result<Staging, SnapshotError> {
        Staging::begin(self.clone(), meta.clone())
    }

    /// Groups whose snapshot is complete and must be installed before they run, in order. To be
    /// looked at when the node starts.
    ///
    /// # Errors
    /// `Io`.
    pub fn pending_installs(&self) -> Result<Vec<GroupId>, SnapshotError> {
        let dir = &self.options.dir;
        let names = self.disk.list(dir).map_err(|error| SnapshotError::io(dir, &error))?;
        let group = |name: &String| name.strip_suffix(".install")?.strip_prefix('g')?.parse().ok();
        let mut groups: Vec<GroupId> = names.iter().filter_map(group).map(GroupId).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    /// What the complete snapshot covers that waits to be installed; `None` when none waits.
    ///
    /// # Errors
    /// `Damaged`, `NewerFormat`, `Io`.
    pub fn pending(&self, group: GroupId) -> Result<Option<SnapshotMeta>, SnapshotError> {
        let reader = optional(self.verified(group, "install", Part::Whole))?;
        Ok(reader.map(|reader| reader.meta().clone()))
    }

    /// Forgets a complete snapshot whose installation has not begun, because the replica has more by
    /// itself. Does nothing when none waits.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard_pending(&self, group: GroupId) -> Result<(), SnapshotError> {
        self.remove(group, "install")?;
        self.sync()
    }

    /// Replaces rows and log of `group` by what the complete snapshot says, makes them durable, and
    /// only then forgets the snapshot. Blocks until the log has completed everything.
    ///
    /// After an error or a crash the file is still there, and the group must not run until this was
    /// done again. When the file itself is `Damaged`, begin a new transfer: its `finish` replaces it.
    ///
    /// # Errors
    /// `Missing`, `Damaged`, `NewerFormat`, `State`, `Log`, `Io`.
    pub fn install(
        &self,
        group: GroupId,
        log: &dyn NodeLog,
        state: &dyn StateStore,
    ) -> Result<SnapshotMeta, SnapshotError> {
        let reader = self.verified(group, "install", Part::Whole)?;
        if reader.meta().group != group {
            return Err(SnapshotError::Unexpected {
                path: self.path(group, "install").display().to_string(),
                expected: format!("a snapshot of group {group}"),
                found: format!("one of group {}", reader.meta().group),
            });
        }
        let meta = crate::install::install(reader, log, state)?;
        self.remove(group, "install")?;
        self.sync()?;
        Ok(meta)
    }

    /// Removes all files of a group whose removal the control group has committed.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_group(&self, group: GroupId) -> Result<(), SnapshotError> {
        for kind in ["state", "state.tmp", "staging", "install"] {
            self.remove(group, kind)?;
        }
        self.sync()
    }

    pub(crate) fn path(&self, group: GroupId, kind: &str) -> PathBuf {
        self.options.dir.join(format!("{group}.{kind}"))
    }

    pub(crate) fn open_file(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, SnapshotError> {
        self.disk.open(path, mode).map_err(|error| SnapshotError::io(path, &error))
    }

    /// Renames a synced file to the name that says it is complete.
    pub(crate) fn give_name(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        self.disk.rename(from, to).map_err(|error| SnapshotError::io(to, &error))?;
        self.sync()
    }

    /// Whether `bytes` more leave the reserve alone.
    pub(crate) fn admit(&self, bytes: u64) -> Result<(), SnapshotError> {
        let dir = &self.options.dir;
        let free_bytes = self.disk.free_bytes(dir).map_err(|error| SnapshotError::io(dir, &error))?;
        let reserve_bytes = self.options.reserve_bytes;
        if free_bytes.saturating_sub(bytes) < reserve_bytes {
            return Err(SnapshotError::DiskFull { free_bytes, reserve_bytes });
        }
        Ok(())
    }

    fn verified(&self, group: GroupId, kind: &str, part: Part) -> Result<SnapshotReader, SnapshotError> {
        let path = self.path(group, kind);
        let file = self.open_file(&path, OpenMode::Read)?;
        SnapshotReader::verified(&path, &file, part)
    }

    fn remove(&self, group: GroupId, kind: &str) -> Result<(), SnapshotError> {
        let path = self.path(group, kind);
        let removed = self.disk.remove(&path).map_err(|error| SnapshotError::io(&path, &error));
        optional(removed).map(|_| ())
    }

    fn sync(&self) -> Result<(), SnapshotError> {
        let dir = &self.options.dir;
        self.disk.sync_dir(dir).map_err(|error| SnapshotError::io(dir, &error))
    }
}

fn optional<T>(found: Result<T, SnapshotError>) -> Result<Option<T>, SnapshotError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(SnapshotError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a state part, frame by frame.
struct StateWriter<'a> {
    dir: &'a SnapshotDir,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    at: u64,
    hash: Context,
    rows: u64,
}

impl<'a> StateWriter<'a> {
    fn begin(dir: &'a SnapshotDir, path: PathBuf) -> Result<StateWriter<'a>, SnapshotError> {
        let file = dir.open_file(&path, OpenMode::OpenOrCreate)?;
        file.set_len(0).map_err(|error| SnapshotError::io(&path, &error))?;
        Ok(StateWriter { dir, path, file, at: 0, hash: Context::new(&SHA256), rows: 0 })
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.write(bytes, &[])
    }

    fn frame(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), SnapshotError> {
        self.dir.admit((FRAME_HEAD_BYTES + payload.len()) as u64)?;
        self.write(&frame_head(kind, payload), payload)
    }

    fn all_rows(&mut self, rows: &mut dyn StateSnapshot) -> Result<(), SnapshotError> {
        let mut payload = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 3));
        loop {
            let some = rows.next_rows(CHUNK_BYTES)?;
            if some.is_empty() {
                return self.flush_rows(&mut payload);
            }
            for row in &some {
                let bytes = row.1.len() + row.2.len();
                if bytes > ROW_BYTES_MAX {
                    let (value, limit) = (bytes as u64, ROW_BYTES_MAX as u64);
                    return Err(SnapshotError::OverLimit { what: "row", value, limit });
                }
                put_row(&mut payload, row);
                self.rows += 1;
                if payload.len() >= CHUNK_BYTES {
                    self.flush_rows(&mut payload)?;
                }
            }
        }
    }

    fn flush_rows(&mut self, payload: &mut Vec<u8>) -> Result<(), SnapshotError> {
        if !payload.is_empty() {
            self.frame(FrameKind::Rows, payload)?;
            payload.clear();
        }
        Ok(())
    }

    /// Writes the trailer and makes the file durable.
    fn end(&mut self) -> Result<(), SnapshotError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.clone().finish().as_ref());
        let trailer = Trailer { rows: self.rows, entries: 0, hash };
        self.raw(&trailer.frame())?;
        self.file.sync_data().map_err(|error| SnapshotError::io(&self.path, &error))
    }

    fn write(&mut self, head: &[u8], payload: &[u8]) -> Result<(), SnapshotError> {
        let parts = [IoSlice::new(head), IoSlice::new(payload)];
        self.file.write_at(self.at, &parts).map_err(|error| SnapshotError::io(&self.path, &error))?;
        self.hash.update(head);
        self.hash.update(payload);
        self.at += (head.len() + payload.len()) as u64;
        Ok(())
    }
}
