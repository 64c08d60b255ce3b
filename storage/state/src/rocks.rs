//! The state store on RocksDB, without its write-ahead log.
//!
//! Made by `broker/node`. The Raft log is the write-ahead log: rows become durable only when a
//! flush writes all column families as one (`atomic_flush`), together with the applied index that
//! says from where to replay. RocksDB also flushes by itself when the memtables are full; that is
//! as atomic.
//!
//! ```text
//!   family "default":  "format" → u32                              version of this layout
//!   family "index":    rows of KeyKind::StreamIndex                one row per run of entries
//!   family "state":    all other rows
//!   key:               group u32 BE | kind u8 | key bytes          kind 0xff is never given
//! ```
//!
//! Scans set bounds of (group, kind) instead of a prefix extractor: every seek is then in total
//! order, and range tombstones of retention end where the bound is.
//!
//! Invariants:
//! 1. No write goes to a WAL; no two families are ever flushed apart.
//! 2. Memory stays near `block_cache_bytes + memtable_bytes`: writers wait when memtables can't be
//!    flushed as fast as they fill.
//!
//! Not here: what rows mean, when to flush (`raft/group`), backup.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use fleetline_types::GroupId;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    Error, ErrorKind, FlushOptions, Options, ReadOptions, WriteBatch,
};

use crate::{KeyKind, Row, StateBatch, StateError, StateOp, StateSnapshot, StateStats, StateStore};

mod view;

/// The layout that this program reads and writes.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
/// All families; flushed as one.
const FAMILIES: [&str; 3] = ["default", STATE, INDEX];
const STATE: &str = "state";
const INDEX: &str = "index";
/// Kept open at a time; one more costs a file descriptor and its index block.
const FILES_OPEN_MAX: i32 = 512;

/// How to open the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// The folder; created when missing.
    pub dir: PathBuf,
    /// Bytes of the cache for blocks, indexes and filters. Too low: reads go to the disk.
    pub block_cache_bytes: usize,
    /// Bytes of rows in memory before RocksDB flushes by itself. Too low: many small files and more
    /// compaction. Too high: a longer replay after a crash.
    pub memtable_bytes: usize,
}

impl RocksOptions {
    /// 64 MiB of cache and 64 MiB of memtables.
    pub fn new(dir: impl Into<PathBuf>) -> RocksOptions {
        RocksOptions { dir: dir.into(), block_cache_bytes: 64 << 20, memtable_bytes: 64 << 20 }
    }
}

/// Keyed state in RocksDB. See the module.
pub struct RocksState {
    db: Arc<DB>,
    /// Bytes written since the last flush that was asked for.
    unflushed_bytes: AtomicU64,
    /// Views that are open, for their bound.
    views: Arc<AtomicUsize>,
}

impl fmt::Debug for RocksState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksState").field("dir", &self.db.path()).finish_non_exhaustive()
    }
}

impl RocksState {
    /// Opens the store, creating it when the folder is empty.
    ///
    /// # Errors
    /// `InUse` when a process (this one too) has it open; `Store` for damage, and for a format that
    /// this program doesn't know.
    pub fn open(options: &RocksOptions) -> Result<RocksState, StateError> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir)
            .map_err(|error| StateError::Store(format!("folder {} can't be made: {error}", dir.display())))?;
        let family = family_options(options);
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family.clone()));
        let db = DB::open_cf_descriptors(&database_options(options), dir, families).map_err(|error| {
            if is_lock_error(&error) { StateError::InUse(dir.display().to_string()) } else { store(error) }
        })?;
        let state = RocksState {
            db: Arc::new(db),
            unflushed_bytes: AtomicU64::new(0),
            views: Arc::new(AtomicUsize::new(0)),
        };
        state.check_format()?;
        Ok(state)
    }

    fn check_format(&self) -> Result<(), StateError> {
        match self.db.get(FORMAT_KEY).map_err(store)? {
            Some(found) if found == FORMAT.to_be_bytes() => Ok(()),
            Some(found) => Err(StateError::Store(format!(
                "folder {} has state format {found:?}, this program knows {FORMAT}; use the release that wrote it",
                self.db.path().display()
            ))),
            None if self.is_empty()? => {
                let mut batch = WriteBatch::default();
                batch.put(FORMAT_KEY, FORMAT.to_be_bytes());
                self.db.write_without_wal(batch).map_err(store)?;
                self.flush()
            }
            None => Err(StateError::Store(format!(
                "folder {} has rows but no format row; restore this node from its peers",
                self.db.path().display()
            ))),
        }
    }

    fn is_empty(&self) -> Result<bool, StateError> {
        for name in [STATE, INDEX] {
            let mut rows = self.db.raw_iterator_cf(family(&self.db, name));
            rows.seek_to_first();
            rows.status().map_err(store)?;
            if rows.valid() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An iterator over exactly the rows of (group, kind).
    fn rows_of(&self, group: GroupId, kind: KeyKind) -> DBRawIterator<'_> {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(stored_key(group, kind as u8, b""));
        bounds.set_iterate_upper_bound(stored_key(group, kind as u8 + 1, b""));
        self.db.raw_iterator_cf_opt(family_of(&self.db, kind), bounds)
    }

    fn property(&self, name: &str) -> u64 {
        let of = |family| self.db.property_int_value_cf(family, name).ok().flatten();
        FAMILIES.iter().filter_map(|family_name| self.db.cf_handle(family_name)).filter_map(of).sum()
    }
}

