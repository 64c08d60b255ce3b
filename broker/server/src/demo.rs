//! `fleetline demo`: a node, a real recording of flights as its devices, two functions, a live page.
//!
//! ```text
//! prepare: recording ─► node ─► devices (bulk requests) ─► functions (management API)
//! run:     replay (MQTT over TLS, a connection per aircraft) ─► hub ─► functions ─► page, twins
//!          seen (stream, metrics) ─► a line that is always of now
//! end:     stop sending ─► wait for acknowledgements ─► keep the place ─► shut down the node
//! ```
//!
//! Everything but the node itself is done from outside, over the interfaces that everybody has: the service
//! API with a policy's token, MQTT with each device's own key, the client protocol. A second run goes on with
//! the data: devices, twins, versions of apps and the place in the recording are kept.

mod apps;
mod clock;
mod ground;
mod identities;
mod mqtt;
mod ports;
mod recording;
mod replay;
mod seen;
mod show;
mod start;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use fleetline_cli::{CliError, ContextArgs, HubArgs, Rest, console_addresses};
use fleetline_client::{Client, ClientOptions};
use fleetline_telemetry::{LogFormat, Metrics, init_logs};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use clock::{Clock, Moment};
use ground::Ground;
use recording::Recording;
use replay::{Counters, Replay, View};
use seen::{Counts, Seen};
use show::{Line, Step, many, say, time_of_day};

/// How long the page's address signs in; a day is the most that a console takes.
const SIGNED_IN: Duration = Duration::from_secs(12 * 3600);
/// How often the place in the recording is kept: a demo that is killed begins so far back.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// How often metrics are read: rendering all of them takes a millisecond or two.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The exit code of a process that was interrupted.
const AT_ONCE: i32 = 130;

/// What the demo does.
#[derive(Args, Debug)]
#[command(after_help = "`make run` gets and builds what it needs, and starts it. Examples:
  fleetline demo --speed 10
  fleetline demo --data ./demo-data --seconds 60
  fleetline demo --app ./my-functions
      Runs your own function app on the flights, beside the two that are there.

While it runs, in another terminal:
  fleetline device list
  fleetline device twin 4b1619
  fleetline device monitor
  fleetline functions status
  fleetline device update 4b1619 --disable      Its connection ends at once.")]
pub struct DemoArgs {
    /// The data folder; a second run goes on with its data.
    #[arg(long, value_name = "DIR", default_value = "./fleetline-data")]
    data: PathBuf,
    /// So many times as fast as the flights were: 0.1 to 600.
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = speed)]
    speed: f64,
    /// End after so many seconds instead of at Ctrl-C.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// End with the recording instead of beginning anew.
    #[arg(long)]
    once: bool,
    /// The recording, as examples/flights/fetch.py writes it.
    #[arg(long, value_name = "FILE", default_value = "target/demo/flights.csv")]
    flights: PathBuf,
    /// What Python functions need, as broker/workers/setup.sh makes it.
    #[arg(long, value_name = "DIR", default_value = "target/workers")]
    workers: PathBuf,
    /// Function apps to deploy besides those of the example; may be given again.
    #[arg(long, value_name = "FOLDER")]
    app: Vec<PathBuf>,
    /// Where HTTPS is served. Without it, 127.0.0.1:8443 or the next free port.
    #[arg(long, value_name = "ADDR:PORT")]
    https: Option<SocketAddr>,
    /// Where HTTP is served without TLS, for a browser here. Without it, 127.0.0.1:8088 or the next free port.
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Open no browser.
    #[arg(long)]
    no_browser: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    (0.1..=600.0).contains(&speed).then_some(speed).ok_or_else(|| "use 0.1 to 600".to_owned())
}

pub(crate) fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

/// Runs the demo until Ctrl-C.
pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    init_logs("error,openraft=error", LogFormat::Text).map_err(failed)?;
    let metrics = Metrics::install().map_err(failed)?;
    say(&format!("fleetline demo: flights over Switzerland, {} times as fast as they were\n", args.speed));
    let recording = Arc::new(read_recording(&args)?);
    apps::check(&args.app)?;
    let stop = Stop::on_signals()?;
    let mut started = start::node(&args, metrics.clone()).await?;
    let outcome = with_node(&args, &recording, &metrics, &mut started, stop).await;
    say("  stopping the node");
    started.node.shutdown().await;
    if let Some(summary) = outcome? {
        say(&summary);
    }
    say(&format!("the data stays in {}; run it again to go on", args.data.display()));
    Ok(())
}

/// Whether somebody has asked for the end.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Ctrl-C or SIGTERM asks; the second time the process ends at once, which costs no data.
    fn on_signals() -> Result<Stop, CliError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let (asked, stop) = watch::channel(false);
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                if !is_first {
                    std::process::exit(AT_ONCE);
                }
                asked.send_replace(true);
            }
        });
        Ok(Stop(stop))
    }

    async fn asked(&mut self) {
        drop(self.0.wait_for(|asked| *asked).await);
    }
}

