//! The work: a saturating phase for rate and CPU, then an open loop at half that rate for latency.
//!
//! Used by each system's module with a [`Target`] of its own, and by `mqtt`, which brings [`Phases`] of
//! its own. Several workers share the units, so that one core's worth of client code is no bound.
//!
//! Invariants:
//! 1. In the open loop each unit has an intended time; latency counts from there, so a server that
//!    stalls can't hide by slowing the load down (no coordinated omission).
//! 2. Latency is of acknowledged units only; all others are counted as errors.
//! 3. A server that stops answering ends the phase after [`DRAIN`]; nothing waits for ever.
//!
//! Not here: what a unit is, and whether the server still lives (`process`).

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::Outcome;
use crate::process::Servers;

/// Tasks that send.
const WORKERS: usize = 4;
/// How long a phase waits for what is still on its way when its time is over.
pub const DRAIN: Duration = Duration::from_secs(30);
/// The open loop looks this often for units that are due; latency in it is too high by up to this.
const TICK: Duration = Duration::from_millis(1);
/// How long a system is worked before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// How much is on its way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// As much as suits the system: what an eager producer of it does.
    Eager,
    /// 1,000 records, each sent by itself: the same for all systems.
    Thousand,
    /// One record.
    One,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a record's body.
    pub bytes: usize,
    /// How long each phase takes.
    pub duration: Duration,
    /// How much is on its way while saturating.
    pub flight: Flight,
}

/// What came out.
#[derive(Clone, Debug, Default)]
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
    /// Records that were not acknowledged, in both phases.
    pub errors: u64,
    /// The disk's own rate just before.
    pub disk_syncs_per_s: Option<u64>,
}

/// Something that units of records can be sent to.
pub trait Target: Clone + Send + Sync + 'static {
    /// Sends one unit and resolves when it is acknowledged.
    fn send(&self, number: u64) -> impl Future<Output = Outcome<()>> + Send;
}

/// How records are put together and how many units are sent at a time.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Records that one unit holds.
    pub records_per_unit: u64,
    /// Units in flight while saturating.
    pub in_flight: usize,
}

impl Shape {
    /// Records one by one, so many in flight.
    pub fn single(in_flight: usize) -> Shape {
        Shape { records_per_unit: 1, in_flight }
    }
}

/// What happened to the units of a phase.
pub struct Tally {
    done: u64,
    errors: u64,
    /// Of the acknowledged ones, in µs.
    latencies: Histogram<u64>,
    /// Why the first that failed did.
    first_error: Option<String>,
}

impl Tally {
    /// Of nothing yet.
    ///
    /// # Errors
    /// None in fact; the histogram checks its bounds.
    pub fn new() -> Outcome<Tally> {
        let latencies = Histogram::new_with_bounds(1, 120_000_000, 3)?;
        Ok(Tally { done: 0, errors: 0, latencies, first_error: None })
    }

    /// Acknowledged units.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Units without an acknowledgement, and why the first has none.
    pub fn errors(&self) -> (u64, Option<&str>) {
        (self.errors, self.first_error.as_deref())
    }

    /// Latency of acknowledged units at that quantile.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Counts one that was acknowledged.
    pub fn acknowledged(&mut self, latency: Duration) {
        self.done += 1;
        self.latencies.saturating_record(latency.as_micros() as u64);
    }

