//! Power cuts at every call of every store, on both sides.

use std::sync::atomic::{AtomicBool, Ordering};

use fleetline_log::NodeLog;
use fleetline_log::memory::MemLog;
use fleetline_snapshot::{SnapshotError, SnapshotMeta};
use fleetline_state::StateStore;
use fleetline_types::LogIndex;

use crate::kit::*;

/// Which store the power goes at.
#[derive(Clone, Copy, Debug)]
enum Place {
    Disk,
    State,
    Log,
}

fn blow(node: &mut Node, place: Place, calls: u64) {
    match place {
        Place::Disk => node.disk.power_off_after(calls),
        Place::State => node.state.fuse = Fuse::new(calls),
        Place::Log => node.log.fuse = Fuse::new(calls),
    }
}

fn transfer_and_install(sender: &Node, receiver: &Node, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
    let dir = receiver.try_dir()?;
    let mut staging = dir.begin(meta)?;
    send(&mut source(sender), &mut staging, 300_000)?;
    staging.finish()?;
    receiver.install().map(|_| ())
}

/// Whenever the power goes, the next start either still has the old replica, or has a complete
/// snapshot to install, or has installed it; and going on from there ends in the new replica.
#[test]
fn install_survives_power_cuts_at_every_call() {
    let (sender, meta) = sender(LARGE);
    let old = receiver().contents();
    let new = expected(&sender, &receiver(), &meta);
    let mut seen = [0; 3];
    for place in [Place::Disk, Place::State, Place::Log] {
        for (calls, seed) in (0..).flat_map(|calls| (0..6).map(move |seed| (calls, calls * 6 + seed))) {
            let mut first = receiver();
            blow(&mut first, place, calls);
            if transfer_and_install(&sender, &first, &meta).is_ok() {
                assert!(calls > 2, "{place:?} was called {calls} times only");
                break;
            }
            let second = first.restart(seed);
            let context = format!("{place:?} call {calls}, seed {seed}");
            let stage = if second.dir().pending_installs().unwrap() == [G] {
                second.install().unwrap();
                assert_eq!(second.contents(), new, "{context}");
                1
            } else if second.contents() == old {
                0
            } else {
                assert_eq!(second.contents(), new, "{context}: neither old nor new");
                2
            };
            seen[stage] += 1;
            transfer_and_install(&sender, &second, &meta).unwrap();
            assert_eq!(second.contents(), new, "{context}");
            assert_eq!(second.restart(seed).contents(), new, "{context}");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "old, pending, new: {seen:?}");
}

/// Redoing an install again and again, each time cut at the next call, comes to the same end.
#[test]
fn install_survives_repeated_power_cuts() {
    let (sender, meta) = sender(LARGE);
    let new = expected(&sender, &receiver(), &meta);
    let mut node = receiver();
    let mut staging = node.dir().begin(&meta).unwrap();
    send(&mut source(&sender), &mut staging, 300_000).unwrap();
    staging.finish().unwrap();
    let mut lives = 0;
    for (calls, place) in (0..).flat_map(|calls| [Place::State, Place::Log].map(|place| (calls, place))) {
        assert_eq!(node.dir().pending_installs().unwrap(), [G]);
        blow(&mut node, place, calls);
        if node.install().is_ok() {
            break;
        }
        lives += 1;
        node = node.restart(calls);
    }
    assert!(lives > 10, "{lives} power cuts");
    assert_eq!(node.contents(), new);
}

/// Installs into the model of the log, whose writer makes `requests` durable, one by one, and then
/// fails.
fn install_with_writer(node: &Node, log: &MemLog, requests: u64) -> Result<SnapshotMeta, SnapshotError> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut durable = 0;
            while durable < requests && !over.load(Ordering::Acquire) {
                durable += log.pump_some(1) as u64;
                std::thread::yield_now();
            }
            if durable >= requests {
                log.poison("no power");
            }
        });
        let result = node.dir().install(G, log, &node.state);
        over.store(true, Ordering::Release);
        result
    })
}

/// With a log that completes later: whatever number of requests became durable before the power
/// went, doing it again ends with the sender's rows and entries, and nothing is done before the log
/// said so.
#[test]
fn install_waits_for_the_log_and_can_be_redone() {
    let (sender, meta) = sender(LARGE);
    let (rows, _) = expected(&sender, &receiver(), &meta);
    let entries: Vec<_> = sender.log.groups.lock()[&G].entries.values().cloned().collect();
    let wanted = &entries[..meta.entry_count() as usize];
    let mut failures = 0;
    for requests in 0..20 {
        let log = MemLog::manual();
        log.append(G, (0..5).map(|index| entry(index, 3)).collect(), Box::new(|_| ())).unwrap();
        log.pump();
        let mut node = receiver();
        let mut staging = node.dir().begin(&meta).unwrap();
        send(&mut source(&sender), &mut staging, 300_000).unwrap();
        staging.finish().unwrap();
        if install_with_writer(&node, &log, requests).is_err() {
            failures += 1;
            log.crash();
            node = node.restart(requests);
            install_with_writer(&node, &log, u64::MAX).unwrap();
        }
        log.crash();
        assert_eq!(node.state.model.crash_all_lost().rows(), rows);
        let state = log.state(G);
        assert_eq!((state.purged, state.last), (Some(meta.last), Some(meta.last)));
        assert_eq!(state.first_retained, meta.first_retained);
        let found = log.read(G, meta.first_retained..LogIndex(u64::MAX), u64::MAX).unwrap();
        assert!(found == wanted, "after {requests} requests");
        assert!(node.dir().pending_installs().unwrap().is_empty());
    }
    assert!((3..20).contains(&failures), "{failures} of 20 failed");
}

/// Whenever the power goes while a state part is written, the older one or the new one is there,
/// whole, and the next try works.
#[test]
fn state_part_survives_power_cuts_at_every_change() {
    let (sender, old) = sender(LARGE);
    let new = SnapshotMeta { id: "s-new".into(), ..old.clone() };
    let write = |node: &Node| node.dir().write_state(&new, &mut *node.state.snapshot(G).unwrap());
    sender.disk.record();
    write(&sender).unwrap();
    let changes = sender.disk.recorded();
    let mut seen = [0; 2];
    for n in 0..=changes {
        for disk in sender.disk.images_after(n, 42, 6) {
            let node = Node { disk, state: sender.state.clone(), log: sender.log.clone() };
            let found = node.dir().state(G).unwrap().expect("there was one before").meta().clone();
            assert!(found == old || found == new, "after {}", sender.disk.describe(n));
            assert!(n < changes || found == new, "it was durable when the call returned");
            seen[usize::from(found == new)] += 1;
            write(&node).unwrap();
            assert_eq!(node.dir().state(G).unwrap().unwrap().meta(), &new);
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