fn read_recording(args: &DemoArgs) -> Result<Recording, CliError> {
    let step = Step::begin("recording");
    let recording = Recording::read(&args.flights)?;
    let hours = (recording.end - recording.begin) as f64 / 3_600_000.0;
    step.done(&format!(
        "{} flights of {} aircraft in {hours:.0} hours, {} at once at the most",
        recording.flights.len(),
        recording.devices().len(),
        recording.flights_at_once()
    ));
    Ok(recording)
}

/// All that needs the node. Gives the summary; none when the end was asked for before anybody flew.
async fn with_node(
    args: &DemoArgs,
    recording: &Arc<Recording>,
    metrics: &Metrics,
    started: &mut start::Started,
    mut stop: Stop,
) -> Result<Option<String>, CliError> {
    let prepared = tokio::select! {
        prepared = prepare(args, recording, started) => Some(prepared?),
        () = stop.asked() => None,
    };
    match prepared {
        Some((ground, client)) => {
            let flown = fly(args, recording, metrics, ground, &client, stop);
            tokio::select! {
                summary = flown => summary.map(Some),
                error = started.node.wait() => Err(failed(error)),
            }
        }
        None => Ok(None),
    }
}

/// Devices and functions, and how to reach the hub as aircraft and as a client.
async fn prepare(
    args: &DemoArgs,
    recording: &Recording,
    started: &start::Started,
) -> Result<(Ground<ground::Tls>, Client), CliError> {
    let context = ContextArgs { context: args.data.join("client") };
    let at = |https: String| HubArgs { https: Some(https), ..HubArgs::default() };
    let mut rest = Rest::new(at(started.https.to_string()).find(&context)?);
    let step = Step::begin("devices");
    let devices = recording.devices();
    let keys = identities::ensure(&mut rest, &devices, |done| step.count(done, devices.len())).await?;
    step.done(&format!("{} aircraft are in the registry, each with a key of its own", keys.len()));
    apps::deploy(&mut rest, &args.app).await?;
    // By the name that the certificate has.
    let addresses = console_addresses(&context, &at(format!(":{}", started.https.port())), SIGNED_IN)?;
    introduce(args, &addresses, &context);
    let client = ClientOptions::from_context(&context.context).map_err(failed)?;
    let client = Client::connect(client).await?;
    let dial = ground::Tls::new(rest.hub(), started.mqtt);
    Ok((Ground { hub: rest.hub().name.clone(), keys, dial }, client))
}

/// Says where the page is, and opens it where there is somebody to see it.
fn introduce(args: &DemoArgs, addresses: &fleetline_cli::ConsoleAddresses, context: &ContextArgs) {
    // Other commands are given from elsewhere.
    let folder = std::path::absolute(&context.context).unwrap_or_else(|_| context.context.clone());
    let first = addresses.plain.as_ref().unwrap_or(&addresses.https);
    say("\nthe live page, signed in:\n");
    say(&format!("  {first}\n"));
    if addresses.plain.is_some() {
        say(&format!("  over TLS: {}", addresses.https));
    }
    say(&format!(
        "  (browsers warn of its certificate until they trust {})",
        folder.join("hub-authority.pem").display()
    ));
    say(&format!(
        "  other commands find this hub by: export FLEETLINE_CONTEXT={}\n",
        context.context.display()
    ));
    if !args.no_browser && std::env::var_os("DISPLAY").is_some_and(|display| !display.is_empty()) {
        let quiet = std::process::Stdio::null;
        // Where there is none, the address is printed.
        drop(
            std::process::Command::new("xdg-open")
                .arg(first)
                .stdin(quiet())
                .stdout(quiet())
                .stderr(quiet())
                .spawn(),
        );
    }
}

