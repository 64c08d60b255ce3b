//! What the disk in memory loses, keeps and breaks on request: power cuts, faults, rot, a full disk.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use fleetline_env::memory::{FaultKind, FaultRule, MemDisk};
use fleetline_env::{Disk, DiskFile, OpenMode};
use proptest::prelude::*;

const A: &str = "/a";

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn open(disk: &MemDisk, name: &str) -> std::sync::Arc<dyn DiskFile> {
    disk.open(path(name), OpenMode::OpenOrCreate).unwrap()
}

fn put(file: &dyn DiskFile, offset: u64, bytes: &[u8]) {
    file.write_at(offset, &[IoSlice::new(bytes)]).unwrap();
}

/// A disk with the durable file `/a` of these bytes.
fn disk_with(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    let file = open(&disk, A);
    put(&*file, 0, bytes);
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk
}

fn bytes(disk: &MemDisk) -> Vec<u8> {
    disk.contents(path(A)).unwrap()
}

/// Unsynced bytes and names go or stay as asked; synced ones always stay.
#[test]
fn synced_is_kept_and_unsynced_may_go() {
    let disk = disk_with(b"old");
    put(&*open(&disk, A), 0, b"new and longer");
    put(&*open(&disk, "/b"), 0, b"b");
    open(&disk, "/b").sync_data().unwrap();

    let lost = disk.crash_all_lost();
    assert_eq!(bytes(&lost), b"old");
    assert_eq!(lost.list(path("/")).unwrap(), ["a"], "bytes were synced, the name was not");
    let kept = disk.crash_all_kept();
    assert_eq!(bytes(&kept), b"new and longer");
    assert_eq!(kept.list(path("/")).unwrap(), ["a", "b"]);
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(disk.crash_all_lost().contents(path("/b")).unwrap(), b"b");
    assert_eq!(bytes(&disk), b"new and longer", "the running disk is as it was");
}

/// A write can be torn between sectors, never within one.
#[test]
fn tears_at_sectors_only() {
    let disk = disk_with(&[1; 2048]);
    put(&*open(&disk, A), 300, &[2; 1400]);
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let found = bytes(&disk.crash(seed));
        assert_eq!(found.len(), 2048);
        let spans = [300..512, 512..1024, 1024..1536, 1536..1700];
        let whole: Vec<bool> = spans.iter().map(|span| found[span.start] == 2).collect();
        for (span, new) in spans.into_iter().zip(&whole) {
            assert!(found[span].iter().all(|byte| *byte == if *new { 2 } else { 1 }), "seed {seed}");
        }
        assert!(found[..300].iter().chain(&found[1700..]).all(|byte| *byte == 1), "seed {seed}");
        seen.insert(whole);
    }
    assert_eq!(seen.len(), 16, "every subset of four sectors was drawn");
}

/// A later write may survive an earlier one, and a length without its bytes.
#[test]
fn reorders_writes_and_leaves_holes() {
    let disk = disk_with(b"");
    put(&*open(&disk, A), 0, &[1; 512]);
    put(&*open(&disk, A), 512, &[2; 512]);
    let images: BTreeSet<Vec<u8>> = (0..300).map(|seed| bytes(&disk.crash(seed))).collect();
    let hole = [vec![0; 512], vec![2; 512]].concat();
    for image in [vec![], vec![1; 512], hole, vec![0; 1024], [[1; 512], [2; 512]].concat()] {
        assert!(images.contains(&image), "never drawn: {} bytes", image.len());
    }
}

/// A rename survives as a whole or not at all, whatever happens to other names.
#[test]
fn rename_is_atomic() {
    let disk = disk_with(b"old");
    put(&*open(&disk, "/tmp"), 0, b"new");
    open(&disk, "/tmp").sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.rename(path("/tmp"), path(A)).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let after = disk.crash(seed);
        seen.insert((after.list(path("/")).unwrap(), bytes(&after)));
    }
    let [before, after] = [(["a", "tmp"].as_slice(), b"old"), (&["a"], b"new")];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = [(names(before.0), before.1.to_vec()), (names(after.0), after.1.to_vec())];
    assert_eq!(seen, BTreeSet::from(expected));
}

/// After a failed sync the writes may or may not be there, and a later good sync doesn't save them.
#[test]
fn failed_sync_forgets_writes() {
    let mut fates = BTreeSet::new();
    for extra in 0..40 {
        let disk = disk_with(b"old");
        (0..extra).for_each(|_| open(&disk, "/other").sync_data().unwrap());
        let file = open(&disk, A);
        put(&*file, 0, b"new");
        disk.inject(FaultRule::once(FaultKind::Sync, "a"));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        let seen_before = bytes(&disk);
        put(&*file, 10, b"x");
        file.sync_data().unwrap();
        let after = bytes(&disk.crash_all_lost());
        assert_eq!(after[10], b'x', "writes after the failure are synced as usual");
        fates.insert((seen_before, after[..3].to_vec()));
    }
    let fate = |seen: &[u8], kept: &[u8]| (seen.to_vec(), kept.to_vec());
    assert!(fates.contains(&fate(b"new", b"old")), "read back, yet not on the disk");
    assert!(fates.contains(&fate(b"old", b"old")));
    assert!(fates.contains(&fate(b"new", b"new")));
    assert!(!fates.contains(&fate(b"old", b"new")));
}

