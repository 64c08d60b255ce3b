//! What is on the disk, what is only promised, and what a power cut makes of it.
//!
//! A pure state machine over [`Change`]s: the live disk and a replay of a recording go through the
//! same `apply`, so they can't differ.
//!
//! ```text
//!   file:   durable bytes + unsynced writes, cut into 512-byte sectors    = bytes as read now
//!   folder: durable names + unsynced links, unlinks, renames              = names as listed now
//! ```
//!
//! A power cut keeps any subset of the unsynced writes, each whole, not at all, or sector by
//! sector. Reordering needs no modelling of its own: where two writes overlap, "the older one
//! came last" is the same image as "the newer one was lost". A file may also keep a new length
//! without the bytes (zeroes). A rename is atomic: old names or new ones, never half.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::entropy::Dice;

/// The unit in which a device writes atomically.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Number of a file's content, independent of its names.
pub(super) type FileId = u64;

/// One thing that happened to the disk.
#[derive(Clone, Debug)]
pub(super) enum Change {
    CreateDir { dir: PathBuf },
    Create { dir: PathBuf, name: String, file: FileId },
    Remove { dir: PathBuf, name: String },
    Rename { dir: PathBuf, from: String, to: String },
    SyncDir { dir: PathBuf },
    Write { file: FileId, offset: u64, bytes: Bytes },
    SetLen { file: FileId, len: u64 },
    Sync { file: FileId },
    SyncFailed { file: FileId, seed: u64 },
    Rot { file: FileId, rot: Rot },
}

/// Damage to stored bytes; no sync brings them back.
#[derive(Clone, Debug)]
pub(super) enum Rot {
    Flip { offset: u64, xor: u8 },
    Zero { from: u64, to: u64 },
    Cut { len: u64 },
}

/// What a power cut leaves of unsynced changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survival {
    Lost,
    Kept,
    Seeded(u64),
}

impl Survival {
    /// Dice of their own for each file and folder: one's fate doesn't hang on what else is there.
    fn dice(self, part: u64) -> Dice {
        match self {
            Survival::Seeded(seed) => Dice::new(Dice::new(seed).draw() ^ Dice::new(part).draw()),
            Survival::Lost | Survival::Kept => Dice::new(0),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) files: BTreeMap<FileId, Content>,
    pub(super) dirs: BTreeMap<PathBuf, Folder>,
    next_file: FileId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// As every reader sees it.
    pub(super) current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: u64, bytes: Bytes },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) current: BTreeMap<String, FileId>,
    durable: BTreeMap<String, FileId>,
    /// Each is atomic: name → what it names afterwards.
    pending: Vec<Vec<(String, Option<FileId>)>>,
}

impl Image {
    /// An id for the next file.
    pub(super) fn fresh_file(&mut self) -> FileId {
        self.next_file += 1;
        self.next_file
    }

    /// The file of this name as seen now.
    pub(super) fn lookup(&self, dir: &Path, name: &str) -> Option<FileId> {
        self.dirs.get(dir)?.current.get(name).copied()
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<FileId> = self.dirs.values().flat_map(|d| d.current.values().copied()).collect();
        named.iter().filter_map(|id| self.files.get(id)).map(|f| f.current.len() as u64).sum()
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::CreateDir { dir } => {
                self.dirs.entry(dir.clone()).or_default();
            }
            Change::Create { dir, name, file } => {
                self.next_file = self.next_file.max(*file);
                self.files.insert(*file, Content::default());
                self.change_names(dir, vec![(name.clone(), Some(*file))]);
            }
            Change::Remove { dir, name } => self.change_names(dir, vec![(name.clone(), None)]),
            Change::Rename { dir, from, to } => {
                let file = self.lookup(dir, from);
                if from != to {
                    self.change_names(dir, vec![(from.clone(), None), (to.clone(), file)]);
                }
            }
            Change::SyncDir { dir } => {
                if let Some(folder) = self.dirs.get_mut(dir) {
                    folder.durable = folder.current.clone();
                    folder.pending.clear();
                }
            }
            Change::Write { file, offset, bytes } => self.with_file(*file, |content| {
                overlay(&mut content.current, *offset, bytes);
                content.pending.push(Pending::Write { offset: *offset, bytes: bytes.clone() });
            }),
            Change::SetLen { file, len } => self.with_file(*file, |content| {
                content.current.resize(*len as usize, 0);
                content.pending.push(Pending::SetLen(*len));
            }),
            Change::Sync { file } => self.with_file(*file, Content::sync),
            Change::SyncFailed { file, seed } => self.with_file(*file, |content| content.lose_sync(*seed)),
            Change::Rot { file, rot } => self.with_file(*file, |content| content.rot(rot)),
        }
    }

    /// The disk as the next start finds it.
    pub(super) fn cut_power(&self, survival: Survival) -> Image {
        let mut next = Image { next_file: self.next_file, ..Image::default() };
        for (at, (path, folder)) in self.dirs.iter().enumerate() {
            let names = folder.survivors(survival, &mut survival.dice(u64::MAX - at as u64));
            next.dirs
                .insert(path.clone(), Folder { durable: names.clone(), current: names, pending: Vec::new() });
        }
        let named = next.dirs.values().flat_map(|folder| folder.current.values().copied());
        for id in named.collect::<BTreeSet<FileId>>() {
            let Some(content) = self.files.get(&id) else { continue };
            let bytes = content.survivors(survival, &mut survival.dice(id));
            next.files.insert(id, Content { durable: bytes.clone(), current: bytes, pending: Vec::new() });
        }
        next
    }

    /// Forgets files that no name, durable or pending, leads to. `open` files stay.
    pub(super) fn forget_unnamed(&mut self, open: impl Fn(FileId) -> bool) {
        let mut named = BTreeSet::new();
        for folder in self.dirs.values() {
            named.extend(folder.current.values().chain(folder.durable.values()).copied());
            named.extend(folder.pending.iter().flatten().filter_map(|(_, file)| *file));
        }
        self.files.retain(|id, _| named.contains(id) || open(*id));
    }

    fn with_file(&mut self, file: FileId, change: impl FnOnce(&mut Content)) {
        if let Some(content) = self.files.get_mut(&file) {
            change(content);
        }
    }

    fn change_names(&mut self, dir: &Path, change: Vec<(String, Option<FileId>)>) {
        if let Some(folder) = self.dirs.get_mut(dir) {
            rename_in(&mut folder.current, &change);
            folder.pending.push(change);
        }
    }
}

