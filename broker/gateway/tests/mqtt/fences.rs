//! Fences: what a session sent that is over is taken out, and nothing else.

use std::sync::atomic::Ordering;

use fleetline_gateway::hub::HubError;
use fleetline_mqtt::Version;

use crate::client::{Client, settle};
use crate::hub::Script;
use crate::world::World;

/// A batch with records of several devices is refused for one of them: it is formed anew without that
/// one's records, and the others' are acknowledged in order.
#[tokio::test(start_paused = true)]
async fn batches_are_formed_anew() {
    let world = World::new().await;
    world.add("c");
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let mut c = world.connected("c", Version::V5, |_| {}).await;
    // The first is held, so that what follows comes into batches of several devices.
    let first = world.hub.hold(Script::Hold);
    let second = world.hub.hold(Script::Hold);
    let others: Vec<_> = (0..2).map(|_| world.hub.hold(Script::Hold)).collect();
    let before = world.hub.appends.lock().len();
    for number in 1..=30 {
        a.telemetry("a", &number.to_string(), number).await;
        c.telemetry("c", &number.to_string(), number).await;
        b.telemetry("b", &number.to_string(), number).await;
        if number % 5 == 0 {
            settle().await;
        }
    }
    // Four are on their way, the rest fills the fifth.
    assert_eq!(world.hub.appends.lock().len() - before, 4);
    world.hub.silent.store(true, Ordering::SeqCst);
    world.disable("c");
    first.send(()).unwrap();
    second.send(()).unwrap();
    others.into_iter().for_each(|other| other.send(()).unwrap());
    let acks: Vec<String> = (1..=30).map(|number| format!("puback {number}")).collect();
    assert_eq!((a.take(30).await, b.take(30).await), (acks.clone(), acks));
    let last = c.until_end().await;
    assert_eq!(last.last().unwrap(), "disconnect 0x8e");
    // Nothing of c is stored, so nothing of it was acknowledged.
    assert_eq!(last.len(), 1, "{last:?}");
    let records = world.hub.records();
    for device in ["a", "b"] {
        let prefix = format!("{device} ");
        let of: Vec<u16> = records
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!(of, Vec::from_iter(1..=30), "{device}");
    }
    assert_eq!(records.len(), 60);
}

/// A batch that is stored, whose answer is lost, and which a fence then refuses: its other records
/// aren't stored a second time, and what follows is.
#[tokio::test(start_paused = true)]
async fn fence_behind_a_lost_answer() {
    let world = World::new().await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let opened = world.hub.hold(Script::Late);
    b.telemetry("b", "0", 10).await;
    settle().await;
    let lost = world.hub.hold(Script::Late);
    a.telemetry("a", "1", 1).await;
    settle().await;
    world.hub.script(Script::Lose);
    b.telemetry("b", "1", 11).await;
    settle().await;
    let last = world.hub.hold(Script::Hold);
    // One batch of both: it comes while the window is full.
    a.telemetry("a", "2", 2).await;
    settle().await;
    b.telemetry("b", "2", 12).await;
    a.telemetry("a", "3", 3).await;
    b.telemetry("b", "3", 13).await;
    settle().await;
    world.hub.silent.store(true, Ordering::SeqCst);
    world.disable("a");
    opened.send(()).unwrap();
    lost.send(()).unwrap();
    last.send(()).unwrap();
    assert_eq!(b.take(4).await, ["puback 10", "puback 11", "puback 12", "puback 13"]);
    let said = a.until_end().await;
    assert!(said.len() <= 1, "{said:?}");
    let records = world.hub.records();
    let of_b: Vec<&String> = records.iter().filter(|line| line.starts_with("b ")).collect();
    assert_eq!(of_b, ["b 0", "b 1", "b 2", "b 3"]);
    // Stored before the fence, and nothing after it.
    assert_eq!(records.iter().filter(|line| line.starts_with("a ")).count(), 1);
}

/// Records of both devices in one batch that is stored although nobody heard of it, then a fence.
#[tokio::test(start_paused = true)]
async fn mixed_batch_behind_a_lost_answer() {
    let world = World::new().await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let held: Vec<_> = (0..4).map(|_| world.hub.hold(Script::Hold)).collect();
    for number in 1..=4 {
        b.telemetry("b", &number.to_string(), number).await;
        settle().await;
    }
    a.telemetry("a", "5", 5).await;
    b.telemetry("b", "5", 5).await;
    a.telemetry("a", "6", 6).await;
    settle().await;
    world.hub.script(Script::Lose);
    world.hub.script(Script::Fail(HubError::Unavailable("partition 0".into())));
    held.into_iter().for_each(|held| held.send(()).unwrap());
    // The mixed batch is stored when the fence comes; the gateway doesn't know, and waits.
    settle().await;
    assert!(world.hub.records().contains(&"a 6".to_owned()) && a.now().await.is_none());
    world.hub.silent.store(true, Ordering::SeqCst);
    world.disable("a");
    b.telemetry("b", "6", 6).await;
    let acks: Vec<String> = (1..=6).map(|number| format!("puback {number}")).collect();
    assert_eq!(b.take(6).await, acks);
    let mut records = world.hub.records();
    records.sort();
    assert_eq!(records, ["a 5", "a 6", "b 1", "b 2", "b 3", "b 4", "b 5", "b 6"]);
}

