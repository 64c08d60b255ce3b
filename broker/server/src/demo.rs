//! `fleetline demo`: one embedded node, devices that send, a consumer group that reads, and a picture.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use fleetline_cli::CliError;
use fleetline_client::model::PartitionInfo;
use fleetline_client::{Client, ClientOptions, GroupEvent, GroupOptions, PartitionId, Producer, Record};
use fleetline_node::Node;
use fleetline_telemetry::{LogFormat, Metrics, init_logs};
use tokio::sync::{mpsc, watch};

use crate::serve::ServeArgs;

/// What the demo does.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// The data folder; a second run goes on with its data.
    #[arg(long, value_name = "DIR", default_value = "./fleetline-data")]
    data: PathBuf,
    /// End after so many seconds instead of at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many devices send.
    #[arg(long, default_value_t = 24)]
    devices: u64,
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    received: AtomicU64,
    sent: AtomicU64,
    /// Per partition where the consumer group reads on.
    next: Mutex<BTreeMap<PartitionId, u64>>,
}

/// The newest value of a device, for the picture.
struct Reading {
    device: String,
    partition: PartitionId,
    offset: u64,
    value: f64,
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

/// Runs the demo until Ctrl-C.
pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    init_logs("warn,openraft=error", LogFormat::Text).map_err(failed)?;
    let metrics = Metrics::install().map_err(failed)?;
    println!("fleetline demo: starting a node on {}", args.data.display());
    let config = ServeArgs { data: Some(args.data.clone()), ..ServeArgs::default() }.to_config()?;
    let ops = config.ops_listen;
    let node = Node::start(config, metrics).await.map_err(failed)?;
    let client = connect(&args.data.join("client")).await?;
    println!("node {} runs; metrics at http://{ops}/metrics; Ctrl-C ends", node.id());
    let seen = Arc::new(Seen::default());
    let (readings, incoming) = mpsc::channel(1024);
    let producer = client.producer(Default::default())?;
    let (stop, stopped) = watch::channel(false);
    let sending = tokio::spawn(send(producer, args.devices, seen.clone(), stopped.clone()));
    let reading = tokio::spawn(read(client.clone(), readings, seen.clone(), stopped));
    let showing = show(client, incoming, seen.clone());
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        shown = showing => shown?,
        _ = tokio::signal::ctrl_c() => {}
        () = limit => {}
    }
    stop.send_replace(true);
    for task in [sending, reading] {
        if let Err(error) = task.await {
            eprintln!("a part of the demo failed: {error}");
        }
    }
    let (sent, received) = (seen.sent.load(Ordering::Relaxed), seen.received.load(Ordering::Relaxed));
    println!("\nsent {sent} records, every one acknowledged by the disk; read {received}");
    node.shutdown().await;
    println!("the data stays in {}; run it again to go on", args.data.display());
    Ok(())
}

/// Connects once the node has written what clients need.
async fn connect(context: &Path) -> Result<Client, CliError> {
    let mut last = None;
    for _ in 0..300 {
        match ClientOptions::from_context(context) {
            Ok(options) => match Client::connect(options).await {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error.to_string()),
            },
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(CliError::Failed(format!("the node doesn't answer: {}", last.unwrap_or_default())))
}

/// Thermometers that wander, ten times a second each.
async fn send(producer: Producer, devices: u64, seen: Arc<Seen>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut values: Vec<f64> = (0..devices).map(|n| 18.0 + n as f64 / 4.0).collect();
    for step in 0u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => return,
        }
        let mut open = Vec::with_capacity(values.len());
        for (device, value) in values.iter_mut().enumerate() {
            let phase = (step as f64 / 20.0) + device as f64;
            *value += phase.sin() / 8.0;
            let (key, body) = (format!("thermometer-{device:02}"), format!("{value:.2}"));
            match producer.send(Record::new(&key, &body)).await {
                Ok(receipt) => open.push(receipt),
                Err(error) => eprintln!("{key}: {error}"),
            }
        }
        for receipt in open {
            match receipt.await {
                Ok(_) => drop(seen.sent.fetch_add(1, Ordering::Relaxed)),
                Err(error) => eprintln!("{error}"),
            }
        }
    }
}