impl Content {
    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Write { offset, bytes } => overlay(&mut self.durable, offset, &bytes),
                Pending::SetLen(len) => self.durable.resize(len as usize, 0),
            }
        }
        // After a failed sync the two may differ for ever; a good sync doesn't bring them together.
    }

    /// A failed sync: some of the writes reached the disk, and none will be tried again.
    fn lose_sync(&mut self, seed: u64) {
        let mut dice = Dice::new(seed);
        self.durable = self.survivors(Survival::Seeded(seed), &mut dice);
        self.pending.clear();
        if dice.coin() {
            self.current = self.durable.clone();
        }
    }

    /// Rot works on what is stored. A cut also settles what was not synced: it has no place left.
    fn rot(&mut self, rot: &Rot) {
        match rot {
            Rot::Flip { offset, xor } => {
                for bytes in [&mut self.current, &mut self.durable] {
                    if let Some(byte) = bytes.get_mut(*offset as usize) {
                        *byte ^= xor;
                    }
                }
            }
            Rot::Zero { from, to } => {
                for bytes in [&mut self.current, &mut self.durable] {
                    let to = bytes.len().min(*to as usize);
                    let from = to.min(*from as usize);
                    bytes[from..to].fill(0);
                }
            }
            Rot::Cut { len } => {
                self.current.truncate(*len as usize);
                self.durable = self.current.clone();
                self.pending.clear();
            }
        }
    }

    fn survivors(&self, survival: Survival, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let fate = Fate::of(survival, self.pending.len(), dice);
        for (at, pending) in self.pending.iter().enumerate() {
            match pending {
                Pending::SetLen(len) => {
                    if fate.keeps(at, dice) {
                        bytes.resize(*len as usize, 0);
                    }
                }
                Pending::Write { offset, bytes: written } if fate.tears(at) => {
                    tear(&mut bytes, *offset, written, dice);
                }
                Pending::Write { offset, bytes: written } => {
                    if fate.keeps(at, dice) {
                        overlay(&mut bytes, *offset, written);
                    }
                }
            }
        }
        let grown = self.current.len() > bytes.len() && !self.pending.is_empty();
        if grown && fate.is_mixed() && dice.below(4) == 0 {
            bytes.resize(self.current.len(), 0);
        }
        bytes
    }
}

impl Folder {
    fn survivors(&self, survival: Survival, dice: &mut Dice) -> BTreeMap<String, FileId> {
        let mut names = self.durable.clone();
        let fate = Fate::of(survival, self.pending.len(), dice);
        for (at, change) in self.pending.iter().enumerate() {
            let keep = if fate.tears(at) { dice.coin() } else { fate.keeps(at, dice) };
            if keep {
                rename_in(&mut names, change);
            }
        }
        names
    }
}

/// The common fate of the unsynced changes of one file or folder. Extremes are drawn as often as
/// mixtures, because both find bugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    AllLost,
    AllKept,
    /// The first ones are kept, the next is torn, the rest is lost.
    Prefix(usize),
    /// Each is kept whole or lost whole.
    Some,
    /// Each sector is kept or lost.
    Torn,
}

impl Fate {
    fn of(survival: Survival, count: usize, dice: &mut Dice) -> Fate {
        match survival {
            Survival::Lost => Fate::AllLost,
            Survival::Kept => Fate::AllKept,
            Survival::Seeded(_) => match dice.below(6) {
                0 => Fate::AllLost,
                1 => Fate::AllKept,
                2 | 3 => Fate::Prefix(dice.below(count as u64 + 1) as usize),
                4 => Fate::Some,
                _ => Fate::Torn,
            },
        }
    }

    fn keeps(self, at: usize, dice: &mut Dice) -> bool {
        match self {
            Fate::AllLost => false,
            Fate::AllKept => true,
            Fate::Prefix(kept) => at < kept,
            Fate::Some | Fate::Torn => dice.coin(),
        }
    }

    fn tears(self, at: usize) -> bool {
        matches!(self, Fate::Torn) || self == Fate::Prefix(at)
    }

    fn is_mixed(self) -> bool {
        !matches!(self, Fate::AllLost | Fate::AllKept)
    }
}

/// Writes a part of `written`: each sector of the file is kept or lost.
fn tear(bytes: &mut Vec<u8>, offset: u64, written: &[u8], dice: &mut Dice) {
    let mut at = 0;
    while at < written.len() {
        let place = offset + at as u64;
        let in_sector = (SECTOR_BYTES - place % SECTOR_BYTES) as usize;
        let end = written.len().min(at + in_sector);
        if dice.coin() {
            overlay(bytes, place, &written[at..end]);
        }
        at = end;
    }
}

fn overlay(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    if written.is_empty() {
        return;
    }
    let (start, end) = (offset as usize, offset as usize + written.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(written);
}

fn rename_in(names: &mut BTreeMap<String, FileId>, change: &[(String, Option<FileId>)]) {
    for (name, file) in change {
        match file {
            Some(file) => names.insert(name.clone(), *file),
            None => names.remove(name),
        };
    }
}