/// Each kind of fault strikes its calls, on its names, as often as asked.
#[test]
fn faults_strike_as_asked() {
    let disk = disk_with(b"abcd");
    let file = open(&disk, A);
    let mut buf = [0; 8];
    disk.inject(FaultRule::once(FaultKind::Write, "a").after(1));
    put(&*file, 0, b"1");
    file.write_at(0, &[IoSlice::new(b"2")]).unwrap_err();
    put(&*file, 0, b"3");
    disk.inject(FaultRule::once(FaultKind::ShortWrite, ""));
    file.write_at(0, &[IoSlice::new(b"45"), IoSlice::new(b"67")]).unwrap_err();
    assert_eq!(bytes(&disk), b"45cd");
    disk.inject(FaultRule::for_ever(FaultKind::Read, "/a"));
    put(&*open(&disk, "/b"), 0, b"b");
    assert_eq!(open(&disk, "/b").read_at(0, &mut buf).unwrap(), 1);
    for _ in 0..3 {
        file.read_at(0, &mut buf).unwrap_err();
    }
    disk.clear_faults();
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 4);
    for kind in [FaultKind::Open, FaultKind::Remove, FaultKind::Rename, FaultKind::SyncDir] {
        disk.inject(FaultRule::once(kind, ""));
    }
    disk.open(path("/b"), OpenMode::Read).unwrap_err();
    disk.remove(path("/b")).unwrap_err();
    disk.rename(path("/b"), path("/c")).unwrap_err();
    disk.sync_dir(path("/")).unwrap_err();
    assert_eq!(disk.crash_all_lost().list(path("/")).unwrap(), ["a"]);
    disk.rename(path("/b"), path("/c")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(disk.crash_all_lost().list(path("/")).unwrap(), ["a", "c"]);
}

/// A full disk writes what fits and says so; overwriting and removing still work.
#[test]
fn full_disk_is_honest() {
    let disk = disk_with(b"12345678");
    disk.set_capacity(Some(10));
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 2);
    let file = open(&disk, "/b");
    let full = file.write_at(0, &[IoSlice::new(b"abc")]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.contents(path("/b")).unwrap(), b"ab");
    assert_eq!(file.set_len(3).unwrap_err().kind(), ErrorKind::StorageFull);
    put(&*file, 0, b"AB");
    disk.remove(path(A)).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 8);
    put(&*file, 0, b"abcdefgh");
    file.write_at(u64::MAX, &[IoSlice::new(b"x")]).unwrap_err();
}

/// Rot changes what is stored, now and after a power cut, and only there.
#[test]
fn rot_is_durable() {
    let disk = disk_with(&[7; 10]);
    disk.corrupt(path(A), 1, 0x01).unwrap();
    disk.zero(path(A), 3..5).unwrap();
    disk.truncate(path(A), 8).unwrap();
    for disk in [disk.crash_all_lost(), disk.clone()] {
        assert_eq!(bytes(&disk), [7, 6, 7, 0, 0, 7, 7, 7]);
    }
    disk.corrupt(path(A), 8, 1).unwrap_err();
    disk.corrupt(path("/none"), 0, 1).unwrap_err();
}

/// After the power is off every call fails, and what was done before is what a start finds.
#[test]
fn power_off_stops_everything() {
    let disk = disk_with(b"one");
    let file = open(&disk, A);
    disk.power_off_after(2);
    put(&*file, 0, b"two");
    file.sync_data().unwrap();
    file.write_at(0, &[IoSlice::new(b"six")]).unwrap_err();
    file.read_at(0, &mut [0; 3]).unwrap_err();
    disk.list(path("/")).unwrap_err();
    disk.lock(path("/LOCK")).unwrap_err();
    let next = disk.crash(1);
    assert_eq!(bytes(&next), b"two");
    put(&*open(&next, A), 0, b"six");
}

/// A lock doesn't outlive the power cut; its file may.
#[test]
fn locks_end_with_the_power() {
    let disk = MemDisk::new();
    let _held = disk.lock(path("/LOCK")).unwrap();
    disk.crash_all_kept().lock(path("/LOCK")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Replaying a recording gives the running disk at every change, and seeds decide images alone.
    #[test]
    fn recording_replays(steps in prop::collection::vec((0..6u8, 0..2000u64, 0..3u8), 1..30), seed: u64) {
        let disk = disk_with(b"base");
        disk.record();
        let mut live = vec![disk.crash(seed)];
        for (what, number, file) in steps {
            let name = format!("/f{file}");
            let before = disk.recorded();
            match what {
                0..=2 => put(&*open(&disk, &name), number, &vec![what + 1; number as usize]),
                3 => open(&disk, &name).sync_data().unwrap(),
                4 => disk.sync_dir(path("/")).unwrap(),
                _ => {
                    open(&disk, &name);
                    disk.rename(path(&name), path("/f0")).unwrap();
                }
            }
            // A step may be two changes; the state between them isn't kept here.
            live.resize(live.len() + disk.recorded() - before, disk.crash(seed));
        }
        let last = disk.recorded();
        let image = |disk: &MemDisk| {
            let names = disk.list(path("/")).unwrap();
            names.into_iter().map(|n| (disk.contents(&path("/").join(&n)), n)).collect::<Vec<_>>()
        };
        prop_assert_eq!(image(&disk.state_after(last).crash(seed)), image(&live[last]));
        prop_assert_eq!(image(&disk.state_after(0).crash(seed)), image(&live[0]));
        let twice = [disk.images_after(last, seed, 3), disk.images_after(last, seed, 3)];
        prop_assert_eq!(twice[0].iter().map(image).collect::<Vec<_>>(), twice[1].iter().map(image).collect::<Vec<_>>());
        prop_assert_eq!(twice[0].len(), 5);
    }
}
