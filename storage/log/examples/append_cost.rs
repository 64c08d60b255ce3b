//! CPU time per entry: in `append` alone, and in all (append, checksum, layout, bookkeeping), on a
//! disk that takes writes and drops them, so that only our own cost counts.
//!
//! `cargo run --release -p fleetline-log --example append_cost`
#![allow(clippy::unwrap_used)]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fleetline_env::memory::MemDisk;
use fleetline_env::real::RealClock;
use fleetline_env::{Disk, DiskFile, FileLock, OpenMode};
use fleetline_log::{LogEntry, LogOptions, MarkPolicy, NodeLog, Payload, SegLog, WriterMode};
use fleetline_types::{GroupId, LogId, LogIndex};

/// Names are kept, bytes are not.
#[derive(Debug)]
struct NullDisk(MemDisk);

#[derive(Debug, Default)]
struct NullFile(AtomicU64);

impl Disk for NullDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path, mode)?;
        Ok(Arc::new(NullFile::default()))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.0.lock(path)
    }
}

impl DiskFile for NullFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.0.fetch_max(offset + bytes as u64, Ordering::Relaxed);
        Ok(())
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.store(len, Ordering::Relaxed);
        Ok(())
    }
}

fn measure(entry_bytes: usize, per_append: usize, rounds: u64) {
    let options = LogOptions { mark: MarkPolicy::Off, writer: WriterMode::Manual, ..LogOptions::new("/log") };
    let disk = Arc::new(NullDisk(MemDisk::new()));
    let (log, _) = SegLog::open(disk, Arc::new(RealClock::new()), options).unwrap();
    let body = Bytes::from((0..entry_bytes).map(|at| (at * 31) as u8).collect::<Vec<_>>());
    let (mut appending, mut pumping, mut entries) = (0.0, 0.0, 0u64);
    for round in 0..rounds {
        let batches: Vec<Vec<LogEntry>> = (0..16u64)
            .map(|batch| {
                let first = (round * 16 + batch) * per_append as u64;
                let entry = |index| LogEntry {
                    id: LogId::new(1, index),
                    kind: 0,
                    payload: Payload { head: Bytes::new(), body: body.clone() },
                };
                (first..first + per_append as u64).map(entry).collect()
            })
            .collect();
        entries += 16 * per_append as u64;
        let start = Instant::now();
        for batch in batches {
            log.append(GroupId(1), batch, Box::new(|_| ())).unwrap();
        }
        appending += start.elapsed().as_secs_f64();
        let start = Instant::now();
        while log.has_pending() {
            log.pump();
        }
        pumping += start.elapsed().as_secs_f64();
        if round % 64 == 0 && round > 0 {
            let last = log.state(GroupId(1)).last.unwrap();
            log.purge(GroupId(1), last, Box::new(|_| ())).unwrap();
            log.retain_from(GroupId(1), LogIndex(last.index.0)).unwrap();
        }
    }
    println!(
        "{entry_bytes:6} B, {per_append:3} a call: {:6.3} us in append, {:6.3} us in all per entry",
        appending * 1e6 / entries as f64,
        (appending + pumping) * 1e6 / entries as f64
    );
}

fn main() {
    for _ in 0..3 {
        measure(100, 1, 20_000);
        measure(100, 16, 2_000);
        measure(16 << 10, 1, 2_000);
        measure(16 << 10, 16, 200);
    }
}
