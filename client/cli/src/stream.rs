//! `fleetline stream …`: writing and reading records.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fleetline_client::model::ReadFrom;
use fleetline_client::{
    Client, ConsumeError, ConsumerOptions, GroupEvent, GroupOptions, PartitionId, Producer, ReceivedBatch,
    Record, SendError, SendReceipt,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin};
use tokio::sync::mpsc;

use crate::time::{read_from, show};
use crate::{CliError, ContextArgs};

/// Commands on the stream.
#[derive(Subcommand, Debug)]
pub enum StreamCommand {
    /// Writes records: one a line of standard input, or made up ones with --count.
    ///
    /// Example: `echo 21.5 | fleetline stream produce --key thermostat-7`. A line `KEY<TAB>BODY` names its own key.
    /// Each record is acknowledged once a majority has it on disk; the summary says how many were stored, failed
    /// (not stored) and unknown (the answer was lost).
    Produce(ProduceArgs),
    /// Reads records and goes on as new ones come.
    ///
    /// Example: `fleetline stream consume --from earliest`. With --group the partitions are shared with other
    /// runs of the same group, and the next run goes on where this one stopped.
    Consume(ConsumeArgs),
    /// Reads new records only: `consume --from latest`.
    Tail(TailArgs),
    /// Lists consumer groups; with a name, its members, checkpoints and lag.
    Groups {
        /// The consumer group.
        group: Option<String>,
    },
}

/// What to produce.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// The device (or other key) of records that don't name their own; it picks the partition.
    #[arg(long, default_value = "cli")]
    key: String,
    /// Make up so many records instead of reading them.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Bytes of a made-up record.
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    size: usize,
    /// Spread made-up records over so many keys.
    #[arg(long, default_value_t = 100)]
    keys: u64,
}

/// How records are shown.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Print one JSON object a record.
    #[arg(long)]
    json: bool,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<u32>,
}

/// What to consume.
#[derive(Args, Debug)]
pub struct ConsumeArgs {
    /// Where to begin: earliest, latest, offset:N, time:RFC3339 or time:-10m. A group with a checkpoint goes on there.
    #[arg(long, default_value = "earliest", value_parser = read_from)]
    from: ReadFrom,
    /// Share the partitions in this consumer group, and keep checkpoints.
    #[arg(long)]
    group: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

/// What to tail.
#[derive(Args, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    show: ShowArgs,
}

pub(crate) async fn run(context: &ContextArgs, command: StreamCommand) -> Result<(), CliError> {
    let client = context.connect().await?;
    match command {
        StreamCommand::Produce(args) => produce(&client, &args).await,
        StreamCommand::Consume(ConsumeArgs { from, group: None, show }) => consume(&client, from, show).await,
        StreamCommand::Consume(ConsumeArgs { from, group: Some(group), show }) => {
            consume_group(&client, &group, from, show).await
        }
        StreamCommand::Tail(TailArgs { show }) => consume(&client, ReadFrom::Latest, show).await,
        StreamCommand::Groups { group } => crate::groups::groups(&client.admin(), group).await,
    }
}

/// Bytes of a line of standard input.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Receipts that wait for their answer at the most.
const OPEN_MAX: usize = 100_000;

#[derive(Default)]
struct Outcomes {
    ok: u64,
    failed: u64,
    unknown: u64,
    first_error: Option<String>,
}

impl Outcomes {
    fn add(&mut self, outcome: Result<(), SendError>) {
        match outcome {
            Ok(()) => self.ok += 1,
            Err(error) => {
                match error {
                    SendError::Unknown(_) => self.unknown += 1,
                    _ => self.failed += 1,
                }
                self.first_error.get_or_insert(error.to_string());
            }
        }
    }
}

