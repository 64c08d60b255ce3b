//! Which calls fail, and how.

use std::io;
use std::path::Path;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `write_at` and `set_len` fail; nothing was changed.
    Write,
    /// `write_at` writes only a part, then fails.
    ShortWrite,
    /// `sync_data` fails. As Linux does, it then forgets the unsynced writes: each may or may not
    /// be on disk, a later good sync doesn't bring them back, and they may have become unreadable.
    Sync,
    /// `read_at` fails.
    Read,
    /// `open` fails.
    Open,
    /// `remove` fails.
    Remove,
    /// `rename` fails; looked up by the old name.
    Rename,
    /// `sync_dir` fails; the names stay pending.
    SyncDir,
}

/// Makes some calls fail with `EIO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// Only paths that contain this text; empty means all.
    pub path_contains: String,
    /// Which calls, and how they fail.
    pub kind: FaultKind,
    /// So many matching calls still succeed first.
    pub skip: u64,
    /// So many matching calls fail then; `u64::MAX` is for ever.
    pub count: u64,
}

impl FaultRule {
    /// The next call of this kind on a path that contains `path_contains` fails.
    pub fn once(kind: FaultKind, path_contains: &str) -> FaultRule {
        FaultRule { path_contains: path_contains.to_owned(), kind, skip: 0, count: 1 }
    }

    /// All calls of this kind on paths that contain `path_contains` fail from now on.
    pub fn for_ever(kind: FaultKind, path_contains: &str) -> FaultRule {
        FaultRule { count: u64::MAX, ..FaultRule::once(kind, path_contains) }
    }

    /// The same rule, but `skip` matching calls succeed first.
    pub fn after(self, skip: u64) -> FaultRule {
        FaultRule { skip, ..self }
    }
}

/// The rules of one disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<FaultRule>,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Whether this call fails. Every rule that matches counts the call.
    pub(super) fn strikes(&mut self, kind: FaultKind, path: &Path) -> bool {
        let name = path.to_string_lossy();
        let mut struck = false;
        for rule in &mut self.rules {
            if rule.kind != kind || !name.contains(&rule.path_contains) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.count > 0 {
                rule.count -= if rule.count == u64::MAX { 0 } else { 1 };
                struck = true;
            }
        }
        self.rules.retain(|rule| rule.count > 0);
        struck
    }
}

/// The error of a device that doesn't answer.
pub(super) fn eio() -> io::Error {
    rustix::io::Errno::IO.into()
}

/// The error of a full file system.
pub(super) fn enospc() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}
