//! Fleetline: real processes, the client crate, batches as a gateway or an eager producer makes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_client::model::ReadFrom;
use fleetline_client::{Client, ClientOptions, ConsumerOptions, PartitionId, Producer, Record};

use crate::Outcome;
use crate::load::{Flight, Load, Measured, Shape, Target, run};
use crate::process::{Servers, beside, free_ports};

/// Partitions of the hub that is appended to.
pub const PARTITIONS: u32 = 6;
/// Bytes of records that one unit of a saturating load holds: what fills a batch of the client.
const UNIT_BYTES: usize = 60_000;
/// Units in flight at saturation, over all producers: eight batches a partition.
const UNITS_IN_FLIGHT: usize = 48;
/// How long a read may bring nothing.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that run, and a client of theirs.
pub struct Cluster {
    /// The nodes.
    pub servers: Servers,
    /// Connected to the first.
    pub client: Client,
    /// Where the first node writes what clients need.
    pub context: PathBuf,
    /// Addresses of the listeners that were asked for: by node, then in the order asked.
    pub listeners: Vec<Vec<String>>,
}

/// Starts nodes with a hub of that many partitions and waits for all replicas. `listeners` are options of
/// `serve` that take an address.
///
/// # Errors
/// When a node ends, doesn't answer, or gets no replicas.
pub async fn start(nodes: usize, partitions: u32, listeners: &[&str]) -> Outcome<Cluster> {
    let binary = beside("fleetline")?;
    let mut servers = Servers::new()?;
    let options = [&["--listen", "--peer-listen", "--ops-listen"], listeners].concat();
    let addresses: Vec<String> =
        free_ports(options.len() * nodes)?.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let addresses: Vec<&[String]> = addresses.chunks(options.len()).collect();
    let serve = |number: usize, servers: &mut Servers, join: Option<String>| -> Outcome<PathBuf> {
        let data = servers.root().join(format!("n{number}"));
        let mut arguments = vec!["serve".to_owned(), "--data".to_owned(), data.display().to_string()];
        for (option, address) in options.iter().zip(addresses[number]) {
            arguments.extend([(*option).to_owned(), address.clone()]);
        }
        arguments.extend(["--partitions".to_owned(), partitions.to_string()]);
        arguments.extend(join.into_iter().flat_map(|token| ["--join".to_owned(), token]));
        servers.start(&binary, arguments)?;
        Ok(data)
    };
    let context = serve(0, &mut servers, None)?.join("client");
    let client = connect(&context, &mut servers).await?;
    for number in 1..nodes {
        let token = client.admin().create_join_token(Duration::from_secs(3600)).await?;
        serve(number, &mut servers, Some(token))?;
    }
    let replicas = if nodes >= 3 { 3 } else { 1 };
    wait_replicated(&client, nodes, partitions, replicas, &mut servers).await?;
    let listeners = addresses.iter().map(|node| node[options.len() - listeners.len()..].to_vec()).collect();
    Ok(Cluster { servers, client, context, listeners })
}

