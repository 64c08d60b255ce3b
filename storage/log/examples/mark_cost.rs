//! What the durable mark costs: MB/s and syncs/s of the log on a real folder for each policy,
//! policies taking turns so that a busy machine hits all alike.
//!
//! `cargo run --release -p fleetline-log --example mark_cost -- FOLDER [seconds per turn] [turns]`
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetline_env::real::{RealClock, RealDisk};
use fleetline_log::{LogEntry, LogOptions, MarkPolicy, NodeLog, Payload, SegLog};
use fleetline_types::{GroupId, LogId, LogIndex};

const GROUPS: u32 = 16;

/// Groups that each keep a few entries in flight. Gives bytes, syncs and seconds.
fn run(dir: &Path, mark: MarkPolicy, entry_bytes: usize, seconds: f64) -> (f64, f64, f64) {
    let options = LogOptions { mark, cache_bytes: 16 << 20, ..LogOptions::new(dir) };
    let (log, _) = SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), options).unwrap();
    let body = Bytes::from((0..entry_bytes).map(|at| (at * 31) as u8).collect::<Vec<_>>());
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for group in (1..=GROUPS).map(GroupId) {
            let (log, body, done) = (&log, &body, &done);
            scope.spawn(move || {
                let (sender, receiver) = std::sync::mpsc::channel();
                let mut index = 0u64;
                let mut in_flight = 0;
                while start.elapsed().as_secs_f64() < seconds {
                    let payload = Payload { head: Bytes::new(), body: body.clone() };
                    let entry = LogEntry { id: LogId::new(1, index), kind: 0, payload };
                    let sender = sender.clone();
                    log.append(group, vec![entry], Box::new(move |result| drop(sender.send(result))))
                        .unwrap();
                    index += 1;
                    in_flight += 1;
                    if in_flight == 8 {
                        receiver.recv().unwrap().unwrap();
                        in_flight -= 1;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    if index.is_multiple_of(1024) {
                        log.purge(group, LogId::new(1, index - 9), Box::new(|_| ())).unwrap();
                        log.retain_from(group, LogIndex(index - 8)).unwrap();
                    }
                }
            });
        }
    });
    let took = start.elapsed().as_secs_f64();
    ((done.load(Ordering::Relaxed) * entry_bytes as u64) as f64, log.stats().syncs as f64, took)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("first argument: a folder on the disk to measure");
    let seconds = arguments.next().map_or(2.0, |text| text.parse().unwrap());
    let turns: u32 = arguments.next().map_or(5, |text| text.parse().unwrap());
    let policies = [
        ("every sync", MarkPolicy::EverySync),
        ("lagging 10 ms", MarkPolicy::Lagging(Duration::from_millis(10))),
        ("off", MarkPolicy::Off),
    ];
    for entry_bytes in [100, 16 << 10] {
        let mut totals = [(0.0, 0.0, 0.0); 3];
        for _ in 0..turns {
            for (at, (_, policy)) in policies.iter().enumerate() {
                let dir = tempfile::tempdir_in(&folder).unwrap();
                let (bytes, syncs, took) = run(dir.path(), *policy, entry_bytes, seconds);
                let total = &mut totals[at];
                *total = (total.0 + bytes, total.1 + syncs, total.2 + took);
            }
        }
        for ((name, _), (bytes, syncs, took)) in policies.iter().zip(totals) {
            println!(
                "{entry_bytes:6} B entries, mark {name:13}: {:7.1} MB/s {:7.0} syncs/s {:8.0} entries/s",
                bytes / took / 1e6,
                syncs / took,
                bytes / entry_bytes as f64 / took
            );
        }
    }
}
