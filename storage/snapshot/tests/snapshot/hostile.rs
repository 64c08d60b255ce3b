//! Damaged and hostile bytes: all of it is seen before anything of it is used.

use std::path::Path;

use fleetline_snapshot::{SnapshotError, SnapshotMeta};
use proptest::prelude::*;

use crate::kit::*;

/// Gives `bytes` to a receiver and says what `finish` said.
fn receive(meta: &SnapshotMeta, bytes: &[u8]) -> Result<SnapshotMeta, SnapshotError> {
    let receiver = Node::new();
    let mut staging = receiver.dir().begin(meta).unwrap();
    staging.write(0, bytes).unwrap();
    let result = staging.finish();
    let pending = receiver.dir().pending_installs().unwrap();
    assert_eq!(pending.is_empty(), result.is_err(), "only a verified snapshot may be installed");
    if result.is_err() {
        assert_eq!(receiver.dir().begin(meta).unwrap().offset(), 0, "the next try starts anew");
    }
    result
}

/// Every flipped bit of a whole snapshot, every cut and every byte too many is refused.
#[test]
fn every_flip_and_cut_is_seen() {
    let (sender, meta) = sender(SMALL);
    let bytes = stream(&mut source(&sender), usize::MAX);
    receive(&meta, &bytes).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(receive(&meta, &flipped).is_err(), "bit {bit} of byte {at} went unseen");
        }
        assert!(receive(&meta, &bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(receive(&meta, &[bytes.as_slice(), &[0]].concat()).is_err());
    assert!(receive(&meta, &[bytes.as_slice(), &bytes].concat()).is_err());
}

/// Rot in a complete file, found when it is installed, leaves rows and log as they were.
#[test]
fn rot_is_seen_before_the_install() {
    let ((sender, meta), receiver) = (sender(LARGE), receiver());
    let mut staging = receiver.dir().begin(&meta).unwrap();
    send(&mut source(&sender), &mut staging, 100_000).unwrap();
    staging.finish().unwrap();
    let before = receiver.contents();
    let path = Path::new("/snapshots/g7.install");
    let len = receiver.disk.contents(path).unwrap().len() as u64;
    for offset in [0, 30, len / 3, len / 2, len - 40, len - 1] {
        receiver.disk.corrupt(path, offset, 0x10).unwrap();
        let found = receiver.install().unwrap_err();
        assert!(matches!(found, SnapshotError::Damaged { .. }), "at {offset}: {found}");
        assert_eq!(receiver.contents(), before, "at {offset}");
        assert_eq!(receiver.dir().pending_installs().unwrap(), [G], "it must be replaced, not forgotten");
        receiver.disk.corrupt(path, offset, 0x10).unwrap();
    }
    receiver.disk.truncate(path, len - 1).unwrap();
    assert!(receiver.install().is_err());
    // A new transfer replaces it.
    let mut staging = receiver.dir().begin(&meta).unwrap();
    send(&mut source(&sender), &mut staging, 100_000).unwrap();
    staging.finish().unwrap();
    receiver.install().unwrap();
}

/// Rot in the sender's state part is seen when the source is opened, or else by the receiver.
#[test]
fn rot_at_the_sender_is_not_installed() {
    let (sender, meta) = sender(LARGE);
    let path = Path::new("/snapshots/g7.state");
    let mut open = source(&sender);
    sender.disk.corrupt(path, 500_000, 1).unwrap();
    let opened = sender.dir().source(G, std::sync::Arc::new(sender.log.clone())).unwrap_err();
    assert!(matches!(opened, SnapshotError::Damaged { .. }), "{opened}");
    let bytes = stream(&mut open, 1 << 20);
    assert!(receive(&meta, &bytes).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No change of any bytes of a snapshot is taken for the snapshot: overwritten, moved, repeated.
    #[test]
    fn no_edit_is_taken(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), len in 1..40usize, how in 0..3u8, noise in prop::collection::vec(any::<u8>(), 40)) {
        let (sender, meta) = sender(SMALL);
        let bytes = stream(&mut source(&sender), usize::MAX);
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let piece = bytes[from..bytes.len().min(from + len)].to_vec();
        let mut edited = bytes.clone();
        match how {
            0 => edited.iter_mut().skip(from).zip(&noise[..len]).for_each(|(byte, noise)| *byte = *noise),
            1 => drop(edited.splice(to..to, piece)),
            _ => drop(edited.drain(from..from + piece.len())),
        }
        prop_assert_eq!(receive(&meta, &edited).is_ok(), edited == bytes);
    }

    /// Any bytes whatever are refused without a panic.
    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300), keep in 0..100usize) {
        let (sender, meta) = sender(SMALL);
        let bytes = stream(&mut source(&sender), usize::MAX);
        let hostile = [&bytes[..keep], &noise].concat();
        prop_assert!(receive(&meta, &hostile).is_err());
    }
}