async fn connect(context: &Path, servers: &mut Servers) -> Outcome<Client> {
    let mut last = None;
    for _ in 0..600 {
        servers.check()?;
        if let Ok(options) = ClientOptions::from_context(context) {
            match Client::connect(options).await {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("node doesn't answer: {last:?}").into())
}

/// Waits until every partition has its replicas and leaders are spread.
async fn wait_replicated(
    client: &Client,
    nodes: usize,
    partitions: u32,
    replicas: usize,
    servers: &mut Servers,
) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        servers.check()?;
        let infos = client.admin().partitions().await?;
        let led: Vec<_> = infos
            .iter()
            .flat_map(|node| {
                node.partitions.iter().flatten().filter(|info| info.leader == Some(node.node.node))
            })
            .collect();
        let whole = led.len() == partitions as usize
            && led.iter().all(|info| info.voters.len() == replicas && info.learners.is_empty());
        let spread = infos.iter().filter(|node| {
            node.partitions.as_ref().is_ok_and(|p| p.iter().any(|info| info.leader == Some(node.node.node)))
        });
        if whole && spread.count() == nodes.min(partitions as usize) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(300) {
            return Err("partitions did not get their replicas in five minutes".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sends units of records of one device each; several producers take turns.
#[derive(Clone)]
struct Appends {
    producers: Arc<Vec<Producer>>,
    devices: Arc<Vec<String>>,
    body: Arc<Vec<u8>>,
    records: u64,
}

impl Target for Appends {
    async fn send(&self, number: u64) -> Outcome<()> {
        let producer = &self.producers[(number % self.producers.len() as u64) as usize];
        let device = &self.devices[(number % self.devices.len() as u64) as usize];
        let records = (0..self.records).map(|_| Record::new(device, self.body.as_slice()));
        for receipt in producer.send_many(records).await? {
            receipt.await?;
        }
        Ok(())
    }
}

/// One device per partition and producer, so that load is even.
fn devices(producer: &Producer) -> Vec<String> {
    let mut chosen: Vec<Option<String>> = vec![None; PARTITIONS as usize];
    for n in 0.. {
        let device = format!("device-{n}");
        if let Some(place) = chosen.get_mut(producer.partition_of(&device).0 as usize) {
            place.get_or_insert(device);
        }
        if chosen.iter().all(Option::is_some) {
            break;
        }
    }
    chosen.into_iter().flatten().collect()
}

fn appends(client: &Client, bytes: usize, records: u64) -> Outcome<Appends> {
    let producers = (0..4).map(|_| client.producer(Default::default())).collect::<Result<Vec<_>, _>>()?;
    let devices = devices(&producers[0]);
    Ok(Appends {
        producers: Arc::new(producers),
        devices: Arc::new(devices),
        body: Arc::new(vec![b'x'; bytes]),
        records,
    })
}

/// Units that each fill a batch, enough of them to keep all partitions busy.
fn eager(bytes: usize) -> Shape {
    Shape { records_per_unit: (UNIT_BYTES / (bytes + 8)) as u64, in_flight: UNITS_IN_FLIGHT }
}

/// Appends to a cluster of `nodes`.
pub async fn append(nodes: usize, load: &Load) -> Outcome<Measured> {
    let mut cluster = start(nodes, PARTITIONS, &[]).await?;
    let shape = match load.flight {
        Flight::Eager => eager(load.bytes),
        Flight::Thousand => Shape::single(1000),
        Flight::One => Shape::single(1),
    };
    let target = appends(&cluster.client, load.bytes, shape.records_per_unit)?;
    run(load, shape, target, &mut cluster.servers).await
}

/// Reads everything that an append phase has left, by one consumer a partition.
pub async fn read(duration: Duration) -> Outcome<Measured> {
    let mut cluster = start(3, PARTITIONS, &[]).await?;
    let load = Load { bytes: 100, duration, flight: Flight::Eager };
    let shape = eager(load.bytes);
    let target = appends(&cluster.client, load.bytes, shape.records_per_unit)?;
    run(&load, shape, target, &mut cluster.servers).await?;
    let (cpu_before, begun) = (cluster.servers.cpu_seconds()?, Instant::now());
    let mut reading = tokio::task::JoinSet::new();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let client = cluster.client.clone();
        reading.spawn(async move {
            let end = client.admin().partition(partition).await?.high_watermark;
            let mut consumer = client.consumer(partition, ReadFrom::Earliest, ConsumerOptions::default());
            let mut count = 0u64;
            while count < end.0 {
                let batch = tokio::time::timeout(READ_PATIENCE, consumer.next_batch()).await??;
                for record in batch.records() {
                    record?;
                    count += 1;
                }
            }
            Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(count)
        });
    }
    let mut count = 0;
    while let Some(read) = reading.join_next().await {
        count += read??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cluster.servers.cpu_seconds()? - cpu_before;
    Ok(Measured {
        per_s: count as f64 / seconds,
        cpu_s_per_million: cpu / (count as f64 / 1e6),
        rss_mib: cluster.servers.rss_mib()?,
        ..Measured::default()
    })
}

/// Server CPU seconds per second over all nodes while 256 groups idle, and their memory.
pub async fn idle(duration: Duration) -> Outcome<(f64, u64)> {
    // 255 partitions and the control group.
    let mut cluster = start(3, 255, &[]).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (cpu_before, begun) = (cluster.servers.cpu_seconds()?, Instant::now());
    tokio::time::sleep(duration).await;
    let cpu = cluster.servers.cpu_seconds()? - cpu_before;
    Ok((cpu / begun.elapsed().as_secs_f64(), cluster.servers.rss_mib()?))
}
