//! The cluster, consumer groups, functions, the way to the live feed.

use fleetline_console::FeedScope;
use fleetline_devices::DeviceKey;
use http::Method;
use serde_json::json;

use crate::world::World;

/// Nodes, every partition (those elsewhere too), and devices counted over all partitions.
#[tokio::test(start_paused = true)]
async fn the_cluster_as_it_is() {
    let world = World::new();
    for number in 0..7 {
        world.add_device(&format!("plane-{number}"));
    }
    world.put(DeviceKey::device("off"), true);
    world.connect("plane-3");
    world.hub.send("plane-3", "{}");
    let status = world.get("status").await;
    assert_eq!(
        (&status["cluster"], &status["node"], &status["controlLeader"]),
        (&json!("test"), &json!(1), &json!(2))
    );
    assert_eq!(status["nodes"][1]["alive"], false);
    let expected = json!({ "registered": 8, "connected": 1, "disabled": 1, "partitionsMissing": 0 });
    assert_eq!(status["devices"], expected);
    let partitions = status["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    assert!(partitions.iter().all(|one| one["info"]["term"] == 4 && one["info"]["replicationLag"] == 3));
    assert_eq!(partitions[1]["leader"], 2);
    let ends: u64 = partitions.iter().map(|one| one["info"]["end"].as_u64().unwrap()).sum();
    assert_eq!(ends, 1);
    assert_eq!(status["live"], json!({ "watchers": 0 }));
    // Counts are kept for a while, then asked for anew.
    world.add_device("later");
    assert_eq!(world.get("status").await["devices"]["registered"], 8);
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.get("status").await["devices"]["registered"], 9);
}

/// Lag by group and partition; a partition that can't be asked is left out.
#[tokio::test]
async fn groups() {
    let world = World::new();
    let answer = world.get("groups").await;
    let groups = answer["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["group"].clone()).collect::<Vec<_>>(), ["alarms", "archive"]);
    assert_eq!((&groups[0]["lag"], groups[0]["partitions"].as_array().unwrap().len()), (&json!(20), 2));
    assert_eq!(groups[0]["state"]["members"][0]["name"], "reader");
    // Claimed and never checkpointed: all of it is still to be read.
    assert_eq!(
        groups[1]["partitions"],
        json!([{ "partition": 0, "next": null, "end": 100, "lag": 100, "epoch": 1 }])
    );
    assert_eq!(answer["more"], false);
}

/// What a node without these tiers says.
#[tokio::test]
async fn absent_tiers() {
    let world = World::with(1, FeedScope::Led, false);
    for (method, path) in [(Method::GET, "functions"), (Method::POST, "negotiate")] {
        assert_eq!(world.ask("service", method, path, "").await.0, 404, "{path}");
    }
    let status = world.get("status").await;
    assert_eq!((&status["functions"], &status["live"]), (&json!(false), &json!(null)));
    // Nothing to feed: it ends at once.
    world.console.clone().run().await;
}

/// The page gets an address and a token in its policy's name.
#[tokio::test]
async fn the_way_to_the_live_feed() {
    let world = World::new();
    let (status, answer) = world.ask("service", Method::POST, "negotiate", "").await;
    assert_eq!(status, 200);
    assert_eq!(answer, json!({ "url": "/client/?hub=console", "accessToken": "token-for-service" }));
    assert_eq!(world.get("functions").await["functions"][0]["name"], "low-altitude");
}
