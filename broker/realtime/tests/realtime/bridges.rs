//! Records and twin changes, sent to clients without any code.

use fleetline_batch::RecordRef;
use fleetline_iothub::bag::SystemProperty;
use fleetline_realtime::{GroupAction, SETTING};
use fleetline_types::PartitionId;
use serde_json::json;

use crate::client::{Client, Wants, negotiate};
use crate::world::World;

#[tokio::test]
async fn records_and_twins_reach_groups() {
    let (world, nodes) = World::cluster(3).await;
    let setting = json!({
        "accessKeys": { "primary": "p" },
        "bridges": [
            { "source": "records", "hub": "fleet", "target": "telemetry", "filter": { "device": "truck-*" } },
            { "source": "twins", "hub": "fleet", "group": "device/{deviceId}", "target": "twin",
              "filter": { "body": { "properties.reported.state": "alarm" } } },
        ],
    });
    // What is in the stream before isn't sent.
    world.append(3, &RecordRef { device: b"truck-0", body: b"{}", ..RecordRef::default() });
    world.set(SETTING, setting.to_string());
    for node in &nodes {
        while node.tier.connection_string().is_none_or(|string| !string.contains("AccessKey=p;")) {
            tokio::task::yield_now().await;
        }
    }
    let (id, token) = negotiate(&world, &nodes[1], "fleet", None).await;
    let mut client = Client::with(&world, &nodes[1], &Wants { id: Some(&token), ..Wants::of("fleet") }).await;
    let add = GroupAction::AddConnection { connection: id, group: "device/truck-7".into() };
    assert_eq!(nodes[1].tier.group_action("fleet", add).await, Ok(true));
    // Followers begin at the end that they see.
    world.reads(1, 3).await;
    world.reads(3, 5).await;
    let record =
        |device: &'static [u8], body: &'static [u8]| RecordRef { device, body, ..RecordRef::default() };
    world.append(3, &record(b"car-1", b"{\"t\":1}"));
    world.append(3, &record(b"truck-7", b"{\"t\":2}"));
    let (target, arguments) = client.call().await;
    assert_eq!(target, "telemetry");
    assert_eq!((&arguments[0]["deviceId"], &arguments[0]["body"]), (&json!("truck-7"), &json!({ "t": 2 })));
    assert_eq!((&arguments[0]["partition"], &arguments[0]["offset"]), (&json!(3), &json!(2)));

    let source = (SystemProperty::MessageSource as u8, &b"twinChangeEvents"[..]);
    let alarm = br#"{"version":2,"properties":{"reported":{"state":"alarm"}}}"#;
    let system = [source];
    for device in [&b"truck-8"[..], b"truck-7"] {
        world.append(5, &RecordRef { device, system: &system, body: alarm, ..RecordRef::default() });
    }
    let (target, arguments) = client.call().await;
    assert_eq!((target.as_str(), &arguments[0]["deviceId"]), ("twin", &json!("truck-7")));

    // Another node leads: it goes on from what it finds.
    world.lead(PartitionId(3), Some(3));
    world.reads(3, 3).await;
    world.append(3, &record(b"truck-9", b"\x00\x01"));
    let (_, arguments) = client.call().await;
    assert_eq!((&arguments[0]["deviceId"], &arguments[0]["body"]), (&json!("truck-9"), &json!("AAE=")));
}
