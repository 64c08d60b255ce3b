//! The contract of the disk, run on the real one and on the one in memory.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use fleetline_env::memory::MemDisk;
use fleetline_env::real::RealDisk;
use fleetline_env::{Disk, OpenMode};
use proptest::prelude::*;

/// Runs `check` on every implementation, in an empty folder each.
fn on_every_disk(check: impl Fn(&dyn Disk, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&RealDisk, dir.path());
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/data/node")).unwrap();
    check(&disk, Path::new("/data/node"));
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize + 10];
    let count = file.read_at(0, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::OpenOrCreate).unwrap();
    file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
    file.sync_data().unwrap();
}

/// Writes are readable at once by every handle, at their place, with zeroes in holes.
#[test]
fn writes_are_readable_at_once_by_every_handle() {
    on_every_disk(|disk, dir| {
        let path = dir.join("a");
        let writer = disk.open(&path, OpenMode::CreateNew).unwrap();
        let reader = disk.open(&path, OpenMode::Read).unwrap();
        let parts = [&b"he"[..], b"", b"llo", b" world"].map(IoSlice::new);
        writer.write_at(4, &parts).unwrap();
        writer.write_at(6, &[IoSlice::new(b"LL")]).unwrap();
        writer.write_at(100, &[]).unwrap();
        let mut buf = [9; 32];
        assert_eq!(reader.read_at(0, &mut buf).unwrap(), 15);
        assert_eq!(&buf[..16], b"\0\0\0\0heLLo world\x09");
        assert_eq!(reader.read_at(13, &mut buf[..2]).unwrap(), 2);
        assert_eq!(&buf[..2], b"ld");
        assert_eq!(reader.read_at(15, &mut buf).unwrap(), 0);
        assert_eq!(reader.read_at(1 << 40, &mut buf).unwrap(), 0);
        assert_eq!(reader.len().unwrap(), 15);
        writer.sync_data().unwrap();
    });
}