/// Only records of a session that is over are in a batch: nothing is left of it, what follows goes on.
#[tokio::test(start_paused = true)]
async fn batches_that_vanish() {
    for unknown in [false, true] {
        let world = World::new().await;
        let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
        b.telemetry("b", "1", 1).await;
        assert_eq!(b.next().await, "puback 1");
        let held = match unknown {
            true => world.hub.hold(Script::Vanish),
            false => world.hub.hold(Script::Hold),
        };
        a.telemetry("a", "1", 1).await;
        settle().await;
        world.hub.silent.store(true, Ordering::SeqCst);
        world.disable("a");
        held.send(()).unwrap();
        for number in 2..=5 {
            b.telemetry("b", &number.to_string(), number).await;
            settle().await;
        }
        let acks: Vec<String> = (2..=5).map(|number| format!("puback {number}")).collect();
        assert_eq!(b.take(4).await, acks, "{unknown}");
        let records: Vec<String> = (1..=5).map(|number| format!("b {number}")).collect();
        assert_eq!(world.hub.records(), records, "{unknown}");
    }
}

/// Brings a batch of `a` and `c` and one of `b` behind it on their way, in this manner, then fences `c`
/// before the first can be sent again. Gives the world and what `a` and `b` are.
async fn two_behind_a_fence(first: Script, second: Script) -> (World, Client, Client) {
    let world = World::new().await;
    world.add("c");
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let mut c = world.connect("c").await;
    let mut held: Vec<_> = (0..4).map(|_| world.hub.hold(Script::Hold)).collect();
    for number in 1..=4 {
        b.telemetry("b", &number.to_string(), number).await;
        settle().await;
    }
    c.telemetry("c", "1", 1).await;
    a.telemetry("a", "1", 1).await;
    settle().await;
    let gates = [first, second].map(|script| world.hub.hold(|gate| Script::Then(gate, Box::new(script))));
    held.remove(0).send(()).unwrap();
    settle().await;
    b.telemetry("b", "5", 5).await;
    settle().await;
    held.into_iter().for_each(|held| held.send(()).unwrap());
    settle().await;
    assert_eq!(world.hub.appends.lock().len(), 6);
    // What is tried again doesn't succeed before the fence.
    world.hub.script(unavailable());
    gates.into_iter().for_each(|gate| gate.send(()).unwrap());
    settle().await;
    world.hub.silent.store(true, Ordering::SeqCst);
    world.disable("c");
    (world, a, b)
}

fn unavailable() -> Script {
    Script::Fail(HubError::Unavailable("partition 0".into()))
}

async fn all_once(world: &World, a: &mut Client, b: &mut Client, of_c: &[&str]) {
    assert_eq!(a.next().await, "puback 1");
    assert_eq!(b.take(5).await.last().unwrap(), "puback 5");
    while world.hub.deliver_stray(0) {}
    for number in 6..=9 {
        b.telemetry("b", &number.to_string(), number).await;
        assert_eq!(b.next().await, format!("puback {number}"));
    }
    let mut records = world.hub.records();
    records.sort();
    let mut expected = vec!["a 1".to_owned()];
    expected.extend((1..=9).map(|number| format!("b {number}")));
    expected.extend(of_c.iter().map(|body| format!("c {body}")));
    assert_eq!(records, expected);
}

/// Both were stored and nobody heard of it; then the first is refused for a fence. What it holds is known
/// to be there, and so is what is behind it: it isn't stored again under another number.
#[tokio::test(start_paused = true)]
async fn two_lost_answers_and_a_fence() {
    let (world, mut a, mut b) = two_behind_a_fence(Script::Lose, Script::Lose).await;
    all_once(&world, &mut a, &mut b, &["1"]).await;
}

/// The first was never stored, and shrinks; the second is given up, gets another number, and arrives
/// late under its old one. It isn't stored twice, nor is the next one mistaken for it.
#[tokio::test(start_paused = true)]
async fn late_arrivals_behind_a_fence() {
    let (world, mut a, mut b) = two_behind_a_fence(unavailable(), Script::Stray).await;
    all_once(&world, &mut a, &mut b, &[]).await;
}

/// Neither was stored, both may arrive late.
#[tokio::test(start_paused = true)]
async fn two_late_arrivals_and_a_fence() {
    let (world, mut a, mut b) = two_behind_a_fence(Script::Stray, Script::Stray).await;
    all_once(&world, &mut a, &mut b, &[]).await;
}
