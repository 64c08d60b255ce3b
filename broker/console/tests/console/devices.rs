//! Devices and their twins.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use fleetline_console::limits::LIST_SCAN_MAX;
use fleetline_devices::DeviceKey;
use http::Method;
use serde_json::{Value, json};

use crate::world::{DEVICE_KEY, World};

fn ids(answer: &Value) -> Vec<String> {
    let devices = answer["devices"].as_array().unwrap();
    devices.iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of a list.
async fn walk(world: &World, policy: &str, query: &str) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let (status, page) =
            world.ask(policy, Method::GET, &format!("devices?{query}&from={from}"), "").await;
        assert_eq!(status, 200, "{page}");
        found.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => from = next.to_owned(),
            None => return found,
        }
    }
}

/// Pages of any size give every device once, over all partitions; modules aren't devices.
#[tokio::test]
async fn pages() {
    let world = World::new();
    let all: BTreeSet<String> = (0..57).map(|number| format!("plane-{number:02}")).collect();
    all.iter().for_each(|id| world.add_device(id));
    world.put(DeviceKey::module("plane-07", "camera"), false);
    for limit in [1, 2, 7, 56, 57, 58, 200] {
        let found = walk(&world, "service", &format!("limit={limit}")).await;
        assert_eq!(found.len(), all.len(), "{limit}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all, "{limit}");
    }
}

/// A search looks at all ids in any case, and at a bounded number of them a request.
#[tokio::test]
async fn search_is_bounded() {
    let world = World::new();
    for number in 0..LIST_SCAN_MAX + 600 {
        world.put(DeviceKey::device(format!("meter-{number}")), false);
    }
    world.add_device("Zurich-1");
    let before = world.hub.listed.load(Ordering::SeqCst);
    let page = world.get("devices?q=ZURICH").await;
    let looked_at = world.hub.listed.load(Ordering::SeqCst) - before;
    assert!(looked_at <= LIST_SCAN_MAX as u64 + 200, "{looked_at}");
    assert!(page["next"].is_string());
    assert_eq!(walk(&world, "service", "q=ZURICH").await, ["Zurich-1"]);
    assert_eq!(walk(&world, "service", "q=nothing+like%20that").await, [""; 0]);
    let long = "x".repeat(200);
    assert_eq!(world.ask("service", Method::GET, &format!("devices?q={long}"), "").await.0, 400);
}

/// A policy that is limited to some devices sees and changes those.
#[tokio::test]
async fn limited_policies() {
    let world = World::new();
    ["plane-1", "plane-2", "boat-1"].iter().for_each(|id| world.add_device(id));
    world.hub.set(|settings| settings.policies.get_mut("service").unwrap().devices = vec!["plane-*".into()]);
    let found: BTreeSet<String> = walk(&world, "service", "limit=1").await.into_iter().collect();
    assert_eq!(found, ["plane-1", "plane-2"].map(str::to_owned).into());
    let status = |path: &'static str| {
        let world = &world;
        async move { world.ask("service", Method::GET, path, "").await.0 }
    };
    assert_eq!((status("devices/plane-1").await, status("devices/boat-1").await), (200, 403));
    assert_eq!(
        (status("devices/plane-1/telemetry").await, status("devices/boat-1/telemetry").await),
        (200, 403)
    );
    let change = r#"{"desired":{"a":1}}"#;
    assert_eq!(world.ask("service", Method::PATCH, "devices/plane-1/twin", change).await.0, 200);
    assert_eq!(world.ask("service", Method::PATCH, "devices/boat-1/twin", change).await.0, 403);
    assert_eq!(world.ask("service", Method::POST, "negotiate", "").await.0, 403);
}

/// Identity, twin and modules, and no key in any of it.
#[tokio::test]
async fn a_device_without_its_keys() {
    let world = World::new();
    world.add_device("plane");
    world.put(DeviceKey::module("plane", "camera"), false);
    world.connect("plane");
    let device = world.get("devices/plane").await;
    assert_eq!(device["identity"]["connected"], true);
    assert_eq!(device["identity"]["node"], 1);
    assert_eq!(device["identity"]["auth"], "shared key");
    assert_eq!(device["twin"]["desired"]["interval"], 5);
    assert_eq!(device["twin"]["tags"], json!({ "region": "alps" }));
    assert_eq!(device["modules"][0]["module"], "camera");
    assert_eq!(device["may"], json!({ "change": true, "telemetry": true }));
    let module = world.get("devices/plane?module=camera").await;
    assert_eq!(module["identity"]["module"], "camera");
    assert_eq!(world.ask("service", Method::GET, "devices/plane?module=none", "").await.0, 404);
    let list = world.get("devices").await;
    for answer in [device, module, list] {
        assert!(!answer.to_string().contains(&DEVICE_KEY[..12]), "{answer}");
    }
}

/// A change merges, answers with the new twin, and is refused when the twin is another one by now.
#[tokio::test]
async fn desired_properties() {
    let world = World::new();
    world.add_device("plane");
    let version = world.get("devices/plane").await["twin"]["version"].as_u64().unwrap();
    let change = |body: String| {
        let world = &world;
        async move { world.ask("service", Method::PATCH, "devices/plane/twin", &body).await }
    };
    let patch = json!({ "desired": { "interval": 10, "units": null }, "version": version }).to_string();
    let (status, twin) = change(patch.clone()).await;
    assert_eq!((status, &twin["desired"]["interval"]), (200, &json!(10)), "{twin}");
    assert!(twin["desired"].get("units").is_none());
    assert_eq!(world.get("devices/plane").await["twin"]["desired"], twin["desired"]);
    assert_eq!(change(patch).await.0, 412);
    let (status, twin) = change(r#"{"desired":{"interval":11}}"#.to_owned()).await;
    assert_eq!((status, &twin["desired"]["interval"]), (200, &json!(11)));
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"desired":[]}"#,
        r#"{"desired":7}"#,
        r#"{"desired":{"a":1},"reported":{}}"#,
        r#"{"desired":{"a":1},"version":"x"}"#,
        r#"{"desired":{"bad.name":1}}"#,
    ] {
        assert_eq!(change(bad.to_owned()).await.0, 400, "{bad}");
    }
    assert_eq!(world.ask("service", Method::PATCH, "devices/none/twin", r#"{"desired":{}}"#).await.0, 404);
}
