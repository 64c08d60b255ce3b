//! Telemetry, commands and feedback.

use fleetline_iothub::bag::SystemProperty;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::world::{VERSION, World};

const EVENTS: &str = "/devices/d/messages/events";
const COMMANDS: &str = "/devices/d/messages/devicebound";

fn system(record: &fleetline_batch::RecordView, property: SystemProperty) -> Option<String> {
    let found = record.system().find(|(number, _)| *number == property.number());
    found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test]
async fn a_message_is_stored_with_its_properties_and_stamps() {
    let world = World::new();
    let device = world.add_device("d").await;
    let headers = [
        "IoTHub-MessageId: m1",
        "iothub-contenttype: application/json",
        "iothub-app-Room: 4/12",
        "iothub-enqueuedtime: 2000-01-01T00:00:00Z",
    ];
    let sent = world.device("d", "POST", EVENTS, &headers, b"{\"t\":1}").await;
    assert_eq!((sent.status, sent.body.len()), (204, 0));
    let records = world.hub.records();
    let record = &records[0];
    assert_eq!(
        (records.len(), record.device.as_ref(), record.body.as_ref()),
        (1, &b"d"[..], &b"{\"t\":1}"[..])
    );
    assert_eq!(record.endpoints, fleetline_devices::endpoints::TELEMETRY);
    let generation = device["generationId"].as_str().map(str::to_owned);
    let rows = [
        (SystemProperty::MessageId, Some("m1".to_owned())),
        (SystemProperty::ContentType, Some("application/json".to_owned())),
        (SystemProperty::ConnectionGenerationId, generation),
        (SystemProperty::ConnectionAuthMethod, Some("s".to_owned())),
        (SystemProperty::EnqueuedTime, None),
        (SystemProperty::ConnectionModuleId, None),
    ];
    for (property, value) in rows {
        assert_eq!(system(record, property), value, "{property:?}");
    }
    let properties: Vec<_> = record.properties().collect();
    assert_eq!(properties, [("room".into(), "4/12".into())]);
    assert!(world.connections.is_empty());
}

#[tokio::test]
async fn modules_and_batches() {
    let world = World::new();
    world.add_device("d").await;
    let body = format!(
        "{{\"authentication\":{{\"symmetricKey\":{{\"primaryKey\":\"{0}\",\"secondaryKey\":\"{0}\"}}}}}}",
        crate::world::DEVICE_KEY
    );
    world.owner("PUT", "/devices/d/modules/m", &[], &body).await;
    let batch = br#"[{"body":"MQ=="},{"body":"2","base64Encoded":false},{"body":"Mw==","properties":{"iothub-app-A":"b"}}]"#;
    let media_type = "Content-Type: application/vnd.microsoft.iothub.json; charset=utf-8";
    let login = world.own("d/modules/m");
    let sent =
        world.request(&login, "POST", "/devices/d/modules/m/messages/events", &[media_type], batch).await;
    assert_eq!(sent.status, 204, "{sent:?}");
    let records = world.hub.records();
    let bodies: Vec<&[u8]> = records.iter().map(|record| record.body.as_ref()).collect();
    assert_eq!(bodies, [b"1", b"2", b"3"]);
    assert!(
        records
            .iter()
            .all(|record| system(record, SystemProperty::ConnectionModuleId).as_deref() == Some("m"))
    );
    assert_eq!(records[2].properties().next(), Some(("A".into(), "b".into())));
    // Node escapes nothing.
    let broken = br#"[{"body":"MQ==","properties":{"iothub-app-a":"say "hi""}}]"#;
    let refused = world.device("d", "POST", EVENTS, &[media_type], broken).await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "IotHubFormatError"));
    assert_eq!(world.hub.records().len(), 3);
}

/// The limit counts body and properties; nothing of a refused message is stored.
#[tokio::test]
async fn sizes() {
    let world = World::new();
    world.add_device("d").await;
    let limit = 262_144;
    assert_eq!(
        world.device("d", "POST", EVENTS, &[], &vec![b'x'; limit + 1]).await.error(),
        "MessageTooLarge"
    );
    let property = "iothub-app-a: b";
    assert_eq!(world.device("d", "POST", EVENTS, &[property], &vec![b'x'; limit - 1]).await.status, 413);
    let item = |bytes: usize| json!({"body": "x".repeat(bytes), "base64Encoded": false});
    let media_type = "Content-Type: application/vnd.microsoft.iothub.json";
    let batch = json!([item(limit / 2), item(limit / 2 + 1)]).to_string();
    assert_eq!(world.device("d", "POST", EVENTS, &[media_type], batch.as_bytes()).await.status, 413);
    assert_eq!(world.hub.records().len(), 0);
    assert_eq!(world.device("d", "POST", EVENTS, &[], &vec![b'x'; limit / 2]).await.status, 204);
    let twice = ["iothub-app-a: 1", "iothub-app-A: 2"];
    assert_eq!(world.device("d", "POST", EVENTS, &twice, b"").await.status, 204);
}

