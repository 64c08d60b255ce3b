//! The receiver's side of a transfer: bytes in order, resumable, worth nothing until verified.
//!
//! ```text
//!   begin ──► bytes kept up to the last good frame ──write*──► finish: sync, verify, rename, sync
//! ```
//!
//! Nothing is synced while bytes arrive: what a power cut damages, `begin` finds by the frames'
//! checksums and cuts off, and `finish` reads everything back before it believes it.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use fleetline_env::{DiskFile, OpenMode};

use crate::walk::{Chunk, Part, SnapshotReader};
use crate::{SnapshotDir, SnapshotError, SnapshotMeta};

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Staging {
    dir: SnapshotDir,
    meta: SnapshotMeta,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Bytes that are there, without a hole.
    at: u64,
}

impl Staging {
    pub(crate) fn begin(dir: SnapshotDir, meta: SnapshotMeta) -> Result<Staging, SnapshotError> {
        let path = dir.path(meta.group, "staging");
        meta.check().map_err(|error| SnapshotError::decode(&path, 0, &error))?;
        let file = dir.open_file(&path, OpenMode::OpenOrCreate)?;
        let at = good_bytes(&path, &file, &meta)?;
        file.set_len(at).map_err(|error| SnapshotError::io(&path, &error))?;
        Ok(Staging { dir, meta, path, file, at })
    }

    /// What is being received.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Where the sender must go on.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Takes the bytes at `offset`, which must be [`Staging::offset`].
    ///
    /// # Errors
    /// `WrongOffset`; `DiskFull`, after which the same bytes may be tried again; `Io`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        if offset != self.at {
            return Err(SnapshotError::WrongOffset { expected: self.at, found: offset });
        }
        self.dir.admit(bytes.len() as u64)?;
        self.file
            .write_at(offset, &[IoSlice::new(bytes)])
            .map_err(|error| SnapshotError::io(&self.path, &error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Makes the bytes durable, reads and checks all of them, and marks the snapshot as one that must
    /// be installed: `SnapshotDir::install` is next, now or at the next start.
    ///
    /// # Errors
    /// `Damaged`, `NewerFormat`, `Unexpected` when the bytes are not the announced snapshot (they are
    /// dropped, the next `begin` starts anew); `Io`.
    pub fn finish(self) -> Result<SnapshotMeta, SnapshotError> {
        let io = |error| SnapshotError::io(&self.path, &error);
        self.file.sync_data().map_err(io)?;
        match self.verify() {
            Ok(()) => {}
            Err(error @ SnapshotError::Io { .. }) => return Err(error),
            Err(error) => {
                self.file.set_len(0).map_err(io)?;
                return Err(error);
            }
        }
        self.dir.give_name(&self.path, &self.dir.path(self.meta.group, "install"))?;
        Ok(self.meta)
    }

    fn verify(&self) -> Result<(), SnapshotError> {
        let reader = SnapshotReader::verified(&self.path, &self.file, Part::Whole)?;
        if *reader.meta() == self.meta {
            return Ok(());
        }
        Err(SnapshotError::Unexpected {
            path: self.path.display().to_string(),
            expected: describe(&self.meta),
            found: describe(reader.meta()),
        })
    }
}

/// How many bytes of an earlier try are good: whole frames of the very same snapshot.
fn good_bytes(
    path: &std::path::Path,
    file: &Arc<dyn DiskFile>,
    meta: &SnapshotMeta,
) -> Result<u64, SnapshotError> {
    let mut reader = match SnapshotReader::begin(path, file, Part::Whole) {
        Ok(reader) if reader.meta() == meta => reader,
        Err(error @ SnapshotError::Io { .. }) => return Err(error),
        Ok(_) | Err(_) => return Ok(0),
    };
    loop {
        match reader.next_chunk() {
            Ok(Chunk::End) => return Ok(reader.position()),
            Ok(Chunk::Rows(_) | Chunk::Entries(_)) => {}
            Err(error @ SnapshotError::Io { .. }) => return Err(error),
            Err(_) => return Ok(reader.position()),
        }
    }
}

fn describe(meta: &SnapshotMeta) -> String {
    format!("{} of group {} up to {} from {}", meta.id, meta.group, meta.last, meta.first_retained)
}
