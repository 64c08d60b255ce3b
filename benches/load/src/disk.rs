//! The disk's own rate: 4 KiB writes, each followed by fdatasync.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Syncs per second of the file system of `dir`, probed for a moment.
pub fn syncs_per_s(dir: &std::path::Path) -> Outcome<u64> {
    let mut file = tempfile::tempfile_in(dir)?;
    let block = [7u8; 4096];
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_millis(500) {
        file.write_all(&block)?;
        file.sync_data()?;
        count += 1;
    }
    Ok((count as f64 / begun.elapsed().as_secs_f64()) as u64)
}
