//! Fixed seeds, and that a seed repeats exactly.
#![allow(clippy::unwrap_used)]

use fleetline_sim::{Options, run};

/// These seeds hold; together they acknowledge enough and meet enough faults to mean something.
#[test]
fn fixed_seeds_hold() {
    let (mut acknowledged, mut faults, mut changes, mut records) = (0, 0, 0, 0);
    let (mut operations, mut epochs) = (0, 0);
    for seed in 1..=16 {
        let options = Options::from_seed(seed, 20);
        let report = run(&options).unwrap_or_else(|error| {
            panic!("{options:?}: {error}; again: cargo run -p fleetline-sim -- --seed {seed} --seconds 20")
        });
        acknowledged += report.acknowledged;
        faults += report.faults;
        operations += report.operations;
        epochs += report.epochs;
        changes += report.device_changes;
        records += report.device_records;
    }
    assert!(acknowledged > 5_000 && faults > 30, "vacuous: {acknowledged} acknowledged, {faults} faults");
    assert!(operations > 50_000 && epochs > 200, "vacuous: {operations} operations, {epochs} epochs");
    assert!(changes > 3_000 && records > 500, "vacuous: {changes} changes and {records} records of devices");
}

/// The same seed gives the same trace, to the last acknowledgement and its virtual time. Needs tokio's own
/// draws to be seeded: `make sim-test`, which is part of `make test`, builds with that flag.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_repeats() {
    for seed in 1..=6 {
        let options = Options::from_seed(seed, 10);
        assert_eq!(run(&options).unwrap(), run(&options).unwrap(), "seed {seed}");
    }
}
