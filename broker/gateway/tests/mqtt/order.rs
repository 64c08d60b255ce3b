//! Records are stored once and acknowledged in order, whatever becomes of the appends.

use fleetline_gateway::hub::HubError;
use fleetline_mqtt::Version;

use crate::client::{Client, settle};
use crate::hub::Script;
use crate::world::World;

/// Sends a record of its own batch: the front has handed on all that came before.
async fn one(client: &mut Client, device: &str, number: u16) {
    client.telemetry(device, &number.to_string(), number).await;
    settle().await;
}

/// Records that were stored of these numbers.
fn stored(device: &str, numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{device} {number}")).collect()
}

fn acks(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("puback {number}")).collect()
}

/// [MQTT-4.6.0-2]: PUBACKs come in the order of the PUBLISHes, each after its record is stored, though
/// later batches are done first.
#[tokio::test(start_paused = true)]
async fn late_batches() {
    let world = World::new().await;
    let first = world.hub.hold(Script::Late);
    let second = world.hub.hold(Script::Late);
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    one(&mut a, "a", 1).await;
    one(&mut b, "b", 1).await;
    one(&mut a, "a", 2).await;
    one(&mut b, "b", 2).await;
    assert_eq!(world.hub.appends.lock().len(), 4);
    assert_eq!(world.hub.records(), ["a 1", "b 1", "a 2", "b 2"]);
    // The third and fourth are answered, the second too: nothing may leave before the first.
    second.send(()).unwrap();
    assert_eq!((a.now().await, b.now().await), (None, None));
    first.send(()).unwrap();
    assert_eq!((a.take(2).await, b.take(2).await), (acks(1..=2), acks(1..=2)));
}

/// A batch that overtakes an earlier one is refused by the stream and sent again behind it.
#[tokio::test(start_paused = true)]
async fn overtaking_batches() {
    let world = World::new().await;
    let first = world.hub.hold(Script::Hold);
    let mut a = world.connect("a").await;
    for number in 1..=4 {
        one(&mut a, "a", number).await;
    }
    // Two and three were before one, and refused.
    assert_eq!((world.hub.appends.lock().len(), world.hub.records().len()), (4, 0));
    one(&mut a, "a", 5).await;
    assert_eq!(a.now().await, None);
    first.send(()).unwrap();
    assert_eq!(a.take(5).await, acks(1..=5));
    assert_eq!(world.hub.records(), stored("a", 1..=5));
    // All but the first were refused and sent again, once.
    assert_eq!(world.hub.appends.lock().len(), 5 + 4);
}

/// Whatever an append fails with, its records are stored once, in order, and acknowledged.
#[tokio::test(start_paused = true)]
async fn failures() {
    let errors = [
        HubError::Unavailable("partition 0".into()),
        HubError::NotLeader { what: "partition 0".into(), leader: None },
        HubError::Busy { reason: "queue".into(), retry_after_ms: 5 },
        HubError::DiskFull("/data".into()),
        HubError::Unknown("never proposed".into()),
        HubError::Internal("broken".into()),
    ];
    for error in errors {
        for place in 0..3 {
            let world = World::new().await;
            let mut a = world.connect("a").await;
            for _ in 0..place {
                world.hub.script(Script::Hold(fired()));
            }
            for _ in 0..3 {
                world.hub.script(Script::Fail(error.clone()));
            }
            for number in 1..=4 {
                a.telemetry("a", &number.to_string(), number).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(a.take(4).await, acks(1..=4), "{error} at {place}");
            assert_eq!(world.hub.records(), stored("a", 1..=4), "{error} at {place}");
        }
    }
}

/// A wait that is over.
fn fired() -> tokio::sync::oneshot::Receiver<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    sender.send(()).unwrap();
    receiver
}

/// Answers that are lost: the batches are sent again and stored once, each alone and several in a row.
#[tokio::test(start_paused = true)]
async fn unknown_outcomes() {
    for lost in 1..=4 {
        let world = World::new().await;
        let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
        for _ in 0..lost {
            world.hub.script(Script::Lose);
        }
        for number in 1..=4 {
            one(&mut a, "a", number).await;
            one(&mut b, "b", number).await;
        }
        assert_eq!((a.take(4).await, b.take(4).await), (acks(1..=4), acks(1..=4)), "{lost}");
        let mut records = world.hub.records();
        records.sort();
        let expected: Vec<String> = stored("a", 1..=4).into_iter().chain(stored("b", 1..=4)).collect();
        assert_eq!(records, expected, "{lost}");
    }
}

/// A partition that has forgotten this gateway's producer is told of it anew: nothing is lost, nothing
/// stays unacknowledged.
#[tokio::test(start_paused = true)]
async fn forgotten_producers() {
    let world = World::new().await;
    let mut a = world.connect("a").await;
    for number in 1..=3 {
        one(&mut a, "a", number).await;
    }
    world.hub.forget_producers();
    let late = world.hub.hold(Script::Hold);
    for number in 4..=7 {
        one(&mut a, "a", number).await;
    }
    late.send(()).unwrap();
    assert_eq!(a.take(7).await, acks(1..=7));
    assert_eq!(world.hub.records(), stored("a", 1..=7));
    // It goes on with the numbers of the new beginning.
    let before = world.hub.appends.lock().len();
    one(&mut a, "a", 8).await;
    assert_eq!((a.next().await, world.hub.appends.lock().len()), ("puback 8".to_owned(), before + 1));
}

/// Answers of other kinds keep their place between acknowledgements of records.
#[tokio::test(start_paused = true)]
async fn twin_requests_between_records() {
    let world = World::new().await;
    let mut a = world.connected("a", Version::V5, |_| {}).await;
    let late = world.hub.hold(Script::Late);
    one(&mut a, "a", 1).await;
    a.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{\"x\":1}", 2).await;
    a.publish("$iothub/methods/res/200/?$rid=99", b"{}", 3).await;
    one(&mut a, "a", 4).await;
    assert_eq!(a.now().await, None);
    late.send(()).unwrap();
    assert_eq!(a.take(4).await, acks(1..=4));
}