async fn produce(client: &Client, args: &ProduceArgs) -> Result<(), CliError> {
    let producer = client.producer(Default::default())?;
    let (sender, mut receipts) = mpsc::channel::<SendReceipt>(OPEN_MAX);
    let progress = match args.count {
        Some(count) => ProgressBar::new(count),
        None => ProgressBar::no_length(),
    };
    progress.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{pos} records {per_sec} {wide_bar} {eta}") {
        progress.set_style(style);
    }
    let bar = progress.clone();
    let collecting = tokio::spawn(async move {
        let mut outcomes = Outcomes::default();
        while let Some(receipt) = receipts.recv().await {
            outcomes.add(receipt.await.map(drop));
            bar.inc(1);
        }
        outcomes
    });
    let begun = Instant::now();
    let sent = match args.count {
        Some(count) => produce_made_up(&producer, args, count, &sender).await,
        None => produce_lines(&producer, args, &sender).await,
    };
    drop(sender);
    producer.flush().await;
    let outcomes = collecting.await.map_err(|error| CliError::Failed(error.to_string()))?;
    progress.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    let rate = outcomes.ok as f64 / seconds.max(0.001);
    say!(
        "ok {}  failed {}  unknown {}  in {seconds:.2} s ({rate:.0} records/s)",
        outcomes.ok,
        outcomes.failed,
        outcomes.unknown
    );
    sent?;
    match (outcomes.failed, outcomes.unknown, outcomes.first_error) {
        (0, 0, _) => Ok(()),
        (0, _, error) => Err(CliError::Unknown(error.unwrap_or_default())),
        (_, _, error) => Err(CliError::Failed(error.unwrap_or_default())),
    }
}

async fn produce_made_up(
    producer: &Producer,
    args: &ProduceArgs,
    count: u64,
    receipts: &mpsc::Sender<SendReceipt>,
) -> Result<(), CliError> {
    let mut body = vec![b'.'; args.size];
    for n in 0..count {
        let key = format!("{}-{}", args.key, n % args.keys.max(1));
        let text = n.to_string();
        let end = text.len().min(body.len());
        body[..end].copy_from_slice(&text.as_bytes()[..end]);
        let receipt = producer.send(Record::new(&key, &body)).await?;
        drop(receipts.send(receipt).await);
    }
    Ok(())
}

async fn produce_lines(
    producer: &Producer,
    args: &ProduceArgs,
    receipts: &mpsc::Sender<SendReceipt>,
) -> Result<(), CliError> {
    // Bodies are bytes: lines need not be text.
    let mut lines = BufReader::new(stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let whole = line.strip_suffix(b"\n");
        if whole.is_none() && read as u64 > LINE_BYTES_MAX {
            return Err(CliError::Failed(format!("a line is longer than {LINE_BYTES_MAX} bytes: split it")));
        }
        let (key, body) = key_and_body(whole.unwrap_or(&line), &args.key)?;
        let receipt = producer.send(Record::new(key, body)).await?;
        drop(receipts.send(receipt).await);
    }
}

/// Splits `KEY<TAB>BODY`; a line without a tab is a body of `key`. A carriage return at the end goes.
fn key_and_body<'a>(line: &'a [u8], key: &'a str) -> Result<(&'a str, &'a [u8]), CliError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(at) = line.iter().position(|byte| *byte == b'\t') else {
        return Ok((key, line));
    };
    let named = std::str::from_utf8(&line[..at]);
    let key = named.map_err(|_| {
        let shown = String::from_utf8_lossy(&line[..at.min(64)]).into_owned();
        CliError::Failed(format!("key {shown:?} before the tab is not UTF-8: only the body may be bytes"))
    })?;
    Ok((key, &line[at + 1..]))
}

/// Prints records until enough are printed.
struct Printer {
    show: ShowArgs,
    left: u64,
}

impl Printer {
    fn new(show: ShowArgs) -> Printer {
        let left = show.max.unwrap_or(u64::MAX);
        Printer { show, left }
    }

