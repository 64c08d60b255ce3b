//! One connection an identity (P12): once the second has its CONNACK, nothing of the first is stored.

use std::sync::atomic::Ordering;

use fleetline_mqtt::{QoS, Version};

use crate::client::{events, publish, settle};
use crate::hub::Script;
use crate::world::World;

/// Sends on the first connection with its appends delayed, then opens the second. Whether the gateway
/// is told or learns of it by a refusal, and wherever the append hangs.
#[tokio::test(start_paused = true)]
async fn nothing_of_the_first_behind_the_second_connack() {
    for (told, stored_before) in [(true, false), (false, false), (true, true), (false, true)] {
        let world = World::new().await;
        world.hub.silent.store(!told, Ordering::SeqCst);
        let mut first = world.connected("a", Version::V5, |_| {}).await;
        let mut b = world.connect("b").await;
        let held = world.hub.hold(if stored_before { Script::Late } else { Script::Hold });
        first.telemetry("a", "old 1", 1).await;
        settle().await;
        let others = [world.hub.hold(Script::Hold), world.hub.hold(Script::Hold)];
        for number in 2..=6 {
            first.telemetry("a", &format!("old {number}"), number).await;
            b.telemetry("b", &number.to_string(), number).await;
            settle().await;
        }
        let mut second = world.connect("a").await;
        let before = world.hub.records();
        // Its socket may be closed already.
        first.send_some(&publish(Version::V5, &events("a"), b"old 7", 7)).await;
        second.telemetry("a", "new 1", 1).await;
        settle().await;
        held.send(()).unwrap();
        others.into_iter().for_each(|other| other.send(()).unwrap());
        second.telemetry("a", "new 2", 2).await;
        assert_eq!(second.take(2).await, ["puback 1", "puback 2"], "told: {told}");
        let acks: Vec<String> = (2..=6).map(|number| format!("puback {number}")).collect();
        assert_eq!(b.take(5).await, acks);
        let said = first.until_end().await;
        assert_eq!(said.last().unwrap(), "disconnect 0x8e", "told: {told}");
        // Acknowledged to the first is at most what was stored before.
        assert!(said.len() <= 1 + before.len(), "{said:?}");
        let after = &world.hub.records()[before.len()..];
        assert_eq!(after.iter().filter(|line| line.contains("old")).count(), 0, "{after:?}");
        let new: Vec<&String> = after.iter().filter(|line| line.contains("new")).collect();
        assert_eq!(new, ["a new 1", "a new 2"]);
    }
}

/// The first says good-bye, or its socket breaks, while its records are on their way: they come before
/// those of the second, or never.
#[tokio::test(start_paused = true)]
async fn connections_that_end_with_records_on_their_way() {
    for graceful in [true, false] {
        for second_before_append in [true, false] {
            let world = World::new().await;
            let mut first = world.connect("a").await;
            let held = world.hub.hold(Script::Hold);
            first.telemetry("a", "old", 1).await;
            settle().await;
            if graceful {
                first.disconnect(0).await;
            }
            drop(first);
            settle().await;
            if !second_before_append {
                held.send(()).unwrap();
                settle().await;
                let mut second = world.connect("a").await;
                second.telemetry("a", "new", 1).await;
                assert_eq!(second.next().await, "puback 1");
                assert_eq!(world.hub.records(), ["a old", "a new"]);
                continue;
            }
            let mut second = world.connect("a").await;
            second.telemetry("a", "new", 1).await;
            settle().await;
            held.send(()).unwrap();
            assert_eq!(second.next().await, "puback 1");
            assert_eq!(world.hub.records(), ["a new"], "{graceful}");
            assert_eq!(world.connections.len(), 1);
        }
    }
}

/// Two clients with one identity throw each other out a thousand times, and change subscriptions
/// meanwhile: each is told, one is left, records stay in the order of the sessions, nothing leaks.
#[tokio::test(start_paused = true)]
async fn ping_pong() {
    let world = World::new().await;
    let filters = ["devices/a/messages/devicebound/#", "$iothub/methods/POST/#", "$iothub/twin/res/#"];
    let mut last = world.connected("a", Version::V5, |_| {}).await;
    for round in 1..=1000_u16 {
        let mut next = world.connected("a", Version::V5, |_| {}).await;
        let filter = filters[usize::from(round) % filters.len()];
        match round % 2 {
            0 => assert_eq!(next.subscribe(1, &[(filter, QoS::AtLeastOnce)]).await, "suback 1 [01]"),
            _ => drop(next.unsubscribe(1, &[filter]).await),
        }
        next.telemetry("a", &round.to_string(), round).await;
        if round % 3 == 0 {
            assert_eq!(next.next().await, format!("puback {round}"));
        }
        let said = last.until_end().await;
        assert_eq!(said.last().unwrap(), "disconnect 0x8e", "{round}");
        last = next;
    }
    settle().await;
    assert_eq!((world.connections.len(), world.context.connections()), (1, 1));
    assert_eq!(last.ping().await.split(' ').next(), Some("puback"));
    let stored: Vec<u16> =
        world.hub.records().iter().map(|line| line.strip_prefix("a ").unwrap().parse().unwrap()).collect();
    assert!(stored.is_sorted_by(|a, b| a < b), "{stored:?}");
    let acknowledged = (1..=1000).filter(|round| round % 3 == 0);
    assert!(acknowledged.into_iter().all(|round| stored.contains(&round)));
    assert!(world.hub.view("a").session.unwrap().connected);
}
