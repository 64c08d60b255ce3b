//! The live feed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetline_console::FeedScope;
use fleetline_console::limits::{POSITIONS_MAX, SAMPLE_MAX, TICK_BYTES_MAX};
use fleetline_types::PartitionId;
use serde_json::{Value, json};

use crate::world::World;

/// The next message to a target.
async fn next(world: &mut World, target: &str) -> Value {
    loop {
        let (found, arguments) = world.published.recv().await.unwrap();
        if found == target {
            assert_eq!(arguments.as_array().unwrap().len(), 1, "one argument each");
            return arguments[0].clone();
        }
    }
}

fn start(world: &World) -> tokio::task::JoinHandle<()> {
    world.live.watchers.store(1, Ordering::SeqCst);
    tokio::spawn(world.console.clone().run())
}

/// Nothing is read and nothing is said while nobody watches; then it begins, and ends again.
#[tokio::test(start_paused = true)]
async fn only_while_somebody_watches() {
    let mut world = World::new();
    world.hub.store(PartitionId(0), &[("plane", br#"{"lat":46,"lon":6}"#)]);
    let feed = tokio::spawn(world.console.clone().run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.hub.reads.load(Ordering::SeqCst), 0);
    assert!(world.published.try_recv().is_err());
    world.live.watchers.store(2, Ordering::SeqCst);
    // What came a little before is shown at once, so that the page isn't empty.
    let positions = next(&mut world, "positions").await;
    assert_eq!(positions["rows"][0][0], "plane");
    assert_eq!(world.get("positions").await["rows"], positions["rows"]);
    world.live.watchers.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let reads = world.hub.reads.load(Ordering::SeqCst);
    while world.published.try_recv().is_ok() {}
    world.hub.store(PartitionId(0), &[("plane", br#"{"lat":47,"lon":6}"#)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.hub.reads.load(Ordering::SeqCst), reads);
    assert!(world.published.try_recv().is_err());
    feed.abort();
}

/// Rates are of what has come, over the time that it took; nothing is said twice.
#[tokio::test(start_paused = true)]
async fn rates_and_records() {
    let mut world = World::new();
    let feed = start(&world);
    let tick = next(&mut world, "tick").await;
    assert_eq!((&tick["in"], &tick["node"], &tick["connections"]), (&json!(0.0), &json!(1), &json!(9)));
    let row = &tick["partitions"][0];
    assert_eq!(*row, json!([0, 0, 0, 0, 1, 4, 3, 0]));
    for _ in 0..10 {
        world.hub.store(PartitionId(0), &[("plane", br#"{"lat":46,"lon":6}"#), ("meter", b"21.5")]);
    }
    let tick = next(&mut world, "tick").await;
    let seconds = tick["seconds"].as_f64().unwrap();
    assert!((tick["in"].as_f64().unwrap() * seconds - 20.0).abs() < 1e-6, "{tick}");
    assert!((tick["out"].as_f64().unwrap() * seconds - 5.0).abs() < 1e-6, "{tick}");
    assert!(tick["bytesIn"].as_f64().unwrap() > tick["in"].as_f64().unwrap() * 10.0, "{tick}");
    let records = next(&mut world, "records").await;
    let rows = records["rows"].as_array().unwrap();
    assert_eq!(rows.len(), SAMPLE_MAX);
    assert_eq!(
        (&rows[19]["device"], &rows[19]["text"], &rows[19]["offset"]),
        (&json!("meter"), &json!("21.5"), &json!(19))
    );
    let tick = next(&mut world, "tick").await;
    assert_eq!(tick["in"], 0.0);
    world.hub.store(PartitionId(1), &[("meter", b"22")]);
    assert_eq!(next(&mut world, "records").await["rows"].as_array().unwrap().len(), 1);
    feed.abort();
}

/// Of each device the last position counts; a tick has a bounded number of them.
#[tokio::test(start_paused = true)]
async fn positions() {
    let mut world = World::new();
    let feed = start(&world);
    next(&mut world, "tick").await;
    world.hub.store(
        PartitionId(0),
        &[
            ("plane", br#"{"latitude":46.0,"longitude":6.0,"heading":90}"#),
            ("plane", br#"{"latitude":46.5,"longitude":6.5,"heading":91,"callsign":"SWR1"}"#),
            ("meter", b"21.5"),
            ("plane", b"not a position"),
        ],
    );
    world.hub.store(PartitionId(0), &[("plane", br#"{"latitude":46.5,"longitude":6.5,"callsign":"SWR1"}"#)]);
    let rows = next(&mut world, "positions").await["rows"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!((&rows[0][0], &rows[0][1], &rows[0][7]), (&json!("plane"), &json!(46.5), &json!("SWR1")));
    let names: Vec<String> = (0..POSITIONS_MAX + 100).map(|number| format!("plane-{number}")).collect();
    let records: Vec<(&str, &[u8])> =
        names.iter().map(|name| (name.as_str(), &br#"{"lat":1,"lon":2}"#[..])).collect();
    world.hub.store(PartitionId(0), &records);
    assert_eq!(next(&mut world, "positions").await["rows"].as_array().unwrap().len(), POSITIONS_MAX);
    feed.abort();
}

/// More than can be looked at: it is counted all the same, the reading is bounded and stays near the end.
#[tokio::test(start_paused = true)]
async fn a_flood_is_counted_not_read() {
    let mut world = World::new();
    let feed = start(&world);
    next(&mut world, "tick").await;
    let body = vec![b'x'; 1000];
    let records = vec![("meter", &body[..]); 1000];
    for _ in 0..60 {
        world.hub.store(PartitionId(0), &records);
    }
    let before = world.hub.bytes_read.load(Ordering::SeqCst);
    let tick = next(&mut world, "tick").await;
    let came = tick["in"].as_f64().unwrap() * tick["seconds"].as_f64().unwrap();
    assert!((came - 60_000.0).abs() < 1e-6, "{came}");
    let read = world.hub.bytes_read.load(Ordering::SeqCst) - before;
    assert!(read <= 2 * TICK_BYTES_MAX, "{read}");
    let offset = next(&mut world, "records").await["rows"][0]["offset"].as_u64().unwrap();
    assert!(offset > 50_000, "{offset}");
    feed.abort();
}

/// A node that feeds what it leads says nothing of other partitions.
#[tokio::test(start_paused = true)]
async fn what_it_leads() {
    let mut world = World::with(5, FeedScope::Led, true);
    for number in 0..5 {
        world.hub.store(PartitionId(number), &[("plane", b"1")]);
    }
    let feed = start(&world);
    let tick = next(&mut world, "tick").await;
    let partitions: Vec<&Value> = tick["partitions"].as_array().unwrap().iter().map(|row| &row[0]).collect();
    // 4 is led by this node, and isn't held here in this test.
    assert_eq!(partitions, [0, 2]);
    feed.abort();
}

/// Partitions that flood take nothing away from the others for long.
#[tokio::test(start_paused = true)]
async fn every_partition_has_its_turn() {
    let mut world = World::with(65, FeedScope::Held, true);
    let feed = start(&world);
    next(&mut world, "tick").await;
    world.hub.store(PartitionId(63), &[("quiet", b"1")]);
    // Each tick brings more than a tick may read, all of it in partitions that come before.
    let large = vec![b'x'; 200_000];
    let mut seen = false;
    for _ in 0..20 {
        (0..32).for_each(|number| world.hub.store(PartitionId(number), &[("loud", &large)]));
        let records = next(&mut world, "records").await;
        seen = seen || records["rows"].as_array().unwrap().iter().any(|row| row["device"] == "quiet");
    }
    assert!(seen);
    feed.abort();
}
