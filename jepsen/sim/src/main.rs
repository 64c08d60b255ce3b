//! Runs seeds: `cargo run -p fleetline-sim -- --seed 7` replays one, `--runs 100` goes on from there.
//!
//! Exit codes: 0 all held, 1 a promise was broken, 2 it did not converge.

use std::process::ExitCode;

use clap::Parser;
use fleetline_sim::{Options, run};

/// Simulates a cluster from a seed.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Virtual seconds of each run's safety phase.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where to keep the stream's history (JSON lines) when the checker finds something.
    #[arg(long)]
    history: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for seed in arguments.seed..arguments.seed + arguments.runs {
        let history = arguments.history.clone();
        let options = Options { history, ..Options::from_seed(seed, arguments.seconds) };
        println!("{options:?}");
        match run(&options) {
            Ok(report) => println!("  {report:?}"),
            Err(error) => {
                println!(
                    "  FAILED {error}\n  again: cargo run -p fleetline-sim -- --seed {seed} --seconds {}",
                    arguments.seconds
                );
                return ExitCode::from(if error.starts_with("liveness") { 2 } else { 1 });
            }
        }
    }
    ExitCode::SUCCESS
}
