//! Twins and queries.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn twins_are_read_merged_and_replaced() {
    let world = World::new();
    world.add_device("d").await;
    let fresh = world.owner("GET", "/twins/d", &[], "").await;
    assert_eq!(fresh.header("etag"), Some("\"AAAAAAAAAAE=\""));
    let json = fresh.json();
    let rows = [
        ("deviceId", json!("d")),
        ("etag", json!("AAAAAAAAAAE=")),
        ("deviceEtag", json!("MQ==")),
        ("status", json!("enabled")),
        ("statusUpdateTime", json!("0001-01-01T00:00:00Z")),
        ("connectionState", json!("Disconnected")),
        ("lastActivityTime", json!("0001-01-01T00:00:00Z")),
        ("cloudToDeviceMessageCount", json!(0)),
        ("authenticationType", json!("sas")),
        ("x509Thumbprint", json!({"primaryThumbprint": null, "secondaryThumbprint": null})),
        ("version", json!(1)),
        ("tags", json!({})),
        ("capabilities", json!({"iotEdge": false})),
    ];
    for (name, value) in rows {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!(json.get("moduleId"), None);
    assert_eq!(json["properties"]["desired"]["$version"], json!(1));
    assert!(json["properties"]["reported"]["$metadata"]["$lastUpdated"].is_string());

    // What a client sends back of the rest, and reported properties, are passed over.
    let patch = json!({"tags": {"a": {"b": 1, "c": 2}}, "properties": {"desired": {"x": 1}, "reported": {"y": 1}}, "etag": "q", "version": 99});
    let merged = world.owner("PATCH", "/twins/d", &["If-Match: \"*\""], &patch.to_string()).await;
    assert_eq!((merged.status, merged.header("etag")), (200, Some("\"AAAAAAAAAAI=\"")));
    let patch = json!({"tags": {"a": {"b": null}}, "properties": null});
    let merged =
        world.owner("PATCH", "/twins/d", &["If-Match: \"AAAAAAAAAAI=\""], &patch.to_string()).await.json();
    assert_eq!((&merged["tags"], &merged["version"]), (&json!({"a": {"c": 2}}), &json!(3)));
    assert_eq!(merged["properties"]["desired"]["x"], json!(1));
    assert_eq!(merged["properties"]["reported"].get("y"), None);

    let replaced =
        world.owner("PUT", "/twins/d", &[], "{\"properties\":{\"desired\":{\"z\":1}}}").await.json();
    assert_eq!(replaced["tags"], json!({"a": {"c": 2}}));
    assert_eq!(replaced["properties"]["desired"].get("x"), None);
    assert_eq!(replaced["properties"]["desired"]["$version"], json!(3));

    for header in ["If-Match: \"AAAAAAAAAAI=\"", "If-Match: MQ==", "If-Match: x"] {
        let refused = world.owner("PATCH", "/twins/d", &[header], "{\"tags\":{}}").await;
        assert_eq!((refused.status, refused.error().as_str()), (412, "PreconditionFailed"), "{header}");
    }
    assert_eq!(world.owner("GET", "/twins/none", &[], "").await.error(), "DeviceNotFound");
    assert_eq!(world.owner("PATCH", "/twins/d/modules/none", &[], "{}").await.error(), "ModuleNotFound");
}