    fn note(&mut self, sent: Sent) {
        match sent.outcome {
            Ok(()) => self.acknowledged(sent.latency),
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// Counts what was given up.
    pub fn unanswered(&mut self, count: u64) {
        if count > 0 {
            self.errors += count;
            self.first_error.get_or_insert_with(|| format!("no answer within {} s", DRAIN.as_secs()));
        }
    }

    /// Adds another worker's.
    ///
    /// # Errors
    /// None in fact; the histograms have the same bounds.
    pub fn add(&mut self, other: Tally) -> Outcome<()> {
        self.done += other.done;
        self.errors += other.errors;
        self.latencies.add(&other.latencies)?;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

/// A unit that came back.
struct Sent {
    outcome: Outcome<()>,
    latency: Duration,
}

async fn send(target: impl Target, number: u64, from: Instant) -> Sent {
    let outcome = target.send(number).await;
    Sent { outcome, latency: from.elapsed() }
}

/// Which units a worker sends: `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
struct Share {
    first: u64,
    step: u64,
}

/// Keeps `in_flight` units open for a while.
async fn closed_loop(target: &impl Target, in_flight: usize, duration: Duration) -> Outcome<Tally> {
    let workers = WORKERS.min(in_flight);
    let mut running = JoinSet::new();
    for n in 0..workers {
        let in_flight = in_flight / workers + usize::from(n < in_flight % workers);
        let share = Share { first: n as u64, step: workers as u64 };
        running.spawn(closed_worker(target.clone(), share, in_flight, duration));
    }
    together(running).await
}

async fn closed_worker(
    target: impl Target,
    share: Share,
    in_flight: usize,
    duration: Duration,
) -> Outcome<Tally> {
    let mut tally = Tally::new()?;
    let mut number = share.first;
    let mut open = FuturesUnordered::new();
    let end = Instant::now() + duration;
    let mut given_up = std::pin::pin!(sleep_until(end + DRAIN));
    loop {
        let mut now = Instant::now();
        while open.len() < in_flight && now < end {
            open.push(send(target.clone(), number, now));
            number += share.step;
            now = Instant::now();
        }
        tokio::select! {
            biased;
            sent = open.next() => match sent {
                Some(sent) => tally.note(sent),
                None => return Ok(tally),
            },
            () = &mut given_up => {
                tally.unanswered(open.len() as u64);
                return Ok(tally);
            }
        }
    }
}

/// Sends units at a fixed rate, whatever comes back. What is on its way is bounded by the length of the
/// phase only: that is what makes the loop open.
async fn open_loop(target: &impl Target, per_s: f64, duration: Duration) -> Outcome<Tally> {
    let gap = Duration::from_secs_f64(1.0 / per_s.max(1.0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..WORKERS as u64 {
        let share = Share { first: n, step: WORKERS as u64 };
        running.spawn(open_worker(target.clone(), share, gap, begun, duration));
    }
    together(running).await
}

async fn open_worker(
    target: impl Target,
    share: Share,
    gap: Duration,
    begun: Instant,
    duration: Duration,
) -> Outcome<Tally> {
    let mut tally = Tally::new()?;
    let intended = |number: u64| begun + gap.mul_f64(number as f64);
    let end = begun + duration;
    let mut number = share.first;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut open = FuturesUnordered::new();
    let mut given_up = std::pin::pin!(sleep_until(end + DRAIN));
    while intended(number) < end || !open.is_empty() {
        tokio::select! {
            biased;
            _ = ticks.tick(), if intended(number) < end => {
                let now = Instant::now();
                while intended(number) <= now && intended(number) < end {
                    open.push(send(target.clone(), number, intended(number)));
                    number += share.step;
                }
            }
            Some(sent) = open.next(), if !open.is_empty() => tally.note(sent),
            () = &mut given_up => {
                tally.unanswered(open.len() as u64);
                break;
            }
        }
    }
    Ok(tally)
}

async fn together(mut running: JoinSet<Outcome<Tally>>) -> Outcome<Tally> {
    let mut all = Tally::new()?;
    while let Some(tally) = running.join_next().await {
        all.add(tally??)?;
    }
    Ok(all)
}

/// The two ways to load a system.
pub trait Phases {
    /// Keeps the window full for a while, then waits for the rest.
    async fn closed(&mut self, duration: Duration) -> Outcome<Tally>;
    /// Sends that many units per second, whatever comes back, then waits for the rest.
    async fn open(&mut self, per_s: f64, duration: Duration) -> Outcome<Tally>;
}

struct Units<T> {
    target: T,
    in_flight: usize,
}

impl<T: Target> Phases for Units<T> {
    async fn closed(&mut self, duration: Duration) -> Outcome<Tally> {
        closed_loop(&self.target, self.in_flight, duration).await
    }

    async fn open(&mut self, per_s: f64, duration: Duration) -> Outcome<Tally> {
        open_loop(&self.target, per_s, duration).await
    }
}

/// Runs both phases (or the one with one in flight) against a system.
///
/// # Errors
/// When nothing was acknowledged, or a server has ended.
pub async fn run(load: &Load, shape: Shape, target: impl Target, servers: &mut Servers) -> Outcome<Measured> {
    let mut units = Units { target, in_flight: shape.in_flight };
    measure(load, shape.records_per_unit, &mut units, servers).await
}

/// The same with phases of the caller's.
///
/// # Errors
/// As [`run`], and what the phases fail with.
pub async fn measure(
    load: &Load,
    records_per_unit: u64,
    phases: &mut impl Phases,
    servers: &mut Servers,
) -> Outcome<Measured> {
    phases.closed(WARM_UP).await?;
    let disk_syncs_per_s = Some(crate::disk::syncs_per_s(servers.root())?);
    let (cpu_before, begun) = (servers.cpu_seconds()?, Instant::now());
    let mut tally = phases.closed(load.duration).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), servers.cpu_seconds()? - cpu_before);
    let units = tally.done;
    if units == 0 {
        return Err(format!("nothing was acknowledged: {}", tally.first_error.unwrap_or_default()).into());
    }
    if load.flight != Flight::One {
        let mut half = phases.open(units as f64 / seconds / 2.0, load.duration).await?;
        half.errors += tally.errors;
        half.first_error = tally.first_error.or(half.first_error);
        tally = half;
    }
    if let (errors, Some(error)) = tally.errors() {
        eprintln!("  {errors} units failed, the first: {error}");
    }
    let records = (units * records_per_unit) as f64;
    Ok(Measured {
        per_s: records / seconds,
        p50_ms: tally.millis(0.5),
        p99_ms: tally.millis(0.99),
        cpu_s_per_million: cpu / (records / 1e6),
        rss_mib: servers.rss_mib()?,
        errors: tally.errors * records_per_unit,
        disk_syncs_per_s,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    /// A server in virtual time: answers after 10 ms, but nobody during a stall.
    #[derive(Clone, Default)]
    struct Fake {
        stall: Option<(Instant, Instant)>,
        fails_every: Option<u64>,
        silent: bool,
        open: Arc<AtomicUsize>,
        most_open: Arc<AtomicUsize>,
        numbers: Arc<Mutex<Vec<u64>>>,
    }

    impl Target for Fake {
        async fn send(&self, number: u64) -> Outcome<()> {
            let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_open.fetch_max(open, Ordering::Relaxed);
            self.numbers.lock().unwrap().push(number);
            if self.silent {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_millis(10)).await;
            if let Some((from, to)) = self.stall
                && (from..to).contains(&Instant::now())
            {
                sleep_until(to).await;
            }
            self.open.fetch_sub(1, Ordering::Relaxed);
            match self.fails_every {
                Some(every) if number.is_multiple_of(every) => Err("refused".into()),
                _ => Ok(()),
            }
        }
    }

    fn distinct(fake: &Fake) -> usize {
        let numbers = fake.numbers.lock().unwrap();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "a unit was sent twice");
        distinct.len()
    }

    /// The closed loop keeps exactly as many units open as asked, also when workers can't share evenly,
    /// and waits for all of them.
    #[tokio::test(start_paused = true)]
    async fn closed_loop_keeps_its_window() {
        for in_flight in [1, 3, 10] {
            let fake = Fake::default();
            let tally = closed_loop(&fake, in_flight, Duration::from_secs(1)).await.unwrap();
            assert_eq!(fake.most_open.load(Ordering::Relaxed), in_flight);
            assert_eq!(fake.open.load(Ordering::Relaxed), 0);
            assert_eq!(tally.done as usize, distinct(&fake));
            // 100 turns of 10 ms, give or take the timer's millisecond.
            assert!((90 * in_flight..=100 * in_flight).contains(&(tally.done as usize)), "{}", tally.done);
            assert_eq!(tally.errors, 0);
        }
    }

    /// A stall of half of the time shows in the open loop's percentiles as it does to those who wait,
    /// though few units were answered late: latency counts from the intended time.
    #[tokio::test(start_paused = true)]
    async fn open_loop_counts_from_the_intended_time() {
        let begun = Instant::now();
        let stall = (begun + Duration::from_millis(500), begun + Duration::from_millis(1000));
        let fake = Fake { stall: Some(stall), ..Fake::default() };
        let tally = open_loop(&fake, 200.0, Duration::from_secs(1)).await.unwrap();
        assert_eq!((tally.done, tally.errors, distinct(&fake)), (200, 0, 200));
        let at = |quantile| tally.latencies.value_at_quantile(quantile) / 1000;
        assert!((10..=12).contains(&at(0.4)), "{}", at(0.4));
        // Half of the units meet the stall, and wait for 250 ms on average.
        assert!((230..=270).contains(&at(0.75)), "{}", at(0.75));
        assert!((490..=510).contains(&at(0.995)), "{}", at(0.995));
    }

    /// Failed units are counted, their reason is kept, and their latency is not.
    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_apart() {
        let fake = Fake { fails_every: Some(4), ..Fake::default() };
        let tally = open_loop(&fake, 100.0, Duration::from_secs(1)).await.unwrap();
        assert_eq!((tally.done, tally.errors), (75, 25));
        assert_eq!(tally.latencies.len(), 75);
        assert_eq!(tally.first_error.as_deref(), Some("refused"));
    }

    /// A server that never answers ends both loops, with every unit an error.
    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let silent = Fake { silent: true, ..Fake::default() };
        let tally = closed_loop(&silent, 10, Duration::from_secs(1)).await.unwrap();
        assert_eq!((tally.done, tally.errors), (0, 10));
        let tally = open_loop(&silent, 100.0, Duration::from_secs(1)).await.unwrap();
        assert_eq!((tally.done, tally.errors), (0, 100));
        assert_eq!(tally.first_error.as_deref(), Some("no answer within 30 s"));
    }
}
