//! The replay against a hub in memory that keeps what it is sent. Time is paused: it moves when nobody has
//! anything to do, so each message is answered between two ticks.

use std::collections::BTreeSet;

use fleetline_iothub::sas::SasKey;
use fleetline_mqtt::{Limits, Packet, Version, decode, encode, frame_len};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::super::recording::recorded;
use super::*;

/// What the hub was sent: over which connection, by whom, and the row's second (0: the connection began).
type Sent = (usize, String, u64);

/// How the hub behaves.
#[derive(Clone)]
struct FakeHub {
    sent: mpsc::UnboundedSender<Sent>,
    /// Whether it acknowledges.
    answers: watch::Sender<bool>,
    /// Devices that it doesn't let in.
    refused: BTreeSet<&'static str>,
    /// It ends the connection of this row's first message, without an answer.
    breaks_at: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Dial for FakeHub {
    type Stream = DuplexStream;

    async fn dial(&self) -> std::io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let number = self.connections.fetch_add(1, Ordering::Relaxed) as usize;
        tokio::spawn(self.clone().serve(theirs, number));
        Ok(ours)
    }
}

impl FakeHub {
    fn new() -> (FakeHub, mpsc::UnboundedReceiver<Sent>) {
        let (sent, seen) = mpsc::unbounded_channel();
        let hub = FakeHub {
            sent,
            answers: watch::Sender::new(true),
            refused: BTreeSet::new(),
            breaks_at: Arc::default(),
            connections: Arc::default(),
        };
        (hub, seen)
    }

