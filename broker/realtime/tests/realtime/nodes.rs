//! Several nodes: who gets what, in which order, while leaders change and nodes go.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fleetline_gateway::tiers::TierService;
use fleetline_realtime::{Destination, GroupAction, RealtimeLimits, RealtimeOptions};
use fleetline_types::{NodeId, PartitionId};

use crate::client::{Client, Wants, negotiate, open, rest};
use crate::sockets::message;
use crate::world::{ENDPOINT, PARTITIONS, World};

fn all() -> Destination {
    Destination::All { excluded: Vec::new() }
}

fn group(name: &str) -> Destination {
    Destination::Group { name: name.to_owned(), excluded: Vec::new() }
}

#[tokio::test]
async fn a_message_reaches_members_on_every_node() {
    let (world, nodes) = World::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::join(&world, node, "chat", Some("u")).await);
    }
    let mut number = 0;
    for node in &nodes {
        for to in [all(), Destination::User("u".into())] {
            number += 1;
            node.tier.publish("chat", &to, message("m", number)).expect("room");
            for client in &mut clients {
                assert_eq!(client.number().await, number);
            }
        }
    }
}

/// A node gets what its members are to have, once, and nothing else.
#[tokio::test]
async fn only_nodes_with_members_are_called() {
    let (world, nodes) = World::cluster(3).await;
    let mut one = Client::join(&world, &nodes[1], "chat", Some("one")).await;
    let _two = Client::join(&world, &nodes[2], "chat", Some("two")).await;
    // The leaders know of both now. Each message needs at most the way to the leader and from there to node 2.
    let before = world.calls.load(Ordering::Relaxed);
    for number in 0..10 {
        nodes[0].tier.publish("chat", &Destination::User("one".into()), message("m", number)).expect("room");
        assert_eq!(one.number().await, number);
    }
    let calls = world.calls.load(Ordering::Relaxed) - before;
    assert!((10..=20).contains(&calls), "{calls}");
    // Nobody has this user: the leader is asked and tells nobody.
    let before = world.calls.load(Ordering::Relaxed);
    for number in 0..10 {
        nodes[0].tier.publish("chat", &Destination::User("none".into()), message("m", number)).expect("room");
    }
    while nodes[0].tier.stats().waiting_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert!(world.calls.load(Ordering::Relaxed) - before <= 10);
}

#[tokio::test]
async fn a_publishers_order_holds_while_leaders_change() {
    let (world, nodes) = World::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::join(&world, node, "chat", None).await);
    }
    let publisher = nodes[0].tier.clone();
    let moving = world.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..3_000_u64 {
            publisher.publish("chat", &all(), message("m", number)).expect("room");
            if number % 50 == 0 {
                for partition in 0..PARTITIONS {
                    // Sometimes nobody leads for a while.
                    let leader = (number / 50 + u64::from(partition)) % 4;
                    moving.lead(PartitionId(partition), (leader > 0).then_some(leader));
                }
            }
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    for client in &mut clients {
        for number in 0..3_000 {
            assert_eq!(client.number().await, number);
        }
    }
    publishing.await.expect("published");
}

#[tokio::test]
async fn members_that_join_while_leaders_change_miss_nothing_after() {
    let (world, nodes) = World::cluster(3).await;
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..30_u64 {
        for partition in 0..PARTITIONS {
            world.lead(PartitionId(partition), Some(1 + (round + u64::from(partition)) % 3));
        }
        let name = format!("u{}", round % 5);
        let node = &nodes[(round % 3) as usize];
        clients.push(Client::join(&world, node, "chat", Some(&name)).await);
        nodes[((round + 1) % 3) as usize].tier.publish("chat", &all(), message("m", round)).expect("room");
        for client in &mut clients {
            assert_eq!(client.number().await, round);
        }
        if round % 4 == 3 {
            clients.remove(0);
        }
    }
}

