//! Stateful reconnect: a connection outlives its socket.

use fleetline_realtime::Destination;
use fleetline_signalr::{Message, Protocol};

use crate::client::{Client, Wants, negotiate, open};
use crate::sockets::message;
use crate::world::World;

fn all() -> Destination {
    Destination::All { excluded: Vec::new() }
}

#[tokio::test]
async fn what_was_missed_comes_again() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let (id, token) = negotiate(&world, node, "chat", None).await;
    let wants = Wants { id: Some(&token), version: 2, ..Wants::of("chat") };
    let mut client = Client::with(&world, node, &wants).await;
    for number in 1..=3 {
        node.tier.publish("chat", &all(), message("m", number)).expect("room");
    }
    for number in 1..=3 {
        assert_eq!(client.number().await, number);
    }
    client.say(&Message::Ack { sequence_id: 2 }).await;
    client.say(&Message::Ping).await;
    // Acknowledgements have been read when the next message is there.
    node.tier.publish("chat", &Destination::Connection(id.clone()), message("m", 4)).expect("room");
    assert_eq!(client.number().await, 4);
    drop(client);
    for number in 5..=6 {
        node.tier.publish("chat", &all(), message("m", number)).expect("room");
    }
    let socket = open(&world, node, &wants).await.expect("switched over");
    let mut client = Client::on(socket, Protocol::Json);
    client.say(&Message::Sequence { sequence_id: 1 }).await;
    let Ok(Message::Sequence { sequence_id }) = client.message().await else { panic!("no sequence") };
    assert!([1, 3].contains(&sequence_id), "{sequence_id}");
    for number in sequence_id..=6 {
        assert_eq!(client.number().await, number);
    }
    node.tier.publish("chat", &all(), message("m", 7)).expect("room");
    assert_eq!(client.number().await, 7);
    assert_eq!(node.tier.stats().connections, 1);
    // Over a socket that is still there, too: the old one is let go.
    let socket = open(&world, node, &wants).await.expect("switched over");
    let mut newer = Client::on(socket, Protocol::Json);
    newer.say(&Message::Sequence { sequence_id: 1 }).await;
    assert!(matches!(newer.message().await, Ok(Message::Sequence { .. })));
    assert!(client.frame().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_is_gone() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let (_, token) = negotiate(&world, node, "chat", None).await;
    let wants = Wants { id: Some(&token), version: 2, ..Wants::of("chat") };
    drop(Client::with(&world, node, &wants).await);
    let start = tokio::time::Instant::now();
    while node.tier.stats().connections > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(start.elapsed().as_secs(), 15);
    assert_eq!(open(&world, node, &wants).await.err(), Some(404), "it is not taken for a new connection");
}

/// A client that neither reads nor acknowledges is bounded by the replay buffer and the outbox together.
#[tokio::test]
async fn who_never_acknowledges_is_dropped() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let (_, token) = negotiate(&world, node, "chat", None).await;
    let mut client =
        Client::with(&world, node, &Wants { id: Some(&token), version: 2, ..Wants::of("chat") }).await;
    let text = format!("[\"{}\"]", "x".repeat(20_000));
    while node.tier.stats().slow_clients == 0 {
        let big = fleetline_realtime::Encoded::invocation("big", text.clone().into()).expect("json");
        node.tier.publish("chat", &all(), big).expect("room");
        while node.tier.stats().waiting_bytes > 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut count = 0;
    let end = loop {
        match client.message().await {
            Ok(Message::Invocation(_)) => count += 1,
            other => break other,
        }
    };
    assert!((5..10).contains(&count), "{count}");
    assert!(matches!(end, Ok(Message::Close { allow_reconnect: true, .. })), "{end:?}");
}
