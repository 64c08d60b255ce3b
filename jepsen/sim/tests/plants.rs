//! Planted bugs: a net that doesn't catch these has holes.
#![allow(clippy::unwrap_used)]

use fleetline_sim::{Options, Plant, run};

/// Seeds within which each has to be found.
const SEEDS: u64 = 40;

/// What the seed chooses, and for the log's bug what makes it matter: power cuts of the whole cluster, and
/// disks that are slow enough to have something unwritten then.
fn options(plant: Plant, seed: u64) -> Options {
    let options = Options { plant: Some(plant), ..Options::from_seed(seed, 20) };
    match plant {
        Plant::AcknowledgeBeforeDurable => Options {
            faults: [false, false, false, true],
            fault_every_ms: 1000,
            disk_us: 60_000,
            producers: 4,
            ..options
        },
        _ => options,
    }
}

/// The bug is found within the seeds, by the history checkers, under one of these names.
fn is_found(plant: Plant, names: &[&str]) {
    let found = (1..=SEEDS).find_map(|seed| run(&options(plant, seed)).err().map(|error| (seed, error)));
    let (seed, error) = found.unwrap_or_else(|| panic!("{plant:?} isn't found within {SEEDS} seeds"));
    println!("{plant:?}: seed {seed}: {error}");
    assert!(error.starts_with("checker:"), "{plant:?}, seed {seed}: {error}");
    assert!(names.iter().any(|name| error.contains(name)), "{plant:?}, seed {seed}: {error}");
}

#[test]
fn acknowledging_before_quorum_is_found() {
    is_found(Plant::AcknowledgeBeforeQuorum, &["Lost (P1"]);
}

/// What was lost leaves its offset empty, or to another record.
#[test]
fn acknowledging_before_durable_is_found() {
    is_found(Plant::AcknowledgeBeforeDurable, &["Lost (P1", "Disagreement (P3"]);
}

#[test]
fn forgetting_producers_is_found() {
    is_found(Plant::ForgetProducers, &["Duplicated (P5"]);
}

#[test]
fn reading_checkpoints_anywhere_is_found() {
    is_found(Plant::ReadCheckpointAnywhere, &["StaleCheckpoint (P8"]);
}

#[test]
fn forgetting_checkpoints_is_found() {
    is_found(Plant::ForgetCheckpoint, &["StaleCheckpoint (P8"]);
}

#[test]
fn forgetting_fences_is_found() {
    is_found(Plant::ForgetFence, &["LowerEpochAccepted (P8"]);
}
