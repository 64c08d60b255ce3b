//! The contract of the state store, run on every implementation.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_types::GroupId;

const G: GroupId = GroupId(7);
const INDEX: KeyKind = KeyKind::StreamIndex;
const HEAD: KeyKind = KeyKind::StreamHead;

/// A store that can be killed and started again.
trait Subject {
    fn store(&self) -> Arc<dyn StateStore>;
    /// Cuts the power (or kills the process) and starts again.
    fn restart(&mut self);
}

struct Memory(MemState);

impl Subject for Memory {
    fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(self.0.clone())
    }

    fn restart(&mut self) {
        self.0 = self.0.crash_all_lost();
    }
}

#[cfg(feature = "rocks")]
mod rocks {
    use super::*;
    use fleetline_state::rocks::{RocksOptions, RocksState};
    use std::path::Path;

    pub struct Rocks {
        pub dir: tempfile::TempDir,
        pub store: Option<Arc<RocksState>>,
    }

    pub fn options(dir: &Path) -> RocksOptions {
        RocksOptions { block_cache_bytes: 1 << 20, memtable_bytes: 1 << 20, ..RocksOptions::new(dir) }
    }

    pub fn new() -> Rocks {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(Arc::new(RocksState::open(&options(dir.path())).unwrap()));
        Rocks { dir, store }
    }

    impl Subject for Rocks {
        fn store(&self) -> Arc<dyn StateStore> {
            self.store.clone().unwrap()
        }

