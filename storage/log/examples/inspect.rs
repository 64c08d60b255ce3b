//! Prints what a log folder holds, group by group: `cargo run -p fleetline-log --example inspect -- DIR`.
//! Opens the log as a node would (which may cut off an unfinished last write): use a copy.

use std::sync::Arc;

use fleetline_env::real::{RealClock, RealDisk};
use fleetline_log::{LogOptions, NodeLog, SegLog};
use fleetline_types::LogIndex;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: inspect DIR")?;
    let (log, report) = SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), LogOptions::new(dir))?;
    println!("{report:#?}");
    for group in log.groups() {
        let state = log.state(group);
        let starts: Vec<String> = log.term_starts(group).iter().map(ToString::to_string).collect();
        println!(
            "{group}: first {} purged {:?} last {:?} durable {:?} amnesia {} terms begin at {}",
            state.first_retained,
            state.purged.map(|id| id.to_string()),
            state.last.map(|id| id.to_string()),
            state.durable,
            state.amnesia,
            starts.join(" ")
        );
        let mut before = None;
        let end = state.last.map_or(0, |id| id.index.0 + 1);
        for index in state.first_retained.0..end {
            let id = log.log_id(group, LogIndex(index));
            if id.map(|id| id.term) != before {
                println!("  {index}: {:?}", id.map(|id| id.to_string()));
                before = id.map(|id| id.term);
            }
        }
    }
    Ok(())
}
