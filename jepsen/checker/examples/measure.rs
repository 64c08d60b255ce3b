//! How long checking takes: `cargo run --release -p fleetline-checker --example measure -- [million sends]`.
//!
//! Makes a valid history of sends from 1,000 devices over 16 partitions, each read once, and checks
//! it; then the same again with the log of one partition cut short, which must be found.

use std::process::ExitCode;
use std::time::Instant;

use fleetline_checker::{History, Kind, Record, StreamRules, check_stream, hash_bytes};

const PARTITIONS: u64 = 16;

fn main() -> ExitCode {
    let millions: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let sends = millions * 1_000_000;
    let mut records: Vec<Record> = (0..sends).flat_map(|i| [send(i), read(i)]).collect();
    for partition in 0..PARTITIONS {
        let offset = Some(sends / PARTITIONS);
        let at = sends * 10 + 1_000_000;
        records.push(Record {
            invoke: at,
            complete: at,
            offset,
            ..Record::new(Kind::Final, 0, partition as u32)
        });
    }
    let history = History::from_records(records);
    let begin = Instant::now();
    let verdict = check_stream(&history, &StreamRules::default());
    println!("{} operations in {:?}: {verdict}", history.len(), begin.elapsed());

    let cut = history.records().iter().copied().filter(|r| r.kind != Kind::Read || r.offset != Some(1234));
    let begin = Instant::now();
    let found = check_stream(&History::from_records(cut.collect()), &StreamRules::default());
    println!("one record taken away, in {:?}: {found}", begin.elapsed());
    if verdict.is_valid() && !found.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn send(i: u64) -> Record {
    Record {
        key: i % 1000,
        value: hash_bytes(&i.to_le_bytes()),
        invoke: i * 10,
        complete: i * 10 + 5_000,
        offset: Some(i / PARTITIONS),
        ..Record::new(Kind::Send, (i % PARTITIONS) as u32 + 100, (i % PARTITIONS) as u32)
    }
}

fn read(i: u64) -> Record {
    let send = send(i);
    let (process, invoke, complete) = (send.partition, send.invoke + 6_000, send.complete + 6_000);
    Record { kind: Kind::Read, process, invoke, complete, ..send }
}
