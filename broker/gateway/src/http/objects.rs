//! Files that devices upload: stored in an `object_store` (a local folder by default, or what speaks
//! S3), reached over HTTP by signed addresses that the public storage SDKs understand.
//!
//! ```text
//! uploads/{device}/{name}            a file
//! blocks/{device}/{name}/{block}     a block of a file that isn't put together yet
//! ```
//!
//! Invariants:
//! 1. A file is visible whole or not at all.
//! 2. One request holds [`ObjectLimits::part_bytes`] of a file in memory, and only
//!    [`ObjectLimits::writers_max`] do so at a time.
//!
//! Not here: who may begin an upload (`device/uploads`), content types and checksums of files.

mod block_list;
pub(super) mod front;
pub(super) mod sign;
mod write;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use super::call::hex;
use super::router::CONTAINER;

/// Where blocks wait.
const BLOCKS: &str = "blocks";

/// Bounds of uploaded files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Bytes of a part as it is handed to the store. Default 5 MiB, the least that S3 takes.
    pub part_bytes: usize,
    /// Bytes of a file, and of the blocks that wait for one. Default 1 GiB.
    pub blob_bytes_max: u64,
    /// Blocks that wait for one file. Default 10,000.
    pub blocks_max: usize,
    /// Files that are written at a time; more are told to come back. Default 32.
    pub writers_max: usize,
    /// How long a writer may send nothing. Default 30 s.
    pub idle: Duration,
    /// How long blocks wait to be put together before [`ObjectFront::sweep`] removes them. Default 2 h:
    /// an address lives for one.
    pub blocks_kept: Duration,
}

impl Default for ObjectLimits {
    fn default() -> ObjectLimits {
        ObjectLimits {
            part_bytes: 5 << 20,
            blob_bytes_max: 1 << 30,
            blocks_max: 10_000,
            writers_max: 32,
            idle: Duration::from_secs(30),
            blocks_kept: Duration::from_secs(2 * 60 * 60),
        }
    }
}

/// Uploaded files.
#[derive(Debug)]
pub struct ObjectFront {
    store: Arc<dyn ObjectStore>,
    limits: ObjectLimits,
    writers: Semaphore,
}

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    /// As HTTP writes dates.
    pub(super) modified: String,
    pub(super) etag: String,
}

impl From<&ObjectMeta> for Found {
    fn from(meta: &ObjectMeta) -> Found {
        let etag = meta.e_tag.clone().unwrap_or_default();
        Found {
            size: meta.size,
            modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default(),
            modified: meta.last_modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            etag: etag.trim_matches('"').to_owned(),
        }
    }
}

impl ObjectFront {
    /// Files in `store`.
    pub fn new(store: Arc<dyn ObjectStore>, limits: ObjectLimits) -> Arc<ObjectFront> {
        let writers = Semaphore::new(limits.writers_max);
        Arc::new(ObjectFront { store, limits, writers })
    }

    /// A file; `None` when there is none.
    pub(super) async fn find(&self, blob: &str) -> object_store::Result<Option<Found>> {
        match self.store.head(&file(blob)).await {
            Ok(meta) => Ok(Some(Found::from(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The blocks that wait for a file: how many and how many bytes.
    async fn waiting(&self, blob: &str) -> object_store::Result<(usize, u64)> {
        let blocks = self.store.list(Some(&blocks(blob)));
        blocks.try_fold((0, 0), async |(count, bytes), meta| Ok((count + 1, bytes + meta.size))).await
    }

    /// Removes the blocks that wait for a file. What can't be removed now, [`ObjectFront::sweep`] will.
    pub(super) async fn forget_blocks(&self, blob: &str) {
        self.remove(&blocks(blob), |_| true).await;
    }

    /// Removes blocks that wait for longer than they may. To be called now and then, by one node.
    pub async fn sweep(&self, now_ms: u64) {
        let kept = u64::try_from(self.limits.blocks_kept.as_millis()).unwrap_or(u64::MAX);
        let before = now_ms.saturating_sub(kept);
        self.remove(&Path::from(BLOCKS), |meta| Found::from(meta).modified_ms < before).await;
    }

    async fn remove(&self, prefix: &Path, wanted: impl Fn(&ObjectMeta) -> bool) {
        let mut listed = self.store.list(Some(prefix));
        while let Some(meta) = listed.next().await {
            let removed = match meta {
                Ok(meta) if wanted(&meta) => self.store.delete(&meta.location).await,
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(%prefix, %error, "blocks of uploads can't be removed");
                return;
            }
        }
    }
}

fn file(blob: &str) -> Path {
    std::iter::once(CONTAINER).chain(blob.split('/')).collect()
}

fn blocks(blob: &str) -> Path {
    std::iter::once(BLOCKS).chain(blob.split('/')).collect()
}

/// A block; its id may be any bytes.
fn block(blob: &str, id: &[u8]) -> Path {
    blocks(blob).join(hex(id).as_str())
}
