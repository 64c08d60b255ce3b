//! Ends process groups that hold more memory than they may.
//!
//! One task for all workers of the node reads `/proc` once a second and sums the resident memory of each
//! group. Interpreters can't be held by the system's own limits well: Node reserves far more address
//! space than it uses, and a limit on the heap alone doesn't see buffers. Where there is no `/proc`,
//! nothing is watched.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

const INTERVAL: Duration = Duration::from_secs(1);

/// All groups that are watched.
#[derive(Default)]
pub(crate) struct Watch {
    groups: Mutex<HashMap<i32, Group>>,
}

struct Group {
    limit: u64,
    exceeded: Arc<Notify>,
}

/// A group that is watched until this is dropped.
pub(crate) struct Watched {
    watch: Arc<Watch>,
    group: i32,
    pub(crate) exceeded: Arc<Notify>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.groups.lock().remove(&self.group);
    }
}

impl Watch {
    pub(crate) fn add(self: &Arc<Self>, group: i32, limit: u64) -> Watched {
        let exceeded = Arc::new(Notify::new());
        self.groups.lock().insert(group, Group { limit, exceeded: Arc::clone(&exceeded) });
        Watched { watch: Arc::clone(self), group, exceeded }
    }

    fn judge(&self, used: &HashMap<i32, u64>) {
        for (id, group) in self.groups.lock().iter() {
            if used.get(id).is_some_and(|used| *used > group.limit) {
                group.exceeded.notify_one();
            }
        }
    }
}

/// Watches until `watch` is dropped.
pub(crate) async fn run(watch: Weak<Watch>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let Some(watch) = watch.upgrade() else { return };
        if watch.groups.lock().is_empty() {
            continue;
        }
        let read = tokio::task::spawn_blocking(|| used_by_group(Path::new("/proc"), page_bytes()));
        if let Ok(used) = read.await {
            watch.judge(&used);
        }
    }
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Resident bytes of each process group.
fn used_by_group(proc: &Path, page_bytes: u64) -> HashMap<i32, u64> {
    let mut used = HashMap::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.starts_with(char::is_numeric));
        if !is_process {
            continue;
        }
        // A process may end meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((group, pages)) = read_stat(&stat) {
            *used.entry(group).or_default() += pages * page_bytes;
        }
    }
    used
}

/// Group and resident pages, fields 5 and 24 of proc(5). The name, field 2, may hold anything.
fn read_stat(stat: &str) -> Option<(i32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let pages = fields.nth(18)?.parse().ok()?;
    Some((group, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_past_any_name() {
        let stat = "42 (a ) b) S 1 77 42 0 -1 4194304 1 0 0 0 3 4 0 0 20 0 5 0 100 200000 321 18446744 1 1";
        assert_eq!(read_stat(stat), Some((77, 321)));
        assert_eq!(read_stat("42 (x"), None);
    }

    #[test]
    fn groups_above_their_limit_are_told() {
        let watch = Arc::new(Watch::default());
        let (small, large) = (watch.add(1, 100), watch.add(2, 1000));
        watch.judge(&HashMap::from([(1, 101), (2, 1000), (3, 5000)]));
        let told = |watched: &Watched| {
            let future = watched.exceeded.notified();
            futures::FutureExt::now_or_never(future).is_some()
        };
        assert!(told(&small) && !told(&large));
        drop(small);
        assert_eq!(watch.groups.lock().len(), 1);
    }

    #[test]
    fn this_process_is_found() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(used_by_group(Path::new("/proc"), page_bytes())[&group] > 0);
    }
}
