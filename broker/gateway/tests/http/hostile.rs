//! What no client sends that means well.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::world::{VERSION, World};

fn status(reply: &str) -> &str {
    reply.get(9..12).unwrap_or(reply)
}

/// Heads beyond the bounds are refused before they are kept.
#[tokio::test]
async fn large_heads() {
    let world = World::new();
    let begin = format!("GET /devices?{VERSION} HTTP/1.1\r\nhost: hub.example\r\n");
    let rows = [
        // 10 MiB in one header, in the path, and in many.
        format!("{begin}x: {}\r\n\r\n", "y".repeat(10 << 20)),
        format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "y".repeat(10 << 20)),
        format!("{begin}{}\r\n", "x: y\r\n".repeat(100_000)),
        format!("{begin}{}\r\n", "x: y\r\n".repeat(101)),
    ];
    for text in rows {
        let reply = world.connect().raw(text.as_bytes()).await;
        assert!(matches!(status(&reply), "431" | "414" | "400"), "{}", reply.get(..60).unwrap_or(&reply));
    }
    let many = format!("{begin}connection: close\r\n{}\r\n", "x: y\r\n".repeat(98));
    assert_eq!(status(&world.connect().raw(many.as_bytes()).await), "401");
}

/// Two lengths, or a length that isn't one: nothing that two readers could understand differently.
#[tokio::test]
async fn lengths_that_disagree() {
    let world = World::new();
    world.add_device("d").await;
    let begin = format!(
        "POST /devices/d/messages/events?{VERSION} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{}\r\n",
        world.own("d")
    );
    let refused = [
        "content-length: 1\r\ncontent-length: 2\r\n\r\nxy",
        "content-length: 1, 2\r\n\r\nxy",
        "content-length: -1\r\n\r\nxy",
        "content-length: +1\r\n\r\nxy",
        "content-length: 99999999999999999999\r\n\r\nxy",
        "transfer-encoding: chunked, identity\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nxyz\r\nx\r\n0\r\n\r\n",
        "content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
        " folded: x\r\n\r\n",
        "a b: x\r\ncontent-length: 1\r\n\r\nx",
    ];
    for rest in refused {
        let reply = world.connect().raw(format!("{begin}{rest}").as_bytes()).await;
        assert!(reply.is_empty() || matches!(status(&reply), "400" | "415"), "{rest:?}: {reply}");
    }
    assert_eq!(world.hub.records().len(), 0);
    for rest in ["content-length: 1\r\n\r\nx", "transfer-encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n"] {
        let reply = world.connect().raw(format!("{begin}{rest}").as_bytes()).await;
        assert_eq!(status(&reply), "204", "{rest:?}");
    }
    let no_http = world.connect().raw(b"\x16\x03\x01\x02\x00\x01\x00").await;
    assert!(no_http.is_empty() || status(&no_http) == "400", "{no_http}");
}

/// A head that doesn't end, and a body that doesn't come, cost a bounded time.
#[tokio::test(start_paused = true)]
async fn slow_clients() {
    let world = World::new();
    world.add_device("d").await;
    let begun = Instant::now();
    let mut client = world.connect();
    let dripping = async {
        let (mut reading, mut writing) = tokio::io::split(&mut client.io);
        let writes = async {
            while writing.write_all(b"a").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let mut all = Vec::new();
        let reads = async {
            let _ = reading.read_to_end(&mut all).await;
        };
        tokio::join!(writes, reads);
    };
    dripping.await;
    assert!(begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());

    let begun = Instant::now();
    let mut client = world.connect();
    let head = format!(
        "POST /devices/d/messages/events?{VERSION} HTTP/1.1\r\nhost: h\r\n{}\r\ncontent-length: 100\r\n\r\nx",
        world.own("d")
    );
    client.io.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    client.io.read_to_end(&mut all).await.unwrap();
    let reply = String::from_utf8(all).unwrap();
    assert!(status(&reply) == "400" && reply.contains("RequestTimedOut"), "{reply}");
    assert!(begun.elapsed() <= Duration::from_secs(72), "{:?}", begun.elapsed());
}

/// The body of a stranger isn't read: a gigabyte is refused at its announcement.
#[tokio::test]
async fn strangers_send_no_bodies() {
    let world = World::new();
    for target in ["/devices", "/devices/query", "/twins/d/methods", "/devices/d/messages/events"] {
        let mut client = world.connect();
        let head = format!(
            "POST {target}?{VERSION} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1073741824\r\n\r\n"
        );
        client.io.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        client.io.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 401", "{target}");
    }
}

/// Several requests on one connection, one after the other and all at once, are answered in order.
#[tokio::test]
async fn a_connection_is_used_again() {
    let world = World::new();
    world.add_device("d").await;
    let mut client = world.connect();
    let login = world.own("d");
    for number in 0..3 {
        let target = format!("/devices/d/messages/events?{VERSION}");
        let reply = client.call("POST", &target, &[&login], format!("{number}").as_bytes()).await;
        assert_eq!(reply.status, 204);
    }
    let get = |target: &str, close: &str| {
        format!(
            "GET {target}?{VERSION} HTTP/1.1\r\nhost: h\r\n{}\r\n{close}\r\n",
            world.policy("iothubowner")
        )
    };
    let text = get("/devices/d", "")
        + &get("/devices/none", "")
        + &get("/statistics/devices", "connection: close\r\n");
    let replies = world.connect().raw(text.as_bytes()).await;
    let order: Vec<usize> = ["\"deviceId\":\"d\"", "DeviceNotFound", "totalDeviceCount"]
        .iter()
        .map(|part| replies.find(part).unwrap())
        .collect();
    assert!(order.is_sorted());
}
