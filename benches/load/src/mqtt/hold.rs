//! Idle connections: what one costs a server in memory.
//!
//! A process may have a limited number of files, so further processes of this program hold them: each gets
//! an [`Order`] as one line of JSON on its standard input, connects, says so, and waits. On a second line it
//! looks whether all connections are still there, says so, and ends at the end of its input.
//!
//! Invariant: a figure is of connections that were all open before and after it was taken.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines, ReadBuf};
use tokio::process::{Child, ChildStdout, Command};

use super::brokers::Brokers;
use super::dial::{self, Login, Stream};
use crate::Outcome;

/// Connections that are wanted.
const WANTED: usize = 20_000;
/// Files that a server needs for other things.
const SERVER_FILES: usize = 1_000;
/// Connections that one process holds.
const PER_PROCESS: usize = 9_000;
/// Connections that one process opens at a time.
const AT_A_TIME: usize = 32;
/// How long the servers get to come to rest before each look at their memory.
const REST: Duration = Duration::from_secs(3);
/// The idle time is as long as this at least: little is used, in hundredths of a second.
const IDLE_MIN: Duration = Duration::from_secs(10);

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Connections that were open.
    pub connections: usize,
    /// Client processes that held them.
    pub processes: usize,
    /// Resident memory of all servers that each connection added.
    pub kib_per_connection: f64,
    /// Server CPU seconds per second while nobody sent.
    pub idle_cpu: f64,
    /// Resident memory of all servers with all connections.
    pub rss_mib: u64,
    /// New connections per second while they were opened, without a closed one in between.
    pub connects_per_s: f64,
}

/// How many connections a server may get here: processes inherit our limit of open files.
///
/// # Errors
/// When the limit can't be told or is too small for any.
pub fn connections_max() -> Outcome<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let files = open_files(&limits).ok_or("/proc/self/limits names no open files")?;
    match WANTED.min(files.saturating_sub(SERVER_FILES)) {
        0 => Err(format!("{files} open files are too few").into()),
        connections => Ok(connections),
    }
}

/// The soft limit of open files in `/proc/PID/limits`.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        files => files.parse().ok(),
    }
}

/// What a process holds.
#[derive(Serialize, Deserialize)]
struct Order {
    address: SocketAddr,
    authority_pem: Option<String>,
    login: Login,
    /// Number of the first device.
    first: usize,
    count: usize,
}

/// A process that holds connections.
struct Holder {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    async fn start(order: &Order) -> Outcome<Holder> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("a client process has no output")?;
        let mut holder = Holder { child, answers: BufReader::new(stdout).lines() };
        holder.say(&serde_json::to_string(order)?).await?;
        Ok(holder)
    }

    async fn say(&mut self, line: &str) -> Outcome<()> {
        let stdin = self.child.stdin.as_mut().ok_or("a client process has no input")?;
        stdin.write_all(line.as_bytes()).await?;
        Ok(stdin.write_all(b"\n").await?)
    }

    /// Waits for its next answer, which must be that number.
    async fn expect(&mut self, count: usize) -> Outcome<()> {
        match self.answers.next_line().await? {
            Some(line) if line == count.to_string() => Ok(()),
            Some(line) => Err(format!("{line} of {count} connections are open").into()),
            None => Err("a client process has ended; see above".into()),
        }
    }
}

/// Opens that many connections to the first server and looks at it while nobody sends.
///
/// # Errors
/// When a connection fails or ends.
pub async fn measure(brokers: &mut Brokers, count: usize, idle: Duration) -> Outcome<Held> {
    tokio::time::sleep(REST).await;
    let kib_before = brokers.servers.rss_kib()?;
    let begun = Instant::now();
    let mut holders = Vec::new();
    for first in (0..count).step_by(PER_PROCESS) {
        let order = Order {
            address: brokers.addresses[0],
            authority_pem: brokers.authority_pem.clone(),
            login: brokers.login.clone(),
            first,
            count: PER_PROCESS.min(count - first),
        };
        holders.push((Holder::start(&order).await?, order.count));
    }
    for (holder, count) in &mut holders {
        holder.expect(*count).await?;
    }
    let connects_per_s = count as f64 / begun.elapsed().as_secs_f64();
    tokio::time::sleep(REST).await;
    let (cpu_before, begun) = (brokers.servers.cpu_seconds()?, Instant::now());
    tokio::time::sleep(idle.max(IDLE_MIN)).await;
    let idle_cpu = (brokers.servers.cpu_seconds()? - cpu_before) / begun.elapsed().as_secs_f64();
    let kib = brokers.servers.rss_kib()?;
    for (holder, count) in &mut holders {
        holder.say("").await?;
        holder.expect(*count).await?;
    }
    Ok(Held {
        connections: count,
        processes: holders.len(),
        kib_per_connection: kib.saturating_sub(kib_before) as f64 / count as f64,
        idle_cpu,
        rss_mib: kib / 1024,
        connects_per_s,
    })
}

/// What a client process does.
///
/// # Errors
/// When a connection can't be opened.
pub async fn serve() -> Outcome<()> {
    let order = next_line().await?.ok_or("no order")?;
    let order: Order = serde_json::from_str(&order)?;
    let mut streams = open(&order).await?;
    println!("{}", streams.len());
    if next_line().await?.is_some() {
        let mut open = 0;
        for stream in &mut streams {
            open += usize::from(is_open(stream).await);
        }
        println!("{open}");
    }
    while next_line().await?.is_some() {}
    Ok(())
}

/// The next line of standard input; `None` at its end, also when the parent has died.
async fn next_line() -> Outcome<Option<String>> {
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose()).await??;
    Ok(line)
}

async fn open(order: &Order) -> Outcome<Vec<Box<dyn Stream>>> {
    let tls = order.authority_pem.as_deref().map(dial::trust).transpose()?;
    let dials = (order.first..order.first + order.count).map(|number| {
        let tls = tls.as_ref();
        async move { dial::any(order.address, tls, &order.login.connect(number)?).await }
    });
    let mut dials = futures::stream::iter(dials).buffer_unordered(AT_A_TIME);
    let mut streams = Vec::new();
    while let Some(stream) = dials.next().await {
        streams.push(stream.map_err(|error| format!("connection {}: {error}", streams.len()))?);
    }
    Ok(streams)
}

/// Whether nothing came: neither an end nor bytes that an idle connection wouldn't get.
async fn is_open(stream: &mut Box<dyn Stream>) -> bool {
    let mut byte = [0];
    std::future::poll_fn(|cx| {
        let mut into = ReadBuf::new(&mut byte);
        Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut into).is_pending())
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// The soft limit is read; a text without it is none.
    #[test]
    fn file_limits_are_read() {
        let text =
            "Limit  Soft  Hard  Units\nMax processes 5 6 x\nMax open files            20000  30000  files\n";
        assert_eq!(open_files(text), Some(20_000));
        assert_eq!(open_files("Max open files unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(open_files("Max processes 5 6 x"), None);
    }

    /// An idle connection is open; one with an end or with unexpected bytes isn't.
    #[tokio::test]
    async fn ended_connections_are_seen() {
        let (ours, mut theirs) = duplex(10);
        let mut ours: Box<dyn Stream> = Box::new(ours);
        assert!(is_open(&mut ours).await);
        theirs.write_all(b"x").await.unwrap();
        assert!(!is_open(&mut ours).await);
        assert!(is_open(&mut ours).await);
        drop(theirs);
        assert!(!is_open(&mut ours).await);
    }
}