    async fn serve(self, mut stream: DuplexStream, number: usize) {
        let (mut input, mut device, mut version) = (Vec::new(), String::new(), None);
        while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
            while let Some(length) =
                frame_len(&input, &Limits::default()).unwrap().filter(|it| *it <= input.len())
            {
                let packet: Vec<u8> = input.drain(..length).collect();
                match decode(&packet, version, &Limits::default()).unwrap() {
                    Packet::Connect(connect) => {
                        (device, version) = (connect.client_id.to_owned(), Some(Version::V311));
                        let code = if self.refused.contains(&*device) { 5 } else { 0 };
                        stream.write_all(&[0x20, 2, 0, code]).await.unwrap();
                        self.sent.send((number, device.clone(), 0)).unwrap();
                    }
                    Packet::Publish(publish) => {
                        let body: serde_json::Value = serde_json::from_slice(publish.payload).unwrap();
                        let second = body["timestamp"].as_u64().unwrap() / 1000;
                        self.sent.send((number, device.clone(), second)).unwrap();
                        let breaks =
                            self.breaks_at.compare_exchange(second, 0, Ordering::SeqCst, Ordering::SeqCst);
                        if breaks.is_ok() {
                            return;
                        }
                        self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
                        let mut out = Vec::new();
                        encode::puback(&mut out, Version::V311, publish.packet_id.unwrap(), 0);
                        stream.write_all(&out).await.unwrap();
                    }
                    Packet::Disconnect { .. } => return,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

const SPEED: f64 = 100.0;

/// A replay of these flights that begins at `second`.
fn replay(recording: Recording, hub: FakeHub, second: u64) -> (Replay<FakeHub>, Arc<Counters>) {
    let key = SasKey::from_base64("a2V5").unwrap();
    let keys = recording.devices().into_iter().map(|device| (device.to_owned(), key.clone())).collect();
    let clock = Clock::new(&recording, SPEED, Some(Moment { round: 0, place: second * 1000 }));
    let ground = Arc::new(Ground { hub: "h".to_owned(), keys, dial: hub });
    let counters = Arc::new(Counters::default());
    (Replay::new(Arc::new(recording), ground, clock, SPEED, counters.clone()), counters)
}

/// Runs until everybody has landed behind this second.
async fn fly(replay: Replay<FakeHub>, until: u64) -> Moment {
    let mut view = replay.view();
    let landed = |view: &View| view.in_air == 0 && view.moment.place > until * 1000;
    replay.run(async { drop(view.wait_for(landed).await.unwrap()) }).await
}

fn all(mut seen: mpsc::UnboundedReceiver<Sent>) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Ok(sent) = seen.try_recv() {
        all.push(sent);
    }
    all
}

fn of(sent: &[Sent], device: &str) -> Vec<(usize, u64)> {
    sent.iter().filter(|(_, by, _)| by == device).map(|(number, _, second)| (*number, *second)).collect()
}

/// Each flight is a connection, with all its rows in order; a second flight of an aircraft is another one.
#[tokio::test(start_paused = true)]
async fn rows_in_order() {
    let (hub, seen) = FakeHub::new();
    let recording = recorded(&[("a", "x", &[10, 20, 30]), ("b", "y", &[15, 25]), ("a", "z", &[40, 50])]);
    let (replay, counters) = replay(recording, hub, 10);
    fly(replay, 50).await;
    let sent = all(seen);
    assert_eq!(of(&sent, "a"), [(0, 0), (0, 10), (0, 20), (0, 30), (2, 0), (2, 40), (2, 50)]);
    assert_eq!(of(&sent, "b"), [(1, 0), (1, 15), (1, 25)]);
    assert_eq!(counters.acknowledged.load(Ordering::Relaxed), 7);
    assert_eq!((counters.breaks.load(Ordering::Relaxed), counters.last_error()), (0, None));
}

/// When the recording begins on the way, who flies then sends what is still to come.
#[tokio::test(start_paused = true)]
async fn joins_on_the_way() {
    let (hub, seen) = FakeHub::new();
    let recording = recorded(&[("a", "x", &[10, 20, 30]), ("b", "y", &[10, 11]), ("c", "z", &[25])]);
    let (replay, _) = replay(recording, hub, 20);
    fly(replay, 30).await;
    let sent = all(seen);
    assert_eq!(of(&sent, "a"), [(0, 0), (0, 20), (0, 30)]);
    assert_eq!(of(&sent, "b"), []);
    assert_eq!(of(&sent, "c").len(), 2);
}

/// A hub that doesn't answer is waited for: the recording stops, one message is open, and all come later.
#[tokio::test(start_paused = true)]
async fn waits_for_a_slow_hub() {
    let (hub, seen) = FakeHub::new();
    let answers = hub.answers.clone();
    let seconds: Vec<u64> = (0..100).map(|step| 1000 + step * 10).collect();
    let (replay, counters) = replay(recorded(&[("a", "x", &seconds)]), hub, 1000);
    let mut view = replay.view();
    answers.send_replace(false);
    let slow = async {
        let stopped = *view.wait_for(|view| view.waits).await.unwrap();
        assert!(stopped.lag >= super::super::clock::LAG_MAX, "{stopped:?}");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(view.borrow().moment, stopped.moment);
        assert_eq!(counters.acknowledged.load(Ordering::Relaxed), 0);
        answers.send_replace(true);
    };
    let (_, ()) = tokio::join!(fly(replay, 1990), slow);
    let expected: Vec<(usize, u64)> =
        std::iter::once((0, 0)).chain(seconds.iter().map(|at| (0, *at))).collect();
    assert_eq!(of(&all(seen), "a"), expected);
}

/// A row whose connection ends before the answer is sent again, over another one.
#[tokio::test(start_paused = true)]
async fn sends_again() {
    let (hub, seen) = FakeHub::new();
    hub.breaks_at.store(20, Ordering::SeqCst);
    let (replay, counters) = replay(recorded(&[("a", "x", &[10, 20, 30])]), hub, 10);
    fly(replay, 30).await;
    assert_eq!(of(&all(seen), "a"), [(0, 0), (0, 10), (0, 20), (1, 0), (1, 20), (1, 30)]);
    assert_eq!(counters.acknowledged.load(Ordering::Relaxed), 3);
    assert_eq!(counters.breaks.load(Ordering::Relaxed), 1);
    assert!(counters.last_error().unwrap().starts_with("a: the connection ended"));
}

/// A device that the hub doesn't let in stays on the ground; the others don't wait for it.
#[tokio::test(start_paused = true)]
async fn refused_devices() {
    let (mut hub, seen) = FakeHub::new();
    hub.refused.insert("a");
    let (replay, counters) = replay(recorded(&[("a", "x", &[10, 200]), ("b", "x", &[10, 20])]), hub, 10);
    fly(replay, 200).await;
    let sent = all(seen);
    assert_eq!((of(&sent, "a").len(), of(&sent, "b").len()), (1, 3));
    assert_eq!(counters.refused.load(Ordering::Relaxed), 1);
    assert!(counters.last_error().unwrap().contains("refused the device (code 5)"));
}

/// At the end what was sent is waited for, and nothing new is sent.
#[tokio::test(start_paused = true)]
async fn ends_with_what_was_sent() {
    let (hub, mut seen) = FakeHub::new();
    let answers = hub.answers.clone();
    let (replay, counters) = replay(recorded(&[("a", "x", &[10, 20, 1000])]), hub, 10);
    answers.send_replace(false);
    let second = async {
        assert_eq!(seen.recv().await.map(|sent| sent.2), Some(0));
        assert_eq!(seen.recv().await.map(|sent| sent.2), Some(10));
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(replay.run(async { drop(stopped.await) }));
    second.await;
    stop.send(()).unwrap();
    // Longer than a tick, shorter than what is waited for.
    sleep(TICK * 4).await;
    assert!(!running.is_finished());
    answers.send_replace(true);
    let moment = running.await.unwrap();
    assert_eq!((moment.round, moment.place / 10_000), (0, 1));
    assert_eq!(counters.acknowledged.load(Ordering::Relaxed), 1);
}

/// The topic carries what the body is.
#[test]
fn topics() {
    assert_eq!(topic("4b1619"), "devices/4b1619/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8");
}
