//! Power cuts at every call of every store, on both sides.

use fleetline_snapshot::{SnapshotError, SnapshotMeta};
use fleetline_state::StateStore;

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