#[tokio::test]
async fn who_may_send() {
    let world = World::new();
    world.add_device("d").await;
    world.add_device("e").await;
    let rows = [
        (world.own("d"), 204, ""),
        (world.policy("device"), 204, ""),
        (world.policy("iothubowner"), 204, ""),
        (world.own("e"), 401, "IotHubUnauthorized"),
        (world.policy("service"), 401, "IotHubUnauthorizedAccess"),
        ("X-Nothing: here".to_owned(), 401, "IotHubUnauthorized"),
        (world.own("d").replace("se=", "se=1"), 401, "IotHubUnauthorized"),
    ];
    for (login, status, code) in rows {
        let reply = world.request(&login, "POST", EVENTS, &[], b"x").await;
        assert_eq!(reply.status, status, "{login}: {reply:?}");
        if !code.is_empty() {
            assert_eq!(reply.error(), code);
        }
    }
    let unknown = world.device("none", "POST", "/devices/none/messages/events", &[], b"x").await;
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "DeviceNotFound"));
    world.disable("d").await;
    let disabled = world.device("d", "POST", EVENTS, &[], b"x").await;
    assert_eq!((disabled.status, disabled.error().as_str()), (403, "DeviceDisabled"));
    assert_eq!(world.hub.records().len(), 3);
}

/// A certificate is judged by the leader, with what the peer's connection says of its chain.
#[tokio::test]
async fn certificates() {
    let world = World::new();
    let print = "AB".repeat(20);
    let own = format!("{{\"authentication\":{{\"x509Thumbprint\":{{\"primaryThumbprint\":\"{print}\"}}}}}}");
    world.owner("PUT", "/devices/d", &[], &own).await;
    world.owner("PUT", "/devices/e", &[], "{\"authentication\":{\"type\":\"certificateAuthority\"}}").await;
    let rows = [
        ("d", print.as_str(), "x", false, 204),
        ("d", "", "d", true, 401),
        ("e", "", "e", true, 204),
        ("e", "", "e", false, 401),
        ("e", "", "d", true, 401),
    ];
    for (device, sha1, common_name, chained, status) in rows {
        let proof = fleetline_devices::CertificateProof {
            sha1: sha1.into(),
            common_name: common_name.into(),
            ..fleetline_devices::CertificateProof::default()
        };
        let mut client = world.connect_with(proof, chained);
        let target = format!("/devices/{device}/messages/events?{VERSION}");
        let reply = client.call("POST", &target, &[], b"x").await;
        assert_eq!(reply.status, status, "{device} {sha1} {common_name} {chained}");
        if status == 401 {
            assert!(reply.json()["Message"].as_str().unwrap().ends_with("caller is not authorised"));
        }
    }
    let methods: Vec<_> = world
        .hub
        .records()
        .iter()
        .map(|record| system(record, SystemProperty::ConnectionAuthMethod))
        .collect();
    assert_eq!(methods, [Some("x".to_owned()), Some("x".to_owned())]);
}

/// P11: from the moment at which a device is disabled, nothing of it is stored; also not what was on
/// its way, and also not when the client has hung up meanwhile.
#[tokio::test]
async fn what_is_on_its_way_is_stopped() {
    for hangs_up in [false, true] {
        let world = World::new();
        world.add_device("d").await;
        world.add_device("e").await;
        world.hub.held.send_replace(true);
        let login = world.own("d");
        let mut client = world.connect();
        let head = format!(
            "POST {EVENTS}?{VERSION} HTTP/1.1\r\nhost: hub.example\r\n{login}\r\ncontent-length: 1\r\n\r\nx"
        );
        // The first batch is under way at once; what comes now is in the next one.
        let other = world.own("e");
        let first = async { world.request(&other, "POST", "/devices/e/messages/events", &[], b"e").await };
        let scenario = async {
            while world.connections.is_empty() {
                tokio::task::yield_now().await;
            }
            client.io.write_all(head.as_bytes()).await.unwrap();
            while world.connections.len() < 2 {
                tokio::task::yield_now().await;
            }
            if hangs_up {
                drop(client);
                world.disable("d").await;
                world.hub.held.send_replace(false);
                None
            } else {
                world.disable("d").await;
                world.hub.held.send_replace(false);
                Some(crate::client::read_reply(&mut client.io, false).await)
            }
        };
        let (first, reply) = tokio::join!(first, scenario);
        assert_eq!(first.status, 204);
        if let Some(reply) = reply {
            assert_eq!((reply.status, reply.error().as_str()), (403, "DeviceDisabled"));
        }
        // Something behind it has been stored, so it would be there too.
        assert_eq!(world.device("e", "POST", "/devices/e/messages/events", &[], b"f").await.status, 204);
        let bodies: Vec<Vec<u8>> = world.hub.records().iter().map(|record| record.body.to_vec()).collect();
        assert_eq!(bodies, [b"e".to_vec(), b"f".to_vec()], "hangs up: {hangs_up}");
    }
}