/// The four ways to open a file do what they say, and a handle for reading can't write.
#[test]
fn open_modes() {
    on_every_disk(|disk, dir| {
        let path = dir.join("a");
        for mode in [OpenMode::Read, OpenMode::ReadWrite] {
            assert_eq!(disk.open(&path, mode).unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert!(!disk.exists(&path).unwrap());
        disk.open(&path, OpenMode::OpenOrCreate).unwrap();
        write(disk, &path, b"kept");
        disk.open(&path, OpenMode::OpenOrCreate).unwrap();
        assert!(disk.exists(&path).unwrap());
        assert_eq!(read(disk, &path), b"kept");
        assert_eq!(disk.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let reader = disk.open(&path, OpenMode::Read).unwrap();
        reader.write_at(0, &[IoSlice::new(b"x")]).unwrap_err();
        reader.set_len(0).unwrap_err();
        assert_eq!(read(disk, &path), b"kept");
        assert_eq!(disk.open(dir, OpenMode::Read).unwrap_err().kind(), ErrorKind::IsADirectory);
        let orphan = dir.join("missing").join("a");
        assert_eq!(disk.open(&orphan, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// `set_len` cuts and extends with zeroes.
#[test]
fn set_len_cuts_and_extends() {
    on_every_disk(|disk, dir| {
        let path = dir.join("a");
        write(disk, &path, b"abcdef");
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        file.set_len(2).unwrap();
        assert_eq!(read(disk, &path), b"ab");
        file.set_len(4).unwrap();
        assert_eq!(read(disk, &path), b"ab\0\0");
        assert_eq!(file.len().unwrap(), 4);
    });
}

/// Names: listing is sorted and without folders; rename replaces; remove leaves open handles alone.
#[test]
fn names() {
    on_every_disk(|disk, dir| {
        for name in ["c", "a", "b"] {
            write(disk, &dir.join(name), name.as_bytes());
        }
        disk.create_dir_all(&dir.join("sub/below")).unwrap();
        disk.create_dir_all(&dir.join("sub/below")).unwrap();
        assert_eq!(disk.list(dir).unwrap(), ["a", "b", "c"]);
        assert_eq!(disk.list(&dir.join("sub")).unwrap(), [""; 0]);
        assert_eq!(disk.list(&dir.join("nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!disk.exists(&dir.join("sub")).unwrap(), "a folder is no file");

        let open = disk.open(&dir.join("a"), OpenMode::ReadWrite).unwrap();
        disk.rename(&dir.join("a"), &dir.join("c")).unwrap();
        assert_eq!(disk.list(dir).unwrap(), ["b", "c"]);
        open.write_at(1, &[IoSlice::new(b"!")]).unwrap();
        assert_eq!(read(disk, &dir.join("c")), b"a!");
        disk.remove(&dir.join("c")).unwrap();
        disk.sync_dir(dir).unwrap();
        let mut buf = [0; 4];
        assert_eq!(open.read_at(0, &mut buf).unwrap(), 2);
        assert_eq!(disk.list(dir).unwrap(), ["b"]);

        assert_eq!(disk.remove(&dir.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
        let missing = disk.rename(&dir.join("c"), &dir.join("d"));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        let across = disk.rename(&dir.join("b"), &dir.join("sub/b"));
        assert_eq!(across.unwrap_err().kind(), ErrorKind::InvalidInput);
        disk.create_dir_all(&dir.join("b/under-a-file")).unwrap_err();
    });
}

/// A lock has one holder at a time, in this process too, and ends with its guard.
#[test]
fn lock_has_one_holder() {
    on_every_disk(|disk, dir| {
        let path = dir.join("LOCK");
        let held = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        disk.lock(&dir.join("OTHER")).unwrap();
        drop(held);
        disk.lock(&path).unwrap();
        assert!(disk.exists(&path).unwrap());
    });
}

/// Free space is answered for folders that exist.
#[test]
fn free_bytes_of_a_folder() {
    on_every_disk(|disk, dir| {
        assert!(disk.free_bytes(dir).unwrap() > 0);
        assert_eq!(disk.free_bytes(&dir.join("nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u64, Vec<u8>),
    SetLen(u8, u64),
    Remove(u8),
    Rename(u8, u8),
    Sync(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..4u8;
    prop_oneof![
        4 => (file.clone(), 0..3000u64, prop::collection::vec(any::<u8>(), 0..1200))
            .prop_map(|(f, at, bytes)| Step::Write(f, at, bytes)),
        1 => (file.clone(), 0..3000u64).prop_map(|(f, len)| Step::SetLen(f, len)),
        1 => file.clone().prop_map(Step::Remove),
        1 => (file.clone(), file.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => file.prop_map(Step::Sync),
    ]
}

/// Does one step and gives its result as text, so that two disks can be compared.
fn run(disk: &dyn Disk, dir: &Path, step: &Step) -> String {
    let name = |n: &u8| -> PathBuf { dir.join(format!("f{n}")) };
    let open = |n: &u8| disk.open(&name(n), OpenMode::OpenOrCreate).unwrap();
    let result = match step {
        Step::Write(f, at, bytes) => {
            let (one, two) = bytes.split_at(bytes.len() / 3);
            open(f).write_at(*at, &[IoSlice::new(one), IoSlice::new(two)])
        }
        Step::SetLen(f, len) => open(f).set_len(*len),
        Step::Remove(f) => disk.remove(&name(f)),
        Step::Rename(a, b) => disk.rename(&name(a), &name(b)),
        Step::Sync(f) => open(f).sync_data(),
    };
    format!("{:?}", result.map_err(|error| error.kind()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of calls has the same results and leaves the same files on both disks.
    #[test]
    fn both_disks_agree(steps in prop::collection::vec(step(), 0..40)) {
        let temp = tempfile::tempdir().unwrap();
        let memory = MemDisk::new();
        for step in &steps {
            let results = (run(&RealDisk, temp.path(), step), run(&memory, Path::new("/"), step));
            prop_assert_eq!(results.0, results.1, "{:?}", step);
        }
        let names = memory.list(Path::new("/")).unwrap();
        prop_assert_eq!(&RealDisk.list(temp.path()).unwrap(), &names);
        for name in names {
            prop_assert_eq!(read(&RealDisk, &temp.path().join(&name)), read(&memory, &Path::new("/").join(&name)));
        }
    }
}
