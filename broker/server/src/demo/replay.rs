//! The replay: a connection per aircraft in flight, a message per row, in the recording's time.
//!
//! ```text
//! ticks ─► Clock ─► watch of the moment ─► one task a flight: log in, wait until a row is due, publish,
//!   ▲                                       wait for the acknowledgement; after the last row say goodbye
//!   └── lag: the oldest row that is due and not acknowledged
//! ```
//!
//! Invariants:
//! 1. Nothing queues: a flight sends its next row after the acknowledgement of the one before, and the
//!    recording waits when one is too far behind (`clock`).
//! 2. A row is sent again until it is acknowledged, unless the hub refuses the device.
//! 3. An aircraft has one connection: its next flight begins when the one before has ended.
//! 4. At the end what was sent is acknowledged: dropping the moment's sender ends flights between two rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetline_iothub::bag::{self, SystemProperty};
use fleetline_iothub::sas::generate_token;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::clock::{Clock, Moment};
use super::ground::{Dial, Ground};
use super::mqtt::{Login, MqttError, Session};
use super::recording::{Flight, Recording};

/// How finely the recording's time moves.
const TICK: Duration = Duration::from_millis(50);
/// Connections at the same time: bounds what a recording of a whole continent would open here.
const FLIGHTS_MAX: usize = 2000;
/// The first and the longest wait before an aircraft connects again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a connection may take.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// How long a token is valid; one is made for each connection.
const TOKEN_VALID: Duration = Duration::from_secs(3600);
/// How long it is shown that something went wrong.
const ERROR_SHOWN: Duration = Duration::from_secs(30);
/// How long flights get at the end for what they have sent.
const LAND_MAX: Duration = Duration::from_secs(10);

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Messages that the hub has for good.
    pub(super) acknowledged: AtomicU64,
    /// Connections that were accepted.
    pub(super) connects: AtomicU64,
    /// Connections that ended before their flight did.
    pub(super) breaks: AtomicU64,
    /// Flights that the hub refused.
    pub(super) refused: AtomicU64,
    /// What went wrong last, and when.
    last_error: Mutex<Option<(Instant, String)>>,
}

impl Counters {
    fn note(&self, device: &str, error: &MqttError) {
        let text = format!("{device}: {error}");
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
    }

    /// What went wrong lately.
    pub(super) fn last_error(&self) -> Option<String> {
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < ERROR_SHOWN).map(|(_, text)| text.clone())
    }
}

/// The replay as it is seen from outside, after each tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    /// The recording's time.
    pub(super) moment: Moment,
    /// Aircraft in flight.
    pub(super) in_air: usize,
    /// How far the hub is behind.
    pub(super) lag: Duration,
    /// Whether the recording waits for it.
    pub(super) waits: bool,
}

/// A replay that runs.
pub(super) struct Replay<D> {
    recording: Arc<Recording>,
    ground: Arc<Ground<D>>,
    counters: Arc<Counters>,
    clock: Clock,
    speed: f64,
    moment: watch::Sender<Moment>,
    /// By device: the time of the next row that isn't acknowledged.
    in_air: BTreeMap<String, Arc<AtomicU64>>,
    tasks: JoinSet<String>,
    /// The next flight that begins, in the order of the recording.
    next: usize,
    view: watch::Sender<View>,
}

impl<D: Dial> Replay<D> {
    /// Goes on at the clock's moment: who flies then joins in on the way.
    pub(super) fn new(
        recording: Arc<Recording>,
        ground: Arc<Ground<D>>,
        clock: Clock,
        speed: f64,
        counters: Arc<Counters>,
    ) -> Replay<D> {
        let now = clock.now();
        let view = View { moment: now, ..View::default() };
        let mut replay = Replay {
            recording: recording.clone(),
            ground,
            counters,
            clock,
            speed,
            moment: watch::Sender::new(now),
            in_air: BTreeMap::new(),
            tasks: JoinSet::new(),
            next: recording.flights.partition_point(|flight| flight.begin() < now.place),
            view: watch::Sender::new(view),
        };
        for (index, flight) in recording.flights.iter().enumerate().take(replay.next) {
            if flight.end() >= now.place && !replay.in_air.contains_key(&flight.device) {
                replay.begin(index, now.place);
            }
        }
        replay
    }

