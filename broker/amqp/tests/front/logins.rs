//! Who may what: SASL, tokens, certificates, expiry, and what an unknown peer costs.

use std::time::Duration;

use fleetline_amqp::frame::Protocol;
use fleetline_amqp::performative::Role;
use fleetline_amqp::sasl::{SaslInit, write_init};
use fleetline_gateway::hub::HubError;

use crate::client::{Client, Wish, data};
use crate::world::{DEVICE_KEY, POLICY_KEY, World};

const EVENTS: &str = "/devices/a/messages/events";

/// A client that logs in by SASL; the code of the outcome.
async fn sasl(world: &World, certificate: Option<&str>, mechanism: &str, response: &str) -> (Client, u8) {
    let (near, served) = world.pipe(certificate);
    let mut client = Client::new(near, served);
    client.bytes(&Protocol::Sasl.header()).await;
    assert_eq!(client.read_exactly(8).await, Protocol::Sasl.header());
    let size = client.read_exactly(4).await;
    let rest = u32::from_be_bytes(size.try_into().unwrap()) as usize - 4;
    let mechanisms = String::from_utf8_lossy(&client.read_exactly(rest).await).into_owned();
    assert!(mechanisms.contains("MSSBCBS") && mechanisms.contains("PLAIN"));
    let mut init = Vec::new();
    let initial_response = Some(response.as_bytes());
    write_init(&mut init, &SaslInit { mechanism, initial_response, hostname: Some("hub.example") });
    client.bytes(&init).await;
    let outcome = client.read_exactly(16).await;
    (client, *outcome.last().unwrap())
}

#[tokio::test(start_paused = true)]
async fn mechanisms() {
    let world = World::new().await;
    let token = world.token("a");
    let plain = format!("\0a@sas.hub\0{token}");
    let service = world.signed("hub.example", POLICY_KEY, 3600, Some("service"));
    let wrong = format!("\0a@sas.hub\0{}", world.signed("hub.example/devices/a", POLICY_KEY, 3600, None));
    for (certificate, mechanism, response, code) in [
        (None, "ANONYMOUS", "", 0),
        (None, "MSSBCBS", "", 0),
        (None, "PLAIN", plain.as_str(), 0),
        (None, "PLAIN", &format!("\0service@sas.root.hub\0{service}"), 0),
        (None, "PLAIN", &wrong, 1),
        (None, "PLAIN", "\0a@sas.hub\0secret", 1),
        (None, "PLAIN", "nonsense", 1),
        (None, "EXTERNAL", "", 1),
        (Some("AB"), "EXTERNAL", "", 0),
        (None, "SCRAM-SHA-256", "", 1),
    ] {
        let (_, found) = sasl(&world, certificate, mechanism, response).await;
        assert_eq!(found, code, "{mechanism} {response}");
    }
    // What a password gave counts for links.
    let (mut client, _) = sasl(&world, None, "PLAIN", &plain).await;
    client.open().await;
    client.begin(0).await;
    client.sender(EVENTS).await;
    let other = client.try_attach(0, Role::Sender, "/devices/b/messages/events", Wish::default()).await;
    assert_eq!(other.unwrap_err(), "amqp:unauthorized-access");
}

/// A leader that can't be asked is no reason to say "never".
#[tokio::test(start_paused = true)]
async fn no_leader() {
    let world = World::new().await;
    let (token, plain) = (world.token("a"), format!("\0a@sas.hub\0{}", world.token("a")));
    *world.hub.failing.lock() = Some(HubError::Unavailable("partition".into()));
    assert_eq!(sasl(&world, None, "PLAIN", &plain).await.1, 4);
    let mut client = world.client().await;
    client.cbs().await;
    assert_eq!(client.put_token(&token).await, 500);
    *world.hub.failing.lock() = None;
    assert_eq!(client.put_token(&token).await, 200);
    *world.hub.failing.lock() = Some(HubError::Unavailable("partition".into()));
    let attached = client.try_attach(0, Role::Sender, EVENTS, Wish::default()).await;
    assert_eq!(attached.unwrap_err(), "amqp:internal-error");
    *world.hub.failing.lock() = None;
    client.sender(EVENTS).await;
}

/// Tokens are refused when they are put, not later.
#[tokio::test(start_paused = true)]
async fn tokens() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.cbs().await;
    let rows = [
        (world.signed("hub.example/devices/a", POLICY_KEY, 3600, None), 401),
        (world.signed("hub.example/devices/nobody", DEVICE_KEY, 3600, None), 401),
        (world.signed("hub.example/devices/a", DEVICE_KEY, -1, None), 401),
        (world.signed("other.example/devices/a", DEVICE_KEY, 3600, None), 401),
        (world.signed("hub.example", POLICY_KEY, 3600, Some("nobody")), 401),
        (world.signed("hub.example", DEVICE_KEY, 3600, Some("service")), 401),
        ("Bearer a.b.c".to_owned(), 401),
        (String::new(), 400),
        (world.signed("HUB.example:5671/devices/a", DEVICE_KEY, 3600, None), 200),
        (world.signed("hub.example", POLICY_KEY, 3600, Some("service")), 200),
        (world.signed_by_text("sb://hub.example/telemetry", "service"), 200),
    ];
    for (token, status) in rows {
        assert_eq!(client.put_token(&token).await, status, "{token}");
    }
}

