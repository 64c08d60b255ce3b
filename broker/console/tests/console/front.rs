//! Over the real HTTPS front: headers, assets, bodies.

use std::sync::Arc;

use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::{Ingest, IngestOptions};
use fleetline_gateway::http::{HttpContext, HttpLimits, HttpMount, PeerInfo, serve};
use futures::FutureExt;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::World;

/// Sends one request as it is, and gives the whole answer.
async fn exchange(world: &World, request: &str) -> String {
    let hub: Arc<dyn DeviceHub> = world.hub.clone();
    let connections = Connections::new(1);
    let (ingest, _tasks) = Ingest::start(&hub, &connections, IngestOptions::default());
    let context = HttpContext {
        gateway: Arc::new(DeviceGateway { hub, connections, ingest }),
        objects: None,
        websocket: Arc::new(|_| async {}.boxed()),
        amqp_websocket: None,
        mounts: vec![world.console.clone()],
        limits: HttpLimits::default(),
    };
    let peer = PeerInfo {
        address: "10.1.2.3:4567".parse().unwrap(),
        certificate: None,
        chained: Arc::new(|_| false),
    };
    let (near, far) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(serve(Arc::new(context), far, peer));
    let (mut read, mut write) = tokio::io::split(near);
    write.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    server.await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(world: &World, path: &str) -> String {
    exchange(world, &format!("GET {path} HTTP/1.1\r\nhost: hub.example\r\nconnection: close\r\n\r\n")).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

/// Paths under `/console` are the console's, and no others.
#[test]
fn claims() {
    let world = World::new();
    let claims = |path| HttpMount::claims(world.console.as_ref(), &Method::GET, path);
    assert!(claims("/console") && claims("/console/") && claims("/console/api/x"));
    assert!(!claims("/") && !claims("/consoles") && !claims("/devices") && !claims("/consolex/api"));
}

/// The page comes with its policy; a refusal too.
#[tokio::test]
async fn every_answer_is_protected() {
    let world = World::new();
    for (path, code) in [("/console/", "200"), ("/console/js/app.js", "200"), ("/console/api/status", "401")]
    {
        let answer = get(&world, path).await;
        assert_eq!(status(&answer), code, "{answer}");
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        for expected in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "cross-origin-opener-policy: same-origin",
        ] {
            assert!(head.contains(expected), "{path}: {head}");
        }
    }
    assert!(get(&world, "/console").await.contains("location: /console/"));
    assert!(get(&world, "/console/").await.contains("<title>Fleetline</title>"));
}

/// No way leads out of the table of assets.
#[tokio::test]
async fn no_other_files() {
    let world = World::new();
    for path in [
        "/console/../Cargo.toml",
        "/console/js/../../Cargo.toml",
        "/console/%2e%2e/Cargo.toml",
        "/console/js",
        "/console//index.html",
        "/console/index.html%00",
        "/console/vendor/SHA256SUMS",
        "/console/js/app.js/",
        "/console/apix",
    ] {
        assert_eq!(status(&get(&world, path).await), "404", "{path}");
    }
}

/// A body is read only of somebody who is known, and only so much of it.
#[tokio::test]
async fn bodies_are_bounded() {
    let world = World::new();
    world.add_device("plane");
    let patch = |token: &str, length: usize, body: &str| {
        format!(
            "PATCH /console/api/devices/plane/twin HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let token = world.token("service");
    // Nothing of the body is sent: who waits for it would wait for ever.
    assert_eq!(status(&exchange(&world, &patch("a.b.c", 20, "")).await), "401");
    let body = r#"{"desired":{"a":1}}"#;
    assert_eq!(status(&exchange(&world, &patch(&token, body.len(), body)).await), "200");
    let large = format!(r#"{{"desired":{{"a":"{}"}}}}"#, "x".repeat(70_000));
    assert_eq!(status(&exchange(&world, &patch(&token, large.len(), &large)).await), "413");
}
