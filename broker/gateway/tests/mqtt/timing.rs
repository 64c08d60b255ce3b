//! Time: silence, tokens that end.

use std::time::Duration;

use fleetline_mqtt::Version;
use tokio::time::Instant;

use crate::client::events;
use crate::counts::Counts;
use crate::world::World;

/// [MQTT-3.1.2-24]: who is silent for one and a half times its keep-alive is closed, and told so on
/// MQTT 5 (`[MQTT5-3.1.2-22]`, 0x8D). Each packet begins the time anew.
#[tokio::test(start_paused = true)]
async fn keep_alive() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    for (version, expected) in [(Version::V311, vec![]), (Version::V5, vec!["disconnect 0x8d"])] {
        let mut client = world.connected("a", version, |connect| connect.keep_alive = 10).await;
        let started = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(14)).await;
            assert_eq!(client.ping().await, "pingresp");
        }
        assert_eq!(client.until_end().await, expected);
        assert_eq!(started.elapsed().as_secs(), 5 * 14 + 15);
    }
    assert_eq!(counts.refused("keep_alive"), 2);
}

/// No keep-alive and the longest one mean what the front bears, which CONNACK has told.
#[tokio::test(start_paused = true)]
async fn longest_silence() {
    let world = World::new().await;
    for keep_alive in [0, 65_535] {
        let mut client = world.connected("a", Version::V5, |connect| connect.keep_alive = keep_alive).await;
        let started = Instant::now();
        assert_eq!(client.until_end().await, ["disconnect 0x8d"]);
        assert_eq!(started.elapsed().as_secs(), 1767);
    }
}

/// A connection ends with its token, however much it sends.
#[tokio::test(start_paused = true)]
async fn token_expiry() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    let username = "hub.example/a/?api-version=2021-04-12";
    for (version, expected) in [(Version::V311, vec![]), (Version::V5, vec!["disconnect 0xa0"])] {
        let token = world.token("hub.example/devices/a", 95);
        let mut client = world.open();
        let mut connect = fleetline_mqtt::Connect::new(version, "a");
        (connect.username, connect.password) = (Some(username), Some(token.as_bytes()));
        connect.keep_alive = 20;
        client.connect(&connect).await;
        assert_eq!(client.next().await, "connack 0x00 present=false");
        let started = Instant::now();
        for number in 1..=9 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            client.telemetry("a", "x", number).await;
            assert_eq!(client.next().await, format!("puback {number}"));
        }
        assert_eq!(client.until_end().await, expected);
        assert!((94..=95).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }
    assert_eq!((counts.refused("token_expired"), world.hub.records().len()), (2, 18));
}

/// A token of a year lasts a year.
#[tokio::test(start_paused = true)]
async fn long_tokens() {
    let world = World::new().await;
    let mut client = world.connect("a").await;
    for _ in 0..60 * 60 {
        tokio::time::sleep(Duration::from_secs(1700)).await;
        assert_eq!(client.ping().await, "pingresp");
    }
    client.publish(&events("a"), b"after 70 days", 1).await;
    assert_eq!(client.next().await, "puback 1");
}
