//! Twins: desired changes come once each and in order; requests of a session that is over do nothing.

use std::sync::atomic::Ordering;

use fleetline_devices::Wake;
use fleetline_mqtt::{QoS, Version};

use crate::client::settle;
use crate::world::World;

const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const ANSWERS: &str = "$iothub/twin/res/#";

fn change(number: u64) -> String {
    let (id, version) = (0, number + 1);
    format!(
        "publish {id} $iothub/twin/PATCH/properties/desired/?$version={version} {{\"$version\":{version},\"x\":{number}}}"
    )
}

/// Each change once, in order, though wakes come often or not at all.
#[tokio::test(start_paused = true)]
async fn desired_changes() {
    let world = World::new().await;
    let mut client = world.connect("a").await;
    client.subscribe(1, &[(DESIRED, QoS::AtMostOnce)]).await;
    let mut expected = Vec::new();
    let mut came = Vec::new();
    for number in 1..=20 {
        world.hub.silent.store(number % 4 == 2, Ordering::SeqCst);
        world.desire("a", &format!("{{\"x\":{number}}}"));
        expected.push(change(number));
        if number % 3 == 0 {
            world.hub.wake_again("a", Wake::Desired);
            tokio::task::yield_now().await;
            world.hub.wake_again("a", Wake::Desired);
            while let Some(line) = client.now().await {
                came.push(line);
            }
        }
    }
    while let Some(line) = client.now().await {
        came.push(line);
    }
    assert_eq!(came, expected);
    // What was there before a connection isn't pushed to it: it reads its twin.
    client.disconnect(0).await;
    settle().await;
    world.desire("a", "{\"x\":21}");
    let mut client = world.connect("a").await;
    world.hub.wake_again("a", Wake::Desired);
    assert_eq!(client.now().await, None);
    world.desire("a", "{\"x\":22}");
    assert_eq!(client.next().await, change(22));
}

/// Changes that the leader has forgotten can't be pushed: the connection ends, so that the device reads
/// its twin again.
#[tokio::test(start_paused = true)]
async fn forgotten_changes() {
    let world = World::new().await;
    for version in [Version::V311, Version::V5] {
        let mut client = world.connected("a", version, |_| {}).await;
        client.subscribe(1, &[(DESIRED, QoS::AtMostOnce)]).await;
        world.hub.silent.store(true, Ordering::SeqCst);
        for number in 0..=fleetline_devices::limits::DESIRED_CHANGES_KEPT {
            world.desire("a", &format!("{{\"x\":{}}}", 100 + number));
        }
        assert_eq!(client.now().await, None);
        world.hub.silent.store(false, Ordering::SeqCst);
        world.hub.wake_again("a", Wake::Desired);
        let said = client.until_end().await;
        let expected = if version == Version::V5 { vec!["disconnect 0x89"] } else { vec![] };
        assert_eq!(said, expected);
        settle().await;
        assert!(!world.hub.view("a").session.unwrap().connected);
    }
}

/// A session that is over changes nothing and reads nothing, also when its gateway hasn't heard.
#[tokio::test(start_paused = true)]
async fn requests_of_a_session_that_is_over() {
    let world = World::new().await;
    let requests: [(&str, &[u8]); 2] =
        [("$iothub/twin/GET/?$rid=1", b""), ("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{\"x\":1}")];
    for (topic, body) in requests {
        world.hub.silent.store(true, Ordering::SeqCst);
        let mut first = world.connected("a", Version::V5, |_| {}).await;
        first.subscribe(1, &[(ANSWERS, QoS::AtLeastOnce)]).await;
        let _second = world.connected("a", Version::V5, |_| {}).await;
        first.publish(topic, body, 2).await;
        assert_eq!(first.until_end().await, ["disconnect 0x8e"], "{topic}");
    }
    let twin = world.hub.view("a").twin;
    assert!(fleetline_twins::Section::decode(&twin.reported).unwrap().device_json()["$version"] == 1);
}

/// Patches that are no patches are refused with 400 and the connection goes on; a flood of them too.
#[tokio::test(start_paused = true)]
async fn hostile_patches() {
    let world = World::new().await;
    let mut client = world.connect("a").await;
    client.subscribe(1, &[(ANSWERS, QoS::AtMostOnce)]).await;
    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    let nulls =
        format!("{{{}}}", (0..20_000).map(|n| format!("\"k{n}\":null")).collect::<Vec<_>>().join(","));
    let patches = [
        deep.as_str(),
        &large,
        &nulls,
        "",
        "[]",
        "null",
        "{\"a\":",
        "{\"$a\":1}",
        "{\"a.b\":1}",
        "{\"a b\":1}",
        "{\"a\\u0000\":1}",
        "{\"a\":1e999}",
        "\u{feff}{}",
    ];
    let mut reported = 1;
    for patch in patches {
        client.publish("$iothub/twin/PATCH/properties/reported/?$rid=7", patch.as_bytes(), 0).await;
        let line = client.next().await;
        let refused = line.starts_with("publish 0 $iothub/twin/res/4");
        reported += u64::from(!refused);
        // A patch of nulls alone takes away what isn't there.
        assert!(refused || patch == nulls, "{patch:.40}: {line:.100}");
    }
    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=8&$version=99", b"{\"x\":1}", 0).await;
    assert!(client.next().await.starts_with("publish 0 $iothub/twin/res/412/?$rid=8"));
    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=9", b"{\"x\":1}", 0).await;
    let expected = format!("publish 0 $iothub/twin/res/204/?$rid=9&$version={} ", reported + 1);
    assert_eq!(client.next().await, expected);
}
