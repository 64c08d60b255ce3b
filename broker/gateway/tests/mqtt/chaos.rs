//! Appends that fail in every way, in random order, while identities are taken over: whatever happens,
//! records are stored once, in order, and those that were acknowledged are there.

use fleetline_gateway::hub::HubError;

use crate::client::{Client, settle};
use crate::hub::Script;
use crate::world::World;

/// Numbers that look random; the same for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A device and what it has sent; "session.number" is a record's body.
struct Sender {
    name: &'static str,
    client: Client,
    session: u32,
    number: u16,
    acked: Vec<String>,
}

impl Sender {
    async fn new(world: &World, name: &'static str) -> Sender {
        Sender { name, client: world.connect(name).await, session: 1, number: 0, acked: Vec::new() }
    }

    async fn send(&mut self) {
        self.number += 1;
        let body = format!("{}.{}", self.session, self.number);
        self.client.telemetry(self.name, &body, self.number).await;
    }

    /// Reads what is acknowledged; in order.
    fn note(&mut self, line: &str) {
        let expected = format!("puback {}", self.acked_now() + 1);
        assert_eq!(line, expected, "{} session {}", self.name, self.session);
        self.acked.push(format!("{}.{}", self.session, self.acked_now() + 1));
    }

    /// How many of this session are acknowledged.
    fn acked_now(&self) -> u16 {
        let prefix = format!("{}.", self.session);
        self.acked.iter().filter(|body| body.starts_with(&prefix)).count() as u16
    }

    async fn take_over(&mut self, world: &World) {
        while let Some(line) = self.client.now().await {
            if line == "end" {
                break;
            }
            self.note(&line);
        }
        self.client = world.connect(self.name).await;
        (self.session, self.number) = (self.session + 1, 0);
    }

    async fn all_acked(&mut self) {
        while self.acked_now() < self.number {
            let line = self.client.next().await;
            self.note(&line);
        }
    }
}

fn script(draw: &mut Draw) -> Script {
    match draw.below(5) {
        0 => Script::Fail(HubError::Unavailable("partition 0".into())),
        1 => Script::Fail(HubError::Unknown("never proposed".into())),
        2 => Script::Lose,
        _ => Script::Stray,
    }
}

async fn run(seed: u64) {
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let world = World::new().await;
    world.add("c");
    let mut senders =
        [Sender::new(&world, "a").await, Sender::new(&world, "b").await, Sender::new(&world, "c").await];
    let mut gates = Vec::new();
    for _ in 0..150 {
        match draw.below(16) {
            0..=2 => world.hub.script(script(&mut draw)),
            3..=5 => {
                let script = Box::new(script(&mut draw));
                gates.push(world.hub.hold(|gate| Script::Then(gate, script)));
            }
            6 | 7 if !gates.is_empty() => {
                let gate = gates.swap_remove(draw.below(gates.len() as u64) as usize);
                gate.send(()).unwrap();
            }
            8 => drop(world.hub.deliver_stray(draw.below(8) as usize)),
            9 | 10 => settle().await,
            11 => senders[2].take_over(&world).await,
            _ => senders[draw.below(3) as usize].send().await,
        }
    }
    gates.into_iter().for_each(|gate| gate.send(()).unwrap());
    settle().await;
    world.hub.scripts.lock().clear();
    for sender in &mut senders {
        sender.send().await;
        settle().await;
        world.hub.deliver_stray(0);
        sender.all_acked().await;
    }
    while world.hub.deliver_stray(0) {}
    let records = world.hub.records();
    for sender in &senders {
        let prefix = format!("{} ", sender.name);
        let bodies: Vec<&str> = records.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let places: Vec<(u32, u16)> = bodies
            .iter()
            .map(|body| body.split_once('.').unwrap())
            .map(|(session, number)| (session.parse().unwrap(), number.parse().unwrap()))
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "seed {seed}, {}: {places:?}", sender.name);
        let lost = sender.acked.iter().find(|body| !bodies.contains(&body.as_str()));
        assert_eq!(lost, None, "seed {seed}, {}: {places:?}", sender.name);
    }
}

/// Many schedules. A failure names its seed.
#[tokio::test(start_paused = true)]
async fn random_failures() {
    for seed in 1..=3000 {
        run(seed).await;
    }
}