/// Replays until it is told to stop. Gives the summary.
async fn fly(
    args: &DemoArgs,
    recording: &Arc<Recording>,
    metrics: &Metrics,
    ground: Ground<ground::Tls>,
    client: &Client,
    mut stop: Stop,
) -> Result<String, CliError> {
    let begun = clock::load(&args.data);
    let clock = Clock::new(recording, args.speed, begun);
    if begun.is_some() {
        say(&format!("going on at {} of the recording; Ctrl-C ends\n", time_of_day(clock.now().place)));
    } else {
        say("the recording begins; Ctrl-C ends\n");
    }
    let (counters, seen) = (Arc::new(Counters::default()), Seen::default());
    let first_round = clock.now().round;
    let replay = Replay::new(recording.clone(), Arc::new(ground), clock, args.speed, counters.clone());
    let view = replay.view();
    let started = Instant::now();
    let (end, mut ended) = watch::channel(false);
    let stopping = async { drop(ended.wait_for(|ended| *ended).await) };
    let until = async {
        tokio::select! {
            () = stop.asked() => {}
            () = sleep(Duration::from_secs(args.seconds.unwrap_or(u64::from(u32::MAX)))) => {}
            () = end_of_round(view.clone(), first_round), if args.once => {}
            () = show(view.clone(), &counters, &seen, metrics) => {}
            () = seen.follow(client) => {}
            () = keep(view.clone(), args) => {}
        }
        end.send_replace(true);
    };
    let (moment, ()) = tokio::join!(replay.run(stopping), until);
    if let Err(error) = clock::save(&args.data, moment) {
        eprintln!("the place in the recording could not be kept: {error}");
    }
    let counts = Counts::read(metrics);
    let (sent, alarms) = (counters.acknowledged.load(Ordering::Relaxed), seen.alarms.load(Ordering::Relaxed));
    Ok(format!(
        "\n{sent} messages in {} s, each acknowledged once it was on disk; {} of aircraft; {} of functions ({} failed); \
         {}",
        started.elapsed().as_secs(),
        many(counters.connects.load(Ordering::Relaxed), "connection"),
        many(counts.invocations, "call"),
        counts.failures,
        many(alarms, "alarm"),
    ))
}

/// Ends when the recording has ended.
async fn end_of_round(mut view: watch::Receiver<View>, round: u64) {
    drop(view.wait_for(|view| view.moment.round > round).await);
}

/// Keeps the place in the recording, for a demo that is killed.
async fn keep(view: watch::Receiver<View>, args: &DemoArgs) {
    let mut ticks = interval(KEEP_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let moment: Moment = view.borrow().moment;
        if let Err(error) = clock::save(&args.data, moment) {
            tracing::warn!(%error, "the place in the recording could not be kept");
        }
    }
}

/// Writes the line.
async fn show(view: watch::Receiver<View>, counters: &Counters, seen: &Seen, metrics: &Metrics) {
    let line = Line::new();
    let mut ticks = interval(line.every());
    let (mut counts, mut counted) = (Counts::read(metrics), Instant::now());
    let (mut before, mut rate, mut last) = (0u64, 0.0, Instant::now());
    loop {
        ticks.tick().await;
        if counted.elapsed() >= COUNT_EVERY {
            (counts, counted) = (Counts::read(metrics), Instant::now());
        }
        let sent = counters.acknowledged.load(Ordering::Relaxed);
        let passed = last.elapsed().as_secs_f64();
        if passed > 0.0 {
            let now = (sent - before) as f64 / passed;
            // Over a second or so: rows come in bursts.
            let weight = (passed / 1.5).min(1.0);
            rate = if before == 0 { now } else { rate * (1.0 - weight) + now * weight };
            (before, last) = (sent, Instant::now());
        }
        line.write(text(&view.borrow(), rate, counts, counters, seen));
    }
}

fn text(view: &View, rate: f64, counts: Counts, counters: &Counters, seen: &Seen) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = format!(
        "{}  {} in flight  {rate:.0} msg/s  {}  {}  {}",
        time_of_day(view.moment.place),
        view.in_air,
        many(counts.invocations, "call"),
        many(load(&seen.alarms), "alarm"),
        many(counts.pages, "page"),
    );
    if counts.failures > 0 {
        text += &format!("  {} failed", many(counts.failures, "call"));
    }
    if view.lag >= Duration::from_millis(500) {
        let waits = if view.waits { ", the recording waits" } else { "" };
        text += &format!("  hub is {:.1} s behind{waits}", view.lag.as_secs_f64());
    }
    if load(&counters.refused) > 0 {
        text += &format!("  {} refused", many(load(&counters.refused), "flight"));
    }
    if let Some(error) = counters.last_error() {
        text += &format!("  ({error})");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Tool {
        #[command(flatten)]
        args: DemoArgs,
    }

    #[test]
    fn speeds() {
        let of = |text: &str| Tool::try_parse_from(["demo", "--speed", text]).map(|tool| tool.args.speed);
        assert_eq!((of("1").unwrap(), of("0.5").unwrap()), (1.0, 0.5));
        for text in ["0", "-1", "601", "fast", "nan"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    /// The line says what goes on, and what is wrong only when something is.
    #[test]
    fn lines() {
        let moment = Moment { round: 0, place: 1_533_099_600_000 };
        let mut view = View { moment, in_air: 7, ..View::default() };
        let (counters, seen) = (Counters::default(), Seen::default());
        let counts = Counts { invocations: 1, failures: 0, pages: 2 };
        let of = |view: &View, counts| text(view, 41.7, counts, &counters, &seen);
        assert_eq!(of(&view, counts), "05:00:00  7 in flight  42 msg/s  1 call  0 alarms  2 pages");
        (view.lag, view.waits) = (Duration::from_millis(2100), true);
        let shown = of(&view, Counts { failures: 3, ..counts });
        assert!(shown.ends_with("  3 calls failed  hub is 2.1 s behind, the recording waits"), "{shown}");
    }
}
