//! The last records of a device.

use std::sync::atomic::Ordering;

use fleetline_console::limits::{SCAN_BYTES_MAX, SCAN_RECORDS_MAX, TELEMETRY_MAX};
use fleetline_devices::endpoints;
use serde_json::{Value, json};

use crate::world::World;

fn bodies(answer: &Value) -> Vec<Value> {
    answer["records"].as_array().unwrap().iter().map(|record| record["body"].clone()).collect()
}

/// Newest first, of this device only, of telemetry only, cut to the limit.
#[tokio::test]
async fn newest_first() {
    let world = World::new();
    let partition = world.hub.partition_of("plane");
    for number in 0..30 {
        let mine = number.to_string();
        world.hub.store(partition, &[("other", b"1"), ("plane", mine.as_bytes()), ("other", b"2")]);
    }
    world.hub.store_for(partition, endpoints::EVENTS, &[("plane", b"\"an event\"")]);
    let answer = world.get("devices/plane/telemetry?limit=3").await;
    assert_eq!(bodies(&answer), [29, 28, 27]);
    let first = &answer["records"][0];
    assert_eq!((&first["offset"], &first["kind"], &first["bytes"]), (&json!(88), &json!("json"), &json!(2)));
    assert_eq!(first["properties"], json!({ "source": "test" }));
    let all = world.get("devices/plane/telemetry").await;
    assert_eq!((bodies(&all).len(), &all["complete"]), (30, &json!(true)));
    let none = world.get("devices/silent/telemetry").await;
    assert_eq!((bodies(&none).len(), &none["complete"]), (0, &json!(true)));
}

/// Steps back over many batches without losing the order or a record.
#[tokio::test]
async fn many_steps() {
    let world = World::new();
    let partition = world.hub.partition_of("plane");
    for number in 0..200 {
        let mine = number.to_string();
        let mut records = vec![("other", &b"x"[..]); 99];
        records.insert(number % 99, ("plane", mine.as_bytes()));
        world.hub.store(partition, &records);
    }
    let answer = world.get("devices/plane/telemetry?limit=150").await;
    let expected: Vec<u64> = (50..200).rev().collect();
    assert_eq!(bodies(&answer), expected);
    // More than is allowed is cut, not refused.
    let answer = world.get(&format!("devices/plane/telemetry?limit={}", TELEMETRY_MAX * 10)).await;
    assert_eq!(bodies(&answer).len(), 200);
}

/// A device that was silent for long: the search ends at its bound of records and says so.
#[tokio::test]
async fn bounded_in_records() {
    let world = World::new();
    let partition = world.hub.partition_of("plane");
    world.hub.send("plane", "1");
    let others = vec![("other", &b"x"[..]); 8_000];
    for _ in 0..10 {
        world.hub.store(partition, &others);
    }
    let answer = world.get("devices/plane/telemetry").await;
    assert_eq!((bodies(&answer).len(), &answer["complete"]), (0, &json!(false)));
    assert_eq!(answer["scanned"]["records"], SCAN_RECORDS_MAX);
}

/// Large records: the search ends at its bound of bytes.
#[tokio::test]
async fn bounded_in_bytes() {
    let world = World::new();
    let partition = world.hub.partition_of("plane");
    let large = vec![b'x'; 250_000];
    for _ in 0..120 {
        world.hub.store(partition, &[("other", &large)]);
    }
    let answer = world.get("devices/plane/telemetry").await;
    assert_eq!(answer["complete"], false);
    let read = world.hub.bytes_read.load(Ordering::SeqCst);
    assert!((SCAN_BYTES_MAX..SCAN_BYTES_MAX + (8 << 20)).contains(&read), "{read}");
}