    /// The replay as it is now, and its changes.
    pub(super) fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Flies until `stop`; then waits for what was sent. Gives the moment at which it ended.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Moment {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(TICK);
        // A node that keeps the processor for a second is no reason to send a second's rows at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = &mut stop => break,
                now = ticks.tick() => {
                    // The interval's time, as the steps of a paused clock in tests.
                    let passed = now.saturating_duration_since(last).min(TICK * 4);
                    last = now;
                    self.tick(passed);
                }
            }
        }
        self.land().await
    }

    fn tick(&mut self, passed: Duration) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended);
        }
        let lag = self.lag();
        let waits = self.clock.advance(passed, lag, self.in_air.is_empty());
        let now = self.clock.now();
        if now.round != self.moment.borrow().round {
            self.next = 0;
        }
        self.moment.send_replace(now);
        while let Some(flight) = self.recording.flights.get(self.next)
            && flight.begin() <= now.place
            && !self.in_air.contains_key(&flight.device)
            && self.in_air.len() < FLIGHTS_MAX
        {
            self.begin(self.next, 0);
            self.next += 1;
        }
        self.view.send_replace(View { moment: now, in_air: self.in_air.len(), lag, waits });
    }

    /// How long the oldest row has been due.
    fn lag(&self) -> Duration {
        let unsent = self.recording.flights.get(self.next).map(Flight::begin);
        let open = self.in_air.values().map(|at| at.load(Ordering::Relaxed)).chain(unsent).min();
        let behind = open.map_or(0, |at| self.clock.now().place.saturating_sub(at));
        Duration::from_secs_f64(behind as f64 / 1000.0 / self.speed)
    }

    /// Begins a flight, with its first row that isn't before `from`.
    fn begin(&mut self, index: usize, from: u64) {
        let Some(flight) = self.recording.flights.get(index) else { return };
        let first = flight.points.partition_point(|point| point.at < from);
        let open = Arc::new(AtomicU64::new(flight.points.get(first).map_or(u64::MAX, |point| point.at)));
        self.in_air.insert(flight.device.clone(), open.clone());
        let (recording, ground, counters) =
            (self.recording.clone(), self.ground.clone(), self.counters.clone());
        let (round, moment) = (self.clock.now().round, self.moment.subscribe());
        self.tasks.spawn(async move {
            let flight = &recording.flights[index];
            let mut pilot = Pilot {
                flight,
                ground: ground.as_ref(),
                counters: &counters,
                round,
                moment,
                next: first,
                open,
            };
            pilot.fly().await;
            flight.device.clone()
        });
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(device) => drop(self.in_air.remove(&device)),
            Err(error) => tracing::error!(%error, "a flight ended by itself"),
        }
    }

    /// Lets every flight finish what it has sent.
    async fn land(mut self) -> Moment {
        let now = self.clock.now();
        drop(self.moment);
        let landed = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(LAND_MAX, landed).await.is_err() {
            tracing::warn!("some messages were not acknowledged in time");
        }
        self.tasks.shutdown().await;
        now
    }
}

/// One flight.
struct Pilot<'a, D> {
    flight: &'a Flight,
    ground: &'a Ground<D>,
    counters: &'a Counters,
    round: u64,
    moment: watch::Receiver<Moment>,
    /// The next row.
    next: usize,
    /// Its time.
    open: Arc<AtomicU64>,
}

/// Why a flight ends.
struct Over;

impl<D: Dial> Pilot<'_, D> {
    async fn fly(&mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let before = self.next;
            match self.connected().await {
                Ok(()) => return,
                Err(error @ (MqttError::Refused(_) | MqttError::NoKey)) => {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    return self.counters.note(&self.flight.device, &error);
                }
                Err(error) => {
                    self.counters.breaks.fetch_add(1, Ordering::Relaxed);
                    self.counters.note(&self.flight.device, &error);
                }
            }
            wait = if self.next > before { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.moment.wait_for(|_| false) => return,
            }
        }
    }

    /// One connection: from the login to the last row, or to the end of the replay.
    async fn connected(&mut self) -> Result<(), MqttError> {
        let mut session = self.log_in().await?;
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        let topic = topic(&self.flight.device);
        while let Some(point) = self.flight.points.get(self.next) {
            let due = Moment { round: self.round, place: point.at };
            let waited = tokio::select! {
                moment = self.moment.wait_for(|now| *now >= due) => moment.map(drop).map_err(|_| Over),
                error = session.idle() => return Err(error),
            };
            if waited.is_err() {
                break;
            }
            session.publish(&topic, self.flight.body(point).to_string().as_bytes()).await?;
            self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.next += 1;
            let open = self.flight.points.get(self.next).map_or(u64::MAX, |point| point.at);
            self.open.store(open, Ordering::Relaxed);
        }
        session.close().await;
        Ok(())
    }

    async fn log_in(&self) -> Result<Session<D::Stream>, MqttError> {
        let (hub, device) = (&self.ground.hub, &self.flight.device);
        let Some(key) = self.ground.keys.get(device) else {
            return Err(MqttError::NoKey);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let token =
            generate_token(&format!("{hub}/devices/{device}"), key, (now + TOKEN_VALID).as_secs(), None);
        let stream = timeout(DIAL_MAX, self.ground.dial.dial()).await.map_err(|_| MqttError::Silent)??;
        Session::open(stream, &Login { hub, device, token: &token }).await
    }
}

/// Where a device sends JSON to.
fn topic(device: &str) -> String {
    let mut topic = format!("devices/{device}/messages/events/");
    let properties =
        [(SystemProperty::ContentType, "application/json"), (SystemProperty::ContentEncoding, "utf-8")];
    bag::write(&mut topic, &properties, &[]);
    topic
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