impl StateStore for RocksState {
    fn get(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let found = self.db.get_cf(family_of(&self.db, kind), stored_key(group, kind as u8, key));
        Ok(found.map_err(store)?.map(Bytes::from))
    }

    fn scan(&self, group: GroupId, kind: KeyKind, from: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        let mut rows = self.rows_of(group, kind);
        let mut found = Vec::new();
        rows.seek(stored_key(group, kind as u8, from));
        while found.len() < limit {
            let Some((key, value)) = rows.item() else { break };
            found.push((own_key(key)?, Bytes::copy_from_slice(value)));
            rows.next();
        }
        rows.status().map_err(store)?;
        Ok(found)
    }

    fn last_at_or_below(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Row>, StateError> {
        let mut rows = self.rows_of(group, kind);
        rows.seek_for_prev(stored_key(group, kind as u8, key));
        rows.status().map_err(store)?;
        let Some((key, value)) = rows.item() else { return Ok(None) };
        Ok(Some((own_key(key)?, Bytes::copy_from_slice(value))))
    }

    fn write(&self, batch: StateBatch) -> Result<(), StateError> {
        let mut writes = WriteBatch::default();
        for op in &batch.ops {
            add_op(&self.db, &mut writes, op);
        }
        self.db.write_without_wal(writes).map_err(store)?;
        self.unflushed_bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let written = self.unflushed_bytes.load(Ordering::Relaxed);
        let families = FAMILIES.map(|name| family(&self.db, name));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families.each_ref(), &options).map_err(store)?;
        // Two flushes at once may both have seen the same bytes.
        let less = |now: u64| Some(now.saturating_sub(written));
        let _ = self.unflushed_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(())
    }

    fn snapshot(&self, group: GroupId) -> Result<Box<dyn StateSnapshot>, StateError> {
        Ok(Box::new(view::RocksView::open(&self.db, &self.views, group)?))
    }

    fn stats(&self) -> StateStats {
        let on_disk = self.property("rocksdb.total-sst-files-size");
        let in_memory = self.property("rocksdb.cur-size-all-mem-tables");
        StateStats {
            bytes: on_disk + in_memory,
            unflushed_bytes: self.unflushed_bytes.load(Ordering::Relaxed),
        }
    }
}

fn database_options(options: &RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_atomic_flush(true);
    database.set_paranoid_checks(true);
    database.set_db_write_buffer_size(options.memtable_bytes);
    database.set_max_open_files(FILES_OPEN_MAX);
    database.set_max_background_jobs(2);
    database.set_avoid_unnecessary_blocking_io(true);
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(8 << 20);
    database
}

fn family_options(options: &RocksOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut family = Options::default();
    family.set_block_based_table_factory(&blocks);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_bottommost_compression_type(DBCompressionType::Zstd);
    family.set_level_compaction_dynamic_level_bytes(true);
    // Two families fill memtables; with the one being flushed that is the budget.
    family.set_write_buffer_size((options.memtable_bytes / 4).max(64 << 10));
    family.set_max_write_buffer_number(3);
    family
}

/// RocksDB has no error kind of its own for a lock that is held.
fn is_lock_error(error: &Error) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::IOError && (text.contains("lock hold by") || text.contains("While lock file"))
}

fn add_op(db: &DB, writes: &mut WriteBatch, op: &StateOp) {
    match op {
        StateOp::Put(row, value) => {
            writes.put_cf(family_of(db, row.kind), stored_key(row.group, row.kind as u8, &row.key), value);
        }
        StateOp::Delete(row) => {
            writes.delete_cf(family_of(db, row.kind), stored_key(row.group, row.kind as u8, &row.key));
        }
        StateOp::DeleteRange { group, kind, from, to } if from < to => {
            let (from, to) = (stored_key(*group, *kind as u8, from), stored_key(*group, *kind as u8, to));
            writes.delete_range_cf(family_of(db, *kind), from, to);
        }
        StateOp::DeleteRange { .. } => {}
        StateOp::DeleteGroup(group) => {
            for name in [STATE, INDEX] {
                writes.delete_range_cf(family(db, name), first_key(*group), end_key(*group));
            }
        }
    }
}

fn family_of(db: &DB, kind: KeyKind) -> &ColumnFamily {
    family(db, if kind == KeyKind::StreamIndex { INDEX } else { STATE })
}

fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("all families are opened with the database")
}

fn stored_key(group: GroupId, kind: u8, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(5 + key.len());
    stored.extend_from_slice(&group.0.to_be_bytes());
    stored.push(kind);
    stored.extend_from_slice(key);
    stored
}

fn first_key(group: GroupId) -> Vec<u8> {
    stored_key(group, 0, b"")
}

/// Behind all rows of `group`.
fn end_key(group: GroupId) -> Vec<u8> {
    stored_key(group, u8::MAX, b"")
}

/// The kind byte and the key within (group, kind).
fn split_key(stored: &[u8]) -> Result<(u8, &[u8]), StateError> {
    match stored {
        [_, _, _, _, kind, key @ ..] => Ok((*kind, key)),
        short => {
            Err(StateError::Malformed { kind: 0, reason: format!("its key has only {} bytes", short.len()) })
        }
    }
}

fn own_key(stored: &[u8]) -> Result<Bytes, StateError> {
    split_key(stored).map(|(_, key)| Bytes::copy_from_slice(key))
}

fn store(error: Error) -> StateError {
    StateError::Store(error.into_string())
}