/// Without a quorum the outcome is unknown, and called so.
#[tokio::test(start_paused = true)]
async fn no_quorum() {
    let world = World::new();
    world.add_device("d").await;
    world.hub.held.send_replace(true);
    let reply = world.device("d", "POST", EVENTS, &[], b"x").await;
    assert_eq!(
        (reply.status, reply.error().as_str(), reply.header("retry-after")),
        (503, "ServiceUnavailable", Some("10"))
    );
    assert!(reply.json()["Message"].as_str().unwrap().contains("outcome is unknown"));
}

async fn send(world: &World, headers: &[&str], body: &str) {
    let sent = world.owner("POST", COMMANDS, headers, body).await;
    assert_eq!(sent.status, 201, "{sent:?}");
}

/// The head of a command as every SDK needs it: the C SDK compares names byte by byte.
#[tokio::test]
async fn a_command_has_its_headers() {
    let world = World::new();
    world.add_device("d").await;
    assert_eq!(world.device("d", "GET", COMMANDS, &[], b"").await.status, 204);
    let headers = [
        "iothub-messageid: m1",
        "iothub-correlationid: c1",
        "iothub-ack: full",
        "iothub-contenttype: text/plain",
        "iothub-contentencoding: utf-8",
        "iothub-app-color: red",
    ];
    let sent = world.owner("POST", COMMANDS, &headers, "hello").await;
    assert_eq!((sent.status, sent.header("iothub-messageid")), (201, Some("m1")));
    let got = world.device("d", "GET", "/devices/d/messages/deviceBound", &[], b"").await;
    assert_eq!((got.status, got.body.as_slice()), (200, &b"hello"[..]));
    let rows = [
        ("iothub-messageid", "m1"),
        ("iothub-correlationid", "c1"),
        ("iothub-ack", "full"),
        ("iothub-to", "/devices/d/messages/devicebound"),
        ("iothub-deliverycount", "0"),
        ("iothub-contenttype", "text/plain"),
        ("iothub-app-color", "red"),
        ("iothub-enqueuedtime", "2026-11-24T06:15:38.0000000Z"),
        ("iothub-expiry", "2026-11-24T07:15:38.0000000Z"),
    ];
    for (name, value) in rows {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    assert!(got.header("iothub-sequencenumber").unwrap().parse::<u64>().is_ok());
    for exact in [
        "\r\nETag: \"",
        "\r\nContentType: text/plain\r\n",
        "\r\nContentEncoding: utf-8\r\n",
        "\r\niothub-app-color: ",
    ] {
        assert!(got.head.contains(exact), "{exact} in {}", got.head);
    }
    let etag = got.header("etag").unwrap();
    assert_eq!((etag.len(), etag.matches('"').count()), (38, 2));
}

fn lock(reply: &crate::client::Reply) -> String {
    reply.header("etag").unwrap().trim_matches('"').to_owned()
}

/// Complete, reject and abandon, and a lock that is lost.
#[tokio::test]
async fn commands_are_settled() {
    let world = World::new();
    world.add_device("d").await;
    for body in ["one", "two", "three"] {
        send(&world, &[], body).await;
    }
    let get = async || world.device("d", "GET", COMMANDS, &[], b"").await;
    let (one, two) = (get().await, get().await);
    assert_eq!((one.body.as_slice(), two.body.as_slice()), (&b"one"[..], &b"two"[..]));
    let settle =
        async |method: &str, target: String| world.device("d", method, &target, &[], b"").await.status;
    assert_eq!(settle("DELETE", format!("{COMMANDS}/{}", lock(&one))).await, 204);
    assert_eq!(settle("POST", format!("{COMMANDS}/{}/abandon", lock(&two))).await, 204);
    let again = get().await;
    assert_eq!((again.body.as_slice(), again.header("iothub-deliverycount")), (&b"two"[..], Some("1")));
    assert_eq!(settle("DELETE", format!("{COMMANDS}/{}?reject", lock(&again))).await, 204);
    let lost = world.device("d", "DELETE", &format!("{COMMANDS}/{}", lock(&again)), &[], b"").await;
    assert_eq!((lost.status, lost.error().as_str()), (412, "DeviceMessageLockLost"));
    let three = get().await;
    world.hub.advance(60_001);
    let late = world.device("d", "DELETE", &format!("{COMMANDS}/{}", lock(&three)), &[], b"").await;
    assert_eq!(late.error(), "DeviceMessageLockLost");
    // "Lock lost: back to the queue without raising the count."
    let again = get().await;
    assert_eq!((again.body.as_slice(), again.header("iothub-deliverycount")), (&b"three"[..], Some("0")));
    // Somebody else's lock is none.
    world.add_device("e").await;
    let other = world
        .device("e", "DELETE", &format!("/devices/e/messages/devicebound/{}", lock(&again)), &[], b"")
        .await;
    assert_eq!(other.error(), "DeviceMessageLockLost");
}

#[tokio::test]
async fn commands_that_can_not_be_sent() {
    let world = World::new();
    world.add_device("d").await;
    let rows = [
        (vec!["iothub-ack: maybe"], "x".to_owned(), "ArgumentInvalid"),
        (vec!["iothub-expiry: tomorrow"], "x".to_owned(), "InvalidMessageExpiryTime"),
        (vec!["iothub-expiry: 2020-01-01T00:00:00Z"], "x".to_owned(), "ArgumentInvalid"),
        (vec![], "x".repeat(65_537), "MessageTooLarge"),
        (vec!["iothub-app-a: b"], "x".repeat(65_535), "MessageTooLarge"),
    ];
    for (headers, body, code) in rows {
        assert_eq!(world.owner("POST", COMMANDS, &headers, &body).await.error(), code, "{headers:?}");
    }
    let unknown = world.owner("POST", "/devices/none/messages/devicebound", &[], "x").await;
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "DeviceNotFound"));
    for _ in 0..50 {
        send(&world, &[], "x").await;
    }
    assert_eq!(world.owner("POST", COMMANDS, &[], "x").await.error(), "DeviceMaximumQueueDepthExceeded");
    let purged = world.owner("DELETE", "/devices/d/commands", &[], "").await.json();
    assert_eq!(purged, json!({"totalMessagesPurged": 50, "deviceId": "d", "moduleId": null}));
}

