//! `fleetline-micro [part of a name]`: prints what the hot paths cost, one line each.
//!
//! Run it optimised: `cargo run --release -p fleetline-micro`.

use fleetline_micro::{Effort, Outcome, run};

fn main() -> Outcome<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut lines = 0;
    run(Effort::FULL, &only, &mut |figure| {
        lines += 1;
        println!("{:10.1} ns per {:6}  {}", figure.ns, figure.operation, figure.name);
    })?;
    match lines {
        0 => Err(format!("no bench has {only:?} in its name; run without it to see all").into()),
        _ => Ok(()),
    }
}
