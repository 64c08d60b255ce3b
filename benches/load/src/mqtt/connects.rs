//! New connections: a number of devices connect over TLS, say goodbye and connect again, as fast as it goes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::brokers::Brokers;
use super::dial;
use super::packet::DISCONNECT;
use crate::Outcome;
use crate::load::{Measured, Tally};

/// Devices that connect at a time.
pub const DEVICES: usize = 32;
/// How long a system is worked before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Connects to the first server.
///
/// # Errors
/// When one fails.
pub async fn measure(brokers: &mut Brokers, duration: Duration) -> Outcome<Measured> {
    phase(brokers, WARM_UP).await?;
    let (cpu_before, begun) = (brokers.servers.cpu_seconds()?, Instant::now());
    let tally = phase(brokers, duration).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), brokers.servers.cpu_seconds()? - cpu_before);
    Ok(Measured {
        per_s: tally.done() as f64 / seconds,
        p50_ms: tally.millis(0.5),
        p99_ms: tally.millis(0.99),
        cpu_s_per_million: cpu / (tally.done() as f64 / 1e6),
        rss_mib: brokers.servers.rss_mib()?,
        ..Measured::default()
    })
}

async fn phase(brokers: &Brokers, duration: Duration) -> Outcome<Tally> {
    let tls = brokers.tls()?.ok_or("connections without TLS")?;
    let end = Instant::now() + duration;
    let mut running = JoinSet::new();
    for number in 0..DEVICES {
        let connect = brokers.login.connect(number)?;
        running.spawn(again_and_again(brokers.addresses[0], tls.clone(), connect, end));
    }
    let mut all = Tally::new()?;
    while let Some(tally) = running.join_next().await {
        all.add(tally??)?;
    }
    Ok(all)
}

/// At least one connection, so that there is a figure.
async fn again_and_again(
    address: SocketAddr,
    tls: TlsConnector,
    connect: Vec<u8>,
    end: Instant,
) -> Outcome<Tally> {
    let mut tally = Tally::new()?;
    loop {
        let begun = Instant::now();
        let mut stream = dial::any(address, Some(&tls), &connect).await?;
        tally.acknowledged(begun.elapsed());
        stream.write_all(&DISCONNECT).await?;
        // Whoever is faster closes; both are well [MQTT-3.14.4-1, MQTT-3.14.4-3].
        drop(stream.shutdown().await);
        if Instant::now() >= end {
            return Ok(tally);
        }
    }
}