        /// What a killed process leaves is what is in the files; closing would flush, so the files
        /// are copied first.
        fn restart(&mut self) {
            let copy = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(self.dir.path()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
            self.store = None;
            self.store = Some(Arc::new(RocksState::open(&options(copy.path())).unwrap()));
            self.dir = copy;
        }
    }
}

fn on_every_store(check: impl Fn(&mut dyn Subject)) {
    check(&mut Memory(MemState::new()));
    #[cfg(feature = "rocks")]
    check(&mut rocks::new());
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn batch(build: impl FnOnce(&mut StateBatch)) -> StateBatch {
    let mut batch = StateBatch::default();
    build(&mut batch);
    batch
}

/// Puts rows of `G` with their key as value.
fn put(store: &dyn StateStore, kind: KeyKind, keys: &[&str]) {
    store.write(batch(|b| keys.iter().for_each(|key| b.put(G, kind, bytes(key), bytes(key))))).unwrap();
}

fn keys(store: &dyn StateStore, kind: KeyKind) -> Vec<String> {
    let rows = store.scan(G, kind, b"", usize::MAX).unwrap();
    rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

/// Everything a view gives, in pieces of about `max_bytes`.
fn drain(view: &mut dyn fleetline_state::StateSnapshot, max_bytes: usize) -> Vec<(KeyKind, Bytes, Bytes)> {
    let mut all = Vec::new();
    loop {
        let rows = view.next_rows(max_bytes).unwrap();
        if rows.is_empty() {
            assert!(view.next_rows(max_bytes).unwrap().is_empty(), "the end stays the end");
            return all;
        }
        all.extend(rows);
    }
}

/// A row reads back as written, the last write wins, also within a batch; others are not touched.
#[test]
fn reads_what_was_written() {
    on_every_store(|subject| {
        let store = subject.store();
        assert_eq!(store.get(G, HEAD, b"").unwrap(), None);
        let empty_key = batch(|b| {
            b.put(G, HEAD, bytes(""), bytes("1"));
            b.delete(G, HEAD, bytes("absent"));
            b.put(G, HEAD, bytes("k"), bytes("gone"));
            b.delete(G, HEAD, bytes("k"));
            b.put(G, HEAD, bytes(""), bytes(""));
        });
        store.write(empty_key).unwrap();
        assert_eq!(store.get(G, HEAD, b"").unwrap(), Some(bytes("")));
        assert_eq!(store.get(G, HEAD, b"k").unwrap(), None);
        assert_eq!(store.get(G, INDEX, b"").unwrap(), None);
        assert_eq!(store.get(GroupId(8), HEAD, b"").unwrap(), None);
        store.write(StateBatch::default()).unwrap();
    });
}

/// Scans are in the order of bytes, begin at `from`, stop at `limit`, and stay in (group, kind).
#[test]
fn scans_in_order() {
    on_every_store(|subject| {
        let store = subject.store();
        put(&*store, INDEX, &["b", "", "a", "a\0", "aa", "\u{7f}", "ab"]);
        put(&*store, KeyKind::Applied, &["z"]);
        put(&*store, HEAD, &["0"]);
        for other in [GroupId(6), GroupId(8), GroupId(0), GroupId(u32::MAX)] {
            store.write(batch(|b| b.put(other, INDEX, bytes("a"), bytes("other")))).unwrap();
        }
        assert_eq!(keys(&*store, INDEX), ["", "a", "a\0", "aa", "ab", "b", "\u{7f}"]);
        let found = store.scan(G, INDEX, b"a\0", 2).unwrap();
        assert_eq!(found, [(bytes("a\0"), bytes("a\0")), (bytes("aa"), bytes("aa"))]);
        assert_eq!(store.scan(G, INDEX, b"c", 1).unwrap()[0].0, bytes("\u{7f}"));
        assert_eq!(store.scan(G, INDEX, b"\xff", 9).unwrap(), []);
        assert_eq!(store.scan(G, INDEX, b"", 0).unwrap(), []);
        assert_eq!(store.scan(GroupId(u32::MAX), INDEX, b"", 9).unwrap().len(), 1);
    });
}

/// The last row at or below a key: exact, between, before the first, behind the last, after a flush.
#[test]
fn finds_last_at_or_below() {
    on_every_store(|subject| {
        let store = subject.store();
        put(&*store, KeyKind::Applied, &["\u{7f}"]);
        put(&*store, HEAD, &["!"]);
        for _ in 0..2 {
            put(&*store, INDEX, &["b", "d", "f"]);
            let found = |key: &[u8]| store.last_at_or_below(G, INDEX, key).unwrap().map(|row| row.0);
            assert_eq!(found(b"a"), None);
            assert_eq!(found(b"b"), Some(bytes("b")));
            assert_eq!(found(b"c\xff"), Some(bytes("b")));
            assert_eq!(found(b"f"), Some(bytes("f")));
            assert_eq!(found(b"\xff\xff"), Some(bytes("f")));
            assert_eq!(store.last_at_or_below(GroupId(8), INDEX, b"z").unwrap(), None);
            store.flush().unwrap();
        }
    });
}

/// A range goes from its first key up to but without its last; an empty or turned range is nothing.
#[test]
fn deletes_ranges() {
    on_every_store(|subject| {
        let store = subject.store();
        put(&*store, INDEX, &["a", "b", "c", "d"]);
        put(&*store, HEAD, &["b"]);
        let range = |from: &str, to: &str| batch(|b| b.delete_range(G, INDEX, bytes(from), bytes(to)));
        store.write(range("c", "c")).unwrap();
        store.write(range("d", "a")).unwrap();
        assert_eq!(keys(&*store, INDEX), ["a", "b", "c", "d"]);
        store.write(range("b", "d")).unwrap();
        assert_eq!(keys(&*store, INDEX), ["a", "d"]);
        assert_eq!(keys(&*store, HEAD), ["b"]);
        let within = batch(|b| {
            b.put(G, INDEX, bytes("b"), bytes("before"));
            b.delete_range(G, INDEX, bytes("a"), bytes("c"));
            b.put(G, INDEX, bytes("c"), bytes("after"));
        });
        store.write(within).unwrap();
        assert_eq!(keys(&*store, INDEX), ["c", "d"], "changes of a batch are applied in order");
    });
}

/// A group goes with all its kinds and alone, also the last possible one.
#[test]
fn deletes_groups() {
    on_every_store(|subject| {
        let store = subject.store();
        let all = [GroupId(0), G, GroupId(8), GroupId(u32::MAX)];
        let fill = batch(|b| {
            for (group, kind) in all.iter().flat_map(|group| KeyKind::ALL.map(|kind| (*group, kind))) {
                b.put(group, kind, bytes("\u{7f}"), bytes("v"));
            }
        });
        store.write(fill.clone()).unwrap();
        for gone in all {
            store.write(batch(|b| b.delete_group(gone))).unwrap();
            for (group, kind) in all.iter().flat_map(|group| KeyKind::ALL.map(|kind| (*group, kind))) {
                let expected = usize::from(group != gone);
                assert_eq!(store.scan(group, kind, b"", 9).unwrap().len(), expected, "{group} {kind:?}");
            }
            store.write(fill.clone()).unwrap();
        }
    });
}

/// A view gives the rows of its group as they were, in the order of (kind, key), in bounded pieces,
/// whatever is written, deleted or flushed meanwhile.
#[test]
fn views_stand_still() {
    on_every_store(|subject| {
        let store = subject.store();
        let mut expected = Vec::new();
        for kind in KeyKind::ALL {
            let names: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
            put(&*store, kind, &names.iter().map(String::as_str).collect::<Vec<_>>());
            expected.extend(names.iter().map(|name| (kind, bytes(name), bytes(name))));
        }
        store.write(batch(|b| b.put(GroupId(8), INDEX, bytes("x"), bytes("other")))).unwrap();
        let mut views: Vec<_> = [1, 50, usize::MAX].map(|max| (max, store.snapshot(G).unwrap())).into();
        let first = views[0].1.next_rows(1).unwrap();
        assert_eq!(first, expected[..1], "at least one row, and no more than asked");
        assert!((2..=13).contains(&store.snapshot(G).unwrap().next_rows(50).unwrap().len()));
        put(&*store, KeyKind::JoinToken, &["new"]);
        store.write(batch(|b| b.delete_group(G))).unwrap();
        store.flush().unwrap();
        put(&*store, INDEX, &["05", "newer"]);
        for (at, (max_bytes, mut view)) in views.drain(..).enumerate() {
            let skip = usize::from(at == 0);
            assert_eq!(drain(&mut *view, max_bytes), expected[skip..]);
        }
        assert_eq!(drain(&mut *store.snapshot(G).unwrap(), 9).len(), 2);
        assert!(drain(&mut *store.snapshot(GroupId(9)).unwrap(), 9).is_empty());
    });
}

/// After a kill the store holds what it held after some batch, and none older than the last flush.
#[test]
fn restart_keeps_what_was_flushed() {
    on_every_store(|subject| {
        let write = |store: &dyn StateStore, number: usize| {
            let value = bytes(&number.to_string());
            store
                .write(batch(|b| {
                    b.put(G, KeyKind::Applied, bytes(""), value.clone());
                    b.put(G, INDEX, bytes(""), value.clone());
                }))
                .unwrap();
        };
        let mut flushed = 0;
        for round in 1..=3 {
            let store = subject.store();
            (0..5).for_each(|n| write(&*store, flushed + n + 1));
            store.flush().unwrap();
            flushed += 5;
            assert_eq!(store.stats().unflushed_bytes, 0);
            (0..5).for_each(|n| write(&*store, flushed + n + 1));
            assert!(store.stats().unflushed_bytes > 0);
            assert!(store.stats().bytes > 0);
            drop(store);
            subject.restart();
            let store = subject.store();
            let read = |kind| -> usize {
                let value = store.get(G, kind, b"").unwrap().unwrap();
                std::str::from_utf8(&value).unwrap().parse().unwrap()
            };
            let applied = read(KeyKind::Applied);
            assert!(
                (flushed..=flushed + 5).contains(&applied),
                "round {round}: {applied}, flushed {flushed}"
            );
            assert_eq!(read(INDEX), applied, "families are flushed as one");
        }
    });
}

#[cfg(feature = "rocks")]
mod rocks_only {
    use super::*;
    use fleetline_state::StateError;
    use fleetline_state::rocks::RocksState;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    /// Unlike a kill, a clean stop keeps everything; a second opener is told that it is in use.
    #[test]
    fn one_opener_at_a_time() {
        let rocks = super::rocks::new();
        put(&*rocks.store(), HEAD, &["a"]);
        let options = super::rocks::options(rocks.dir.path());
        let in_use = StateError::InUse(rocks.dir.path().display().to_string());
        assert_eq!(RocksState::open(&options).unwrap_err(), in_use);
        assert_eq!(open_in_other_process(rocks.dir.path()), "InUse");
        let super::rocks::Rocks { dir, store } = rocks;
        drop(store);
        assert_eq!(open_in_other_process(dir.path()), "Ok");
        assert_eq!(keys(&RocksState::open(&options).unwrap(), HEAD), ["a"]);
    }

    /// Runs `opener` below in a process of its own.
    fn open_in_other_process(dir: &std::path::Path) -> String {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rocks_only::opener", "--ignored", "--nocapture"])
            .env("FLEETLINE_TEST_STATE_DIR", dir)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.split("opened: ").nth(1));
        line.unwrap_or_else(|| panic!("no answer in {text}")).to_owned()
    }

    /// Not a test of its own: opens the folder that the environment names and says how it went.
    #[test]
    #[ignore = "started by one_opener_at_a_time"]
    fn opener() {
        let dir = std::env::var("FLEETLINE_TEST_STATE_DIR").unwrap();
        match RocksState::open(&super::rocks::options(dir.as_ref())) {
            Ok(_) => println!("opened: Ok"),
            Err(StateError::InUse(_)) => println!("opened: InUse"),
            Err(other) => println!("opened: {other}"),
        }
    }

    /// Views are bounded, and a closed one makes room.
    #[test]
    fn views_are_bounded() {
        let rocks = super::rocks::new();
        let mut views: Vec<_> = (0..16).map(|_| rocks.store().snapshot(G).unwrap()).collect();
        assert!(rocks.store().snapshot(G).is_err());
        views.pop();
        rocks.store().snapshot(G).unwrap();
    }

    /// A damaged table file is reported, not read around.
    #[test]
    fn damage_is_reported() {
        let mut rocks = super::rocks::new();
        let names: Vec<String> = (0..2_000).map(|n| format!("{n:05}")).collect();
        put(&*rocks.store(), INDEX, &names.iter().map(String::as_str).collect::<Vec<_>>());
        rocks.store().flush().unwrap();
        rocks.store = None;
        let mut tables = 0;
        for entry in std::fs::read_dir(rocks.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ext| ext == "sst") {
                let mut content = std::fs::read(&path).unwrap();
                let middle = content.len() / 3;
                content[middle] ^= 0x40;
                std::fs::write(&path, content).unwrap();
                tables += 1;
            }
        }
        assert!(tables > 0);
        let found = RocksState::open(&super::rocks::options(rocks.dir.path()))
            .and_then(|store| store.scan(G, INDEX, b"", usize::MAX));
        assert!(matches!(found, Err(StateError::Store(_))), "{found:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<(u8, u8, u8, u8, u8)>),
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        let op = (0..12u8, 0..3u8, 0..3u8, 0..24u8, 0..24u8);
        prop_oneof![6 => prop::collection::vec(op, 1..6).prop_map(Step::Write), 1 => Just(Step::Flush)]
    }

    fn to_batch(ops: &[(u8, u8, u8, u8, u8)]) -> StateBatch {
        let kinds = [KeyKind::Applied, INDEX, HEAD];
        batch(|b| {
            for (what, group, kind, one, other) in ops {
                let (group, kind) = (GroupId(u32::from(*group)), kinds[*kind as usize]);
                match what {
                    0..=6 => b.put(group, kind, vec![*one], vec![*other]),
                    7..=8 => b.delete(group, kind, vec![*one]),
                    9..=10 => b.delete_range(group, kind, vec![*one], vec![*other]),
                    _ => b.delete_group(group),
                }
            }
        })
    }

    /// Any sequence of batches and flushes reads the same on RocksDB and on the model. One database
    /// serves all cases (opening is slow), so later ones also meet the tombstones of earlier ones.
    #[test]
    fn agrees_with_the_model() {
        let rocks = super::rocks::new();
        let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
        let cases = prop::collection::vec(step(), 1..40);
        runner.run(&cases, |steps| compare_with_model(&*rocks.store(), &steps)).unwrap();
    }

    fn compare_with_model(store: &dyn StateStore, steps: &[Step]) -> Result<(), TestCaseError> {
        let model = MemState::new();
        store.write(batch(|b| (0..3).map(GroupId).for_each(|group| b.delete_group(group)))).unwrap();
        for step in steps {
            match step {
                Step::Write(ops) => {
                    store.write(to_batch(ops)).unwrap();
                    model.write(to_batch(ops)).unwrap();
                }
                Step::Flush => store.flush().unwrap(),
            }
        }
        let both = [store, &model as &dyn StateStore];
        for group in (0..3).map(GroupId) {
            for (kind, key) in
                [KeyKind::Applied, INDEX, HEAD].into_iter().flat_map(|k| (0..25u8).map(move |n| (k, n)))
            {
                let [one, two] = both.map(|s| {
                    let last = s.last_at_or_below(group, kind, &[key]).unwrap();
                    (s.get(group, kind, &[key]).unwrap(), last, s.scan(group, kind, &[key], 3).unwrap())
                });
                prop_assert_eq!(one, two);
            }
            let [one, two] = both.map(|s| drain(&mut *s.snapshot(group).unwrap(), 5));
            prop_assert_eq!(one, two);
        }
        Ok(())
    }
}
