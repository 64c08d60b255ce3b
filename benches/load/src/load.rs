//! The work: a saturating phase for rate and CPU, then an open loop at half that rate for latency.
//!
//! In the open loop each unit has an intended time; latency counts from there, so a server that stalls
//! can't hide by slowing the load down (no coordinated omission).

use std::future::Future;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;

use crate::Outcome;
use crate::process::Servers;

/// What to do.
pub struct Load {
    /// Bytes of a record's body.
    pub bytes: usize,
    /// How long each phase takes.
    pub duration: Duration,
    /// One append in flight, for its latency.
    pub one_in_flight: bool,
}

/// What came out.
#[derive(Default)]
pub struct Measured {
    /// Acknowledged records per second at saturation (with one in flight: at that).
    pub per_s: f64,
    /// Latency in the open loop at half the rate (with one in flight: of each append).
    pub p50_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// Server CPU seconds per million acknowledged records at saturation, over all nodes.
    pub cpu_s_per_million: f64,
    /// Resident memory of all servers at the end.
    pub rss_mib: u64,
    /// Records that were not acknowledged.
    pub errors: u64,
    /// The disk's own rate just before.
    pub disk_syncs_per_s: Option<u64>,
}

/// Something that units of records can be sent to.
pub trait Target: Clone + Send + Sync + 'static {
    /// Sends one unit and resolves when it is acknowledged.
    fn send(&self, number: u64) -> impl Future<Output = Outcome<()>> + Send;
}

/// Units in flight per worker, workers, and records in a unit.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Records that one unit holds.
    pub records_per_unit: u64,
    /// Units in flight while saturating.
    pub in_flight: usize,
}

fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 3)?)
}

/// Keeps `in_flight` units open for a while. Gives acknowledged units, errors and latencies in µs.
async fn closed_loop(
    target: &impl Target,
    in_flight: usize,
    duration: Duration,
) -> Outcome<(u64, u64, Histogram<u64>)> {
    let mut latencies = histogram()?;
    let (mut done, mut errors, mut number) = (0, 0, 0);
    let begun = Instant::now();
    let mut open = FuturesUnordered::new();
    let send = |number| {
        let target = target.clone();
        async move {
            let begun = Instant::now();
            (target.send(number).await.is_ok(), begun.elapsed())
        }
    };
    loop {
        while open.len() < in_flight && begun.elapsed() < duration {
            open.push(send(number));
            number += 1;
        }
        let Some((ok, latency)) = open.next().await else {
            return Ok((done, errors, latencies));
        };
        match ok {
            true => done += 1,
            false => errors += 1,
        }
        latencies.saturating_record(latency.as_micros() as u64);
    }
}

/// Sends units at a fixed rate. Gives errors and latencies from the intended time, in µs.
async fn open_loop(target: &impl Target, per_s: f64, duration: Duration) -> Outcome<(u64, Histogram<u64>)> {
    let mut latencies = histogram()?;
    let gap = Duration::from_secs_f64(1.0 / per_s.max(1.0));
    let total = (duration.as_secs_f64() / gap.as_secs_f64()) as u64;
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let (mut number, mut errors) = (0u64, 0);
    let mut open = FuturesUnordered::new();
    while number < total || !open.is_empty() {
        tokio::select! {
            biased;
            Some(outcome) = open.next(), if !open.is_empty() => {
                let (ok, latency): (bool, Duration) = outcome;
                errors += u64::from(!ok);
                latencies.saturating_record(latency.as_micros() as u64);
            }
            _ = ticks.tick(), if number < total => {
                while number < total && begun.elapsed() >= gap.mul_f64(number as f64) {
                    let (target, intended, unit) = (target.clone(), begun + gap.mul_f64(number as f64), number);
                    open.push(async move { (target.send(unit).await.is_ok(), intended.elapsed()) });
                    number += 1;
                }
            }
        }
    }
    Ok((errors, latencies))
}

/// Runs both phases (or the one with one in flight) against a system.
pub async fn run(load: &Load, shape: Shape, target: impl Target, servers: &Servers) -> Outcome<Measured> {
    let millis = |latencies: &Histogram<u64>, quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let in_flight = if load.one_in_flight { 1 } else { shape.in_flight };
    closed_loop(&target, in_flight, Duration::from_secs(1)).await?;
    let disk_syncs_per_s = Some(crate::disk::syncs_per_s(servers.root())?);
    let (cpu_before, begun) = (servers.cpu_seconds(), Instant::now());
    let (units, mut errors, mut latencies) = closed_loop(&target, in_flight, load.duration).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), servers.cpu_seconds() - cpu_before);
    if units == 0 {
        return Err("nothing was acknowledged".into());
    }
    if !load.one_in_flight {
        let (failed, half) = open_loop(&target, units as f64 / seconds / 2.0, load.duration).await?;
        errors += failed;
        latencies = half;
    }
    let records = (units * shape.records_per_unit) as f64;
    Ok(Measured {
        per_s: records / seconds,
        p50_ms: millis(&latencies, 0.5),
        p99_ms: millis(&latencies, 0.99),
        cpu_s_per_million: cpu / (records / 1e6),
        rss_mib: servers.rss_mib(),
        errors,
        disk_syncs_per_s,
    })
}