#[tokio::test]
async fn a_lost_node_takes_only_its_members() {
    let (world, nodes) = World::cluster(3).await;
    let mut here = Client::join(&world, &nodes[0], "chat", None).await;
    let mut there = Client::join(&world, &nodes[1], "chat", None).await;
    let _gone = Client::join(&world, &nodes[2], "chat", None).await;
    // Node 3 leads partitions, and is gone before anybody else is elected.
    world.lose(3);
    for number in 0..20 {
        nodes[0].tier.publish("chat", &all(), message("m", number)).expect("room");
        nodes[0]
            .tier
            .publish("chat", &Destination::User(format!("{number}")), message("no", 0))
            .expect("room");
        assert_eq!(here.number().await, number);
        assert_eq!(there.number().await, number);
    }
    for partition in 0..PARTITIONS {
        world.lead(PartitionId(partition), Some(2));
    }
    let mut late = Client::join(&world, &nodes[0], "chat", None).await;
    nodes[1].tier.publish("chat", &all(), message("m", 99)).expect("room");
    for client in [&mut here, &mut there, &mut late] {
        assert_eq!(client.number().await, 99);
    }
}

/// The leader can't reach a node that the publisher reaches: the publisher sends to it itself.
#[tokio::test]
async fn a_cut_between_leader_and_members_is_gone_around() {
    let (world, nodes) = World::cluster(3).await;
    for partition in 0..PARTITIONS {
        world.lead(PartitionId(partition), Some(2));
    }
    let mut member = Client::join(&world, &nodes[2], "chat", None).await;
    world.link(2, 3, false);
    let mut late = Client::join(&world, &nodes[2], "other", None).await;
    for number in 0..5 {
        nodes[0].tier.publish("chat", &all(), message("m", number)).expect("room");
        nodes[0].tier.publish("other", &all(), message("m", number)).expect("room");
        assert_eq!(member.number().await, number);
        assert_eq!(late.number().await, number);
    }
    world.link(2, 3, true);
    nodes[0].tier.publish("chat", &all(), message("m", 9)).expect("room");
    assert_eq!(member.number().await, 9);
}

/// A client negotiates at one node and opens its WebSocket at another.
#[tokio::test]
async fn connections_are_found_by_id_wherever_they_are() {
    let (world, nodes) = World::cluster(3).await;
    let (id, token) = negotiate(&world, &nodes[0], "chat", None).await;
    let wants = Wants { id: Some(&token), ..Wants::of("chat") };
    let mut client = Client::with(&world, &nodes[1], &wants).await;
    let mut number = 0;
    for node in &nodes {
        number += 1;
        node.tier.publish("chat", &Destination::Connection(id.clone()), message("m", number)).expect("room");
        assert_eq!(client.number().await, number);
        assert_eq!(node.tier.has_connection("chat", &id).await, Ok(true));
        assert_eq!(node.tier.has_connection("other", &id).await, Ok(false));
        let add = GroupAction::AddConnection { connection: id.clone(), group: format!("g{number}") };
        assert_eq!(node.tier.group_action("chat", add).await, Ok(true));
        nodes[2].tier.publish("chat", &group(&format!("g{number}")), message("m", 10)).expect("room");
        assert_eq!(client.number().await, 10);
    }
    // Nobody else may have the id meanwhile.
    for node in &nodes {
        let refused = open(&world, node, &wants).await.err();
        assert!(matches!(refused, Some(404 | 409)), "{refused:?}");
    }
    // The node that the id names is gone: all are asked.
    world.lose(1);
    nodes[2].tier.publish("chat", &Destination::Connection(id.clone()), message("m", 20)).expect("room");
    assert_eq!(client.number().await, 20);
    let remove = GroupAction::RemoveConnection { connection: id, group: "g1".to_owned() };
    assert_eq!(nodes[2].tier.group_action("chat", remove).await, Ok(true));
}

#[tokio::test]
async fn users_are_put_into_groups_on_all_nodes() {
    let (world, nodes) = World::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::join(&world, node, "chat", Some("u")).await);
    }
    let add = GroupAction::AddUser { user: "u".into(), group: "g".into(), ttl: None };
    assert_eq!(nodes[2].tier.group_action("chat", add).await, Ok(true));
    nodes[0].tier.publish("chat", &group("g"), message("m", 1)).expect("room");
    for client in &mut clients {
        assert_eq!(client.number().await, 1);
    }
    let reply = rest(&world, &nodes[1], "DELETE", "/api/v1/hubs/chat/groups/g/users/u", "").await;
    assert_eq!(reply.status, 202);
    nodes[0].tier.publish("chat", &group("g"), message("m", 2)).expect("room");
    nodes[0].tier.publish("chat", &all(), message("m", 3)).expect("room");
    for client in &mut clients {
        assert_eq!(client.number().await, 3);
    }
}