#[tokio::test]
async fn twins_that_can_not_be() {
    let world = World::new();
    world.add_device("d").await;
    let deep = format!("{{\"tags\":{}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let large =
        json!({"tags": {"a": "x".repeat(4000), "b": "x".repeat(4000), "c": "x".repeat(400)}}).to_string();
    let rows = ["", "[]", "{\"tags\":[]}", "{\"tags\":{\"a.b\":1}}", "{\"tags\":{\"$a\":1}}", &deep, &large];
    for body in rows {
        let refused = world.owner("PATCH", "/twins/d", &[], body).await;
        assert!(
            matches!(refused.status, 400 | 413),
            "{}: {}",
            body.get(..40).unwrap_or(body),
            refused.status
        );
    }
    assert_eq!(world.owner("GET", "/twins/d", &[], "").await.json()["version"], json!(1));
}

async fn query(world: &World, text: &str, headers: &[&str]) -> (Vec<String>, Option<String>) {
    let body = json!({ "query": text }).to_string();
    let reply = world.owner("POST", "/devices/query", headers, &body).await;
    assert_eq!((reply.status, reply.header("x-ms-item-type")), (200, Some("Twin")), "{reply:?}");
    let id = |row: &Value| match row.get("moduleId") {
        Some(module) => format!("{}/{}", row["deviceId"].as_str().unwrap(), module.as_str().unwrap()),
        None => row["deviceId"].as_str().unwrap().to_owned(),
    };
    let ids = reply.json().as_array().unwrap().iter().map(id).collect();
    (ids, reply.header("x-ms-continuation").map(str::to_owned))
}

/// Every row comes once, over pages, partitions and leaders.
#[tokio::test]
async fn queries_are_paged() {
    let world = World::new();
    for number in 0..130 {
        let id = format!("d{number:03}");
        world.add_device(&id).await;
        let tags = json!({"tags": {"even": number % 2 == 0}}).to_string();
        world.owner("PATCH", &format!("/twins/{id}"), &[], &tags).await;
    }
    world.owner("PUT", "/devices/d000/modules/m", &[], "{}").await;
    for (text, size, count) in [
        ("SELECT * FROM devices", 7, 130),
        ("select * from devices where tags.even = true", 10, 65),
        ("SELECT * FROM devices WHERE deviceId = 'd077'", 100, 1),
        ("SELECT * FROM devices.modules", 1, 1),
        ("SELECT * FROM devices WHERE tags.none = 1", 5, 0),
    ] {
        let mut all: Vec<String> = Vec::new();
        let mut continuation: Option<String> = None;
        let mut pages = 0;
        loop {
            let count = format!("x-ms-max-item-count: {size}");
            let token = format!("x-ms-continuation: {}", continuation.unwrap_or_default());
            let (ids, next) = query(&world, text, &[&count, &token]).await;
            assert!(ids.len() <= size);
            all.extend(ids);
            pages += 1;
            assert!(pages <= 200, "{text} goes on for ever");
            let Some(next) = next else { break };
            continuation = Some(next);
        }
        let found = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), found), (count, count), "{text}");
    }
    let (first, token) = query(&world, "SELECT * FROM devices", &["x-ms-max-item-count: 1"]).await;
    assert_eq!(first.len(), 1);
    let token = format!("x-ms-continuation: {}", token.unwrap());
    let foreign = world
        .owner("POST", "/devices/query", &[&token], "{\"query\":\"SELECT * FROM devices.modules\"}")
        .await;
    assert_eq!(foreign.error(), "ArgumentInvalid");
}

#[tokio::test]
async fn queries_that_can_not_be_answered() {
    let world = World::new();
    let many = format!("SELECT * FROM devices WHERE {}", vec!["tags.a = 1"; 10_000].join(" OR "));
    let nested = format!("SELECT * FROM devices WHERE {}", "(".repeat(10_000));
    for text in [
        "",
        "DROP TABLE devices",
        "SELECT deviceId FROM devices",
        "SELECT * FROM devices.jobs",
        &many,
        &nested,
    ] {
        let body = json!({ "query": text }).to_string();
        let refused = world.owner("POST", "/devices/query", &[], &body).await;
        assert_eq!(
            (refused.status, refused.error().as_str()),
            (400, "ArgumentInvalid"),
            "{}",
            text.get(..40).unwrap_or(text)
        );
    }
    for body in ["{}", "[]", "{\"query\":7}"] {
        assert_eq!(world.owner("POST", "/devices/query", &[], body).await.error(), "IotHubFormatError");
    }
}