#[tokio::test]
async fn feedback() {
    const FEEDBACK: &str = "/messages/serviceBound/feedback";
    let world = World::new();
    let device = world.add_device("d").await;
    assert_eq!(world.owner("GET", FEEDBACK, &[], "").await.status, 204);
    send(&world, &["iothub-ack: full", "iothub-messageid: m1"], "x").await;
    let got = world.device("d", "GET", COMMANDS, &[], b"").await;
    world.device("d", "DELETE", &format!("{COMMANDS}/{}?reject=true", lock(&got)), &[], b"").await;
    let first = world.owner("GET", FEEDBACK, &[], "").await;
    assert_eq!(first.header("content-type"), Some("application/vnd.microsoft.iothub.feedback.json"));
    let expected = json!([{
        "originalMessageId": "m1",
        "deviceId": "d",
        "deviceGenerationId": device["generationId"],
        "enqueuedTimeUtc": "2026-11-24T06:15:38.0000000Z",
        "statusCode": "Rejected",
        "description": "Message rejected",
    }]);
    assert_eq!((first.status, first.json()), (200, expected));
    assert_eq!(world.owner("GET", FEEDBACK, &[], "").await.status, 204);
    let settle = async |method: &str, target: String| world.owner(method, &target, &[], "").await;
    assert_eq!(settle("POST", format!("{FEEDBACK}/{}/abandon", lock(&first))).await.status, 204);
    let again = world.owner("GET", FEEDBACK, &[], "").await;
    assert_eq!(again.status, 200);
    assert_eq!(
        settle("DELETE", format!("{FEEDBACK}/{}", lock(&first))).await.error(),
        "DeviceMessageLockLost"
    );
    assert_eq!(settle("DELETE", format!("{FEEDBACK}/{}", lock(&again))).await.status, 204);
    for token in [lock(&again), "nonsense".to_owned(), "x-99".to_owned()] {
        assert_eq!(settle("DELETE", format!("{FEEDBACK}/{token}")).await.error(), "DeviceMessageLockLost");
    }
    assert_eq!(world.owner("GET", FEEDBACK, &[], "").await.status, 204);
}