#[tokio::test]
async fn a_restarted_node_begins_anew() {
    let (world, mut nodes) = World::cluster(3).await;
    let mut other = Client::join(&world, &nodes[0], "chat", None).await;
    let old = Client::join(&world, &nodes[2], "chat", None).await;
    world.lose(3);
    drop(nodes.pop());
    drop(old);
    nodes.push(world.start(3, RealtimeOptions::new(ENDPOINT)).await);
    let mut new = Client::join(&world, &nodes[2], "chat", None).await;
    for number in 0..5 {
        nodes[2].tier.publish("chat", &all(), message("m", number)).expect("room");
        nodes[1].tier.publish("chat", &group("nobody"), message("m", number)).expect("room");
        assert_eq!(other.number().await, number);
        assert_eq!(new.number().await, number);
    }
}

/// What a node registered is forgotten when it isn't refreshed, and comes again.
#[tokio::test(start_paused = true)]
async fn registrations_are_refreshed() {
    let (world, nodes) = World::cluster(3).await;
    let mut client = Client::join(&world, &nodes[1], "chat", Some("u")).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        client.say(&fleetline_signalr::Message::Ping).await;
    }
    let known: usize = nodes.iter().map(|node| node.tier.stats().directory_keys).sum();
    assert!(known <= 2, "{known}");
    let before = world.calls.load(Ordering::Relaxed);
    for number in 0..100 {
        let nobody = Destination::User(format!("nobody {number}"));
        nodes[0].tier.publish("chat", &nobody, message("m", 0)).expect("room");
        while nodes[0].tier.stats().waiting_bytes > 0 {
            tokio::task::yield_now().await;
        }
    }
    // The leader is asked, if it is another node, and asks nobody: all have told that they have nobody.
    let calls = world.calls.load(Ordering::Relaxed) - before;
    assert!((50..=120).contains(&calls), "{calls}");
    nodes[0].tier.publish("chat", &Destination::User("u".into()), message("m", 1)).expect("room");
    assert_eq!(client.number().await, 1);
}

#[tokio::test]
async fn publishers_are_held_up_not_members() {
    let world = World::new();
    let limits = RealtimeLimits { publish_bytes_max: 20_000, ..RealtimeLimits::default() };
    let options = RealtimeOptions { limits, ..RealtimeOptions::new(ENDPOINT) };
    let mut nodes = Vec::new();
    for node in 1..=2 {
        nodes.push(world.start(node, options.clone()).await);
    }
    let mut client = Client::join(&world, &nodes[1], "chat", None).await;
    let (mut taken, mut busy) = (Vec::new(), 0);
    for number in 0..1_000 {
        match nodes[0].tier.publish("chat", &all(), message("m", number)) {
            Ok(()) => taken.push(number),
            Err(_) => {
                busy += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(busy > 0);
    for number in taken {
        assert_eq!(client.number().await, number);
    }
}

/// Bytes of another node that mean nothing are refused, whatever they are.
#[tokio::test]
async fn calls_that_mean_nothing_are_refused() {
    let (world, nodes) = World::cluster(1).await;
    let mut client = Client::join(&world, &nodes[0], "chat", None).await;
    let mut state = 1_u64;
    for length in 0..500_usize {
        let bytes: Vec<u8> = (0..length % 40)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        // Some are calls by chance; none may do harm.
        drop(nodes[0].tier.on_call(NodeId(9), Bytes::from(bytes)).await);
    }
    assert!(nodes[0].tier.on_call(NodeId(9), Bytes::from_static(b"\xff\xff\xff")).await.is_err());
    assert!(nodes[0].tier.on_call(NodeId(9), Bytes::new()).await.is_err(), "no call at all");
    nodes[0].tier.publish("chat", &all(), message("m", 1)).expect("room");
    assert_eq!(client.number().await, 1);
}
