//! What one transfer costs to read, here and in `serde_amqp`: `cargo run --release -p fleetline-amqp
//! --example transfer_cost`. And what a whole delivery costs the engine, with its outcome.

use std::hint::black_box;
use std::time::Instant;

use fleetline_amqp::frame::{FrameType, Protocol, begin_frame, finish_frame};
use fleetline_amqp::performative::{Attach, Begin, Open, Performative, Role, Transfer};
use fleetline_amqp::{Accept, Engine, EngineOptions, Event, Limits, Outcome};

const COUNT: u32 = 2_000_000;

fn frame(performative: &Performative<'_>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_frame(&mut out, FrameType::Amqp, 0);
    performative.write(&mut out);
    out.extend_from_slice(payload);
    finish_frame(&mut out, start);
    out
}

fn transfer(id: u32) -> Performative<'static> {
    Performative::Transfer(Transfer {
        handle: 1,
        delivery_id: Some(id),
        delivery_tag: Some(&[0, 0, 0, 1]),
        message_format: Some(0),
        settled: Some(false),
        ..Transfer::default()
    })
}

fn main() {
    let mut bytes = Vec::new();
    transfer(7).write(&mut bytes);
    let start = Instant::now();
    for _ in 0..COUNT {
        black_box(Performative::read(&mut black_box(&bytes[..])).is_ok());
    }
    println!("read here:       {:?}", start.elapsed() / COUNT);
    let start = Instant::now();
    for _ in 0..COUNT {
        let read = serde_amqp::from_slice::<fe2o3_amqp_types::performatives::Transfer>(black_box(&bytes));
        black_box(read.is_ok());
    }
    println!("read serde_amqp: {:?}", start.elapsed() / COUNT);

    let options =
        EngineOptions { container_id: "s".into(), mechanisms: Vec::new(), limits: Limits::default() };
    let mut engine = Engine::new(options, 0);
    let open = Open { container_id: "c", ..Open::default() };
    let begin = Begin { incoming_window: 100, ..Begin::default() };
    let mut opening = Protocol::Amqp.header().to_vec();
    opening.extend(frame(&Performative::Open(open), &[]));
    opening.extend(frame(&Performative::Begin(begin), &[]));
    opening.extend(frame(&Performative::Attach(Box::new(Attach::new("l", 1, Role::Sender))), &[]));
    let accept =
        Accept { window: 1000, message_bytes_max: 1 << 20, settled: false, second: false, capabilities: &[] };
    let frames: Vec<Vec<u8>> = (0..COUNT / 10).map(|id| frame(&transfer(id), &[0; 200])).collect();
    let start = Instant::now();
    let mut received = 0u32;
    for bytes in std::iter::once(&opening).chain(&frames) {
        let mut input = &bytes[..];
        while let Some(event) = engine.next(0, &mut input) {
            match event {
                Event::Attach(link, _) => assert!(engine.accept(link, &accept)),
                Event::Received(delivery) => {
                    received += 1;
                    engine.settle(delivery.receipt, &Outcome::Accepted);
                }
                _ => {}
            }
        }
        if engine.output_len() > 16 << 10 {
            engine.output().clear();
        }
    }
    println!("engine, a delivery and its outcome: {:?} ({received})", start.elapsed() / received);
}