/// A member of the consumer group `demo`. It leaves in the end: the next run needn't wait for its session.
async fn read(
    client: Client,
    readings: mpsc::Sender<Reading>,
    seen: Arc<Seen>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut member = match client.group("demo", GroupOptions::default()).await {
        Ok(member) => member,
        Err(error) => return eprintln!("consumer group: {error}"),
    };
    loop {
        let event = tokio::select! {
            event = member.next() => event,
            _ = stopped.changed() => break,
        };
        let batch = match event {
            Ok(GroupEvent::Batch(batch)) => batch,
            Ok(_) => continue,
            Err(error) => return eprintln!("consumer group: {error}"),
        };
        for record in batch.records().flatten() {
            seen.received.fetch_add(1, Ordering::Relaxed);
            let reading = Reading {
                device: String::from_utf8_lossy(&record.device).into_owned(),
                partition: batch.partition(),
                offset: record.offset.0,
                value: String::from_utf8_lossy(&record.body).parse().unwrap_or(f64::NAN),
            };
            // The picture may be gone already: then there is nobody to show it to.
            drop(readings.send(reading).await);
        }
        let (partition, next) = (batch.partition(), batch.next_offset());
        seen.next.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next.0);
        if let Err(error) = member.checkpoint(partition, next).await {
            eprintln!("checkpoint: {error}");
        }
    }
    match tokio::time::timeout(Duration::from_secs(5), member.leave()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("consumer group: {error}"),
        Err(_) => eprintln!("consumer group: could not leave in time; its session will expire"),
    }
}

/// Draws the picture four times a second, or prints a line a second where there is no terminal.
async fn show(
    client: Client,
    mut incoming: mpsc::Receiver<Reading>,
    seen: Arc<Seen>,
) -> Result<(), CliError> {
    let live = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_millis(if live { 250 } else { 1000 }));
    let mut devices: BTreeMap<String, Reading> = BTreeMap::new();
    let (mut before, mut rate) = (0, 0.0);
    loop {
        tokio::select! {
            reading = incoming.recv() => match reading {
                Some(reading) => drop(devices.insert(reading.device.clone(), reading)),
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                let received = seen.received.load(Ordering::Relaxed);
                let per_second = (received - before) as f64 / ticks.period().as_secs_f64();
                rate = if rate == 0.0 { per_second } else { rate * 0.7 + per_second * 0.3 };
                before = received;
                let infos = client.admin().partitions().await?;
                let infos = infos.iter().flat_map(|node| node.partitions.iter().flatten());
                let ends: Vec<String> = infos.map(|info| partition_line(info, &seen)).collect();
                match live {
                    true => draw(&devices, rate, &ends)?,
                    false => println!("{rate:.0} records/s   {}", ends.join("   ")),
                }
            }
        }
    }
}

/// `p0 n1 end 117 lag 3`: leader, end of the stream, and how far the consumer group is behind it.
fn partition_line(info: &PartitionInfo, seen: &Seen) -> String {
    let next = seen.next.lock().unwrap_or_else(PoisonError::into_inner).get(&info.partition).copied();
    let leader = info.leader.map_or("no leader".to_owned(), |leader| leader.to_string());
    let end = info.high_watermark.0;
    let lag = next.map_or("?".to_owned(), |next| end.saturating_sub(next).to_string());
    format!("{} {leader} end {end} lag {lag}", info.partition)
}

fn draw(devices: &BTreeMap<String, Reading>, rate: f64, ends: &[String]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H\x1b[J")?;
    writeln!(out, "fleetline demo   {rate:.0} records/s   (Ctrl-C ends)\n")?;
    for row in ends.chunks(4) {
        writeln!(out, "{}", row.join("   "))?;
    }
    writeln!(out)?;
    for reading in devices.values() {
        let length = (reading.value.clamp(0.0, 40.0) * 1.2) as usize;
        let bar = "█".repeat(length);
        writeln!(
            out,
            "{:<16} {:>3} @{:<9} {:>6.2} {bar}",
            reading.device,
            reading.partition.to_string(),
            reading.offset,
            reading.value
        )?;
    }
    out.flush()?;
    Ok(())
}