    /// Prints a batch; false when that was enough.
    fn print(&mut self, batch: &ReceivedBatch) -> Result<bool, CliError> {
        let mut out = std::io::stdout().lock();
        for record in batch.records() {
            let record = record.map_err(|error| CliError::Failed(error.to_string()))?;
            let (partition, offset) = (batch.partition().0, record.offset.0);
            let device = String::from_utf8_lossy(&record.device);
            let body = String::from_utf8_lossy(&record.body);
            let written = match self.show.json {
                true => {
                    let line = json!({
                        "partition": partition, "offset": offset, "device": device, "body": body,
                        "enqueued_ms": batch.enqueued().0,
                    });
                    writeln!(out, "{line}")
                }
                false => writeln!(out, "{partition}/{offset}  {}  {device}  {body}", show(batch.enqueued())),
            };
            if written.is_err() {
                // Whoever read the output has gone: as good as enough.
                return Ok(false);
            }
            self.left -= 1;
            if self.left == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads partitions side by side; batches of a partition keep their order. An error is the last of its
/// partition.
pub(crate) fn batches(
    client: &Client,
    partitions: Vec<PartitionId>,
    from: ReadFrom,
) -> mpsc::Receiver<Result<ReceivedBatch, ConsumeError>> {
    let (sender, batches) = mpsc::channel(partitions.len().max(1));
    for partition in partitions {
        let mut consumer = client.consumer(partition, from, ConsumerOptions::default());
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let batch = consumer.next_batch().await;
                if let Err(ConsumeError::OffsetGone { asked, start, .. }) = &batch {
                    eprintln!("partition {}: records {asked} to {start} are gone by retention", partition.0);
                    consumer.seek(ReadFrom::Offset(*start));
                    continue;
                }
                let ended = batch.is_err();
                if sender.send(batch).await.is_err() || ended {
                    return;
                }
            }
        });
    }
    batches
}

async fn consume(client: &Client, from: ReadFrom, show: ShowArgs) -> Result<(), CliError> {
    let partitions = match show.partition {
        Some(partition) => vec![PartitionId(partition)],
        None => (0..client.metadata().partitions).map(PartitionId).collect(),
    };
    let mut batches = batches(client, partitions, from);
    let mut printer = Printer::new(show);
    while let Some(batch) = batches.recv().await {
        if !printer.print(&batch?)? {
            break;
        }
    }
    Ok(())
}

async fn consume_group(client: &Client, group: &str, from: ReadFrom, show: ShowArgs) -> Result<(), CliError> {
    let options = GroupOptions { start: from, ..GroupOptions::default() };
    let mut member = client.group(group, options).await?;
    eprintln!("member {} of consumer group {group}; Ctrl-C leaves it", member.member().0);
    let mut printer = Printer::new(show);
    loop {
        let event = tokio::select! {
            event = member.next() => event?,
            _ = tokio::signal::ctrl_c() => break,
        };
        match event {
            GroupEvent::Assigned { partition, next } => {
                let from = next.map_or("its start".to_owned(), |next| next.0.to_string());
                eprintln!("partition {} is ours, from {from}", partition.0);
            }
            GroupEvent::Batch(batch) => {
                let more = printer.print(&batch)?;
                member.checkpoint(batch.partition(), batch.next_offset()).await?;
                if !more {
                    break;
                }
            }
            GroupEvent::Gap { partition, asked, start } => {
                eprintln!("partition {}: records {asked} to {start} are gone by retention", partition.0);
            }
            GroupEvent::Revoking(partition) => eprintln!("partition {} goes to another member", partition.0),
            GroupEvent::Lost(partition) => eprintln!("partition {} was lost to another member", partition.0),
        }
    }
    tokio::time::timeout(Duration::from_secs(5), member.leave())
        .await
        .map_err(|_| CliError::Failed("could not leave in time; the session will expire".to_owned()))??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line names its key before the first tab, or has the default one; bytes stay as they are.
    #[test]
    fn lines() {
        let table: [(&[u8], &str, &[u8]); 5] = [
            (b"21.5", "cli", b"21.5"),
            (b"t-7\t21.5\tC", "t-7", b"21.5\tC"),
            (b"\tx\r", "", b"x"),
            (b"", "cli", b""),
            (b"k\t\xfe", "k", b"\xfe"),
        ];
        for (line, key, body) in table {
            assert_eq!(key_and_body(line, "cli").unwrap(), (key, body));
        }
        assert!(key_and_body(b"\xff\tx", "cli").unwrap_err().to_string().contains("not UTF-8"));
    }
}