/// Per link: what one token covers, another device's link doesn't get.
#[tokio::test(start_paused = true)]
async fn links_are_judged_by_themselves() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let mut refused = Vec::new();
    for (role, address) in [
        (Role::Sender, "/devices/b/messages/events"),
        (Role::Receiver, "/devices/ab/messages/deviceBound"),
        (Role::Sender, "/messages/devicebound"),
        (Role::Receiver, "/messages/serviceBound/feedback"),
        (Role::Receiver, "telemetry/ConsumerGroups/$Default/Partitions/0"),
        (Role::Sender, "telemetry"),
        (Role::Sender, "$management"),
    ] {
        refused.push(client.try_attach(0, role, address, Wish::default()).await.unwrap_err());
    }
    assert!(refused.iter().all(|condition| condition == "amqp:unauthorized-access"), "{refused:?}");
    let nodes = [
        (Role::Sender, "/devices/a/nothing", "amqp:not-found"),
        (Role::Sender, "", "amqp:not-found"),
        (Role::Sender, "/devices/a/messages/devicebound", "amqp:not-allowed"),
        (Role::Receiver, "/devices/a/messages/events", "amqp:not-implemented"),
        (Role::Receiver, "/messages/devicebound", "amqp:not-allowed"),
    ];
    for (role, address, condition) in nodes {
        let refused = client.try_attach(0, role, address, Wish::default()).await;
        assert_eq!(refused.unwrap_err(), condition, "{address}");
    }
    client.sender(EVENTS).await;
    // A policy of devices is for each of them, and for nothing else.
    let policy = world.signed("hub.example/devices", POLICY_KEY, 3600, Some("device"));
    let mut client = world.client_of(&[policy]).await;
    client.sender("/devices/b/messages/events").await;
    let refused = client.try_attach(0, Role::Sender, "/messages/devicebound", Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
}

/// A certificate is the credential where there is no token.
#[tokio::test(start_paused = true)]
async fn certificates() {
    let world = World::new().await;
    let thumbprint = "AB".repeat(32);
    world.add_certified("c", &thumbprint);
    let mut client = world.client_with(Some(&thumbprint)).await;
    let events = client.sender("/devices/c/messages/events").await;
    assert_eq!(client.deliver(events, &data("x")).await, "accepted");
    let mut client = world.client_with(Some(&thumbprint)).await;
    let refused = client.try_attach(0, Role::Sender, EVENTS, Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
    let mut client = world.client_with(Some(&"CD".repeat(32))).await;
    let refused = client.try_attach(0, Role::Sender, "/devices/c/messages/events", Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
}

/// A token that lapses ends what rests on it, and nothing else; one that is put again lives on.
#[tokio::test(start_paused = true)]
async fn expiry() {
    let world = World::new().await;
    let short = |device: &str, seconds| {
        world.signed(&format!("hub.example/devices/{device}"), DEVICE_KEY, seconds, None)
    };
    let service = world.signed("hub.example", POLICY_KEY, 60, Some("service"));
    let mut client = world.client_of(&[short("a", 30), short("b", 300), service]).await;
    let a = client.sender(EVENTS).await;
    let b = client.sender("/devices/b/messages/events").await;
    let commands = client.sender("/messages/devicebound").await;
    assert_eq!(client.detached(a).await, "amqp:unauthorized-access");
    assert_eq!(client.detached(commands).await, "amqp:unauthorized-access");
    assert_eq!(client.deliver(b, &data("x")).await, "accepted");
    assert_eq!(client.put_token(&short("b", 1000)).await, 200);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(client.deliver(b, &data("y")).await, "accepted");
    let again = client.try_attach(0, Role::Sender, EVENTS, Wish::default()).await;
    assert_eq!(again.unwrap_err(), "amqp:unauthorized-access");
}

/// Who never says who it is goes after ten seconds, and may send nothing large before.
#[tokio::test(start_paused = true)]
async fn unknown_peers() {
    let world = World::new().await;
    let begun = tokio::time::Instant::now();
    let mut client = world.client().await;
    client.cbs().await;
    assert_eq!(client.closed().await, "end of stream");
    assert_eq!(begun.elapsed(), world.context.limits.login_timeout);
    let mut client = world.client().await;
    client.bytes(&(9u32 << 10).to_be_bytes()).await;
    assert_eq!(client.closed().await, "amqp:connection:framing-error");
    let mut client = world.device("a").await;
    let events = client.sender(EVENTS).await;
    assert_eq!(client.deliver(events, &data(&"x".repeat(100_000))).await, "accepted");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.deliver(events, &data("y")).await, "accepted");
}

/// All connections end when the node stops, and say so.
#[tokio::test(start_paused = true)]
async fn stopping() {
    let world = World::new().await;
    let (mut service, mut device) = (world.service().await, world.device("a").await);
    device.sender(EVENTS).await;
    world.context.stop();
    assert_eq!(service.closed().await, "amqp:connection:forced");
    assert_eq!(device.closed().await, "amqp:connection:forced");
    service.served.await.unwrap();
    device.served.await.unwrap();
    assert_eq!((world.context.connections(), world.connections.len()), (0, 0));
}
