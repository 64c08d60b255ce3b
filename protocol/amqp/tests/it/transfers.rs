//! Deliveries in one part and in many, both ways.

use fleetline_amqp::performative::{Open, Performative, Transfer};
use fleetline_amqp::{Accept, Event, Limits, Outcome, Received, Send};

use crate::kit::{World, accept, delivery};

fn received(events: Vec<Event<'static>>) -> Received<'static> {
    match events.into_iter().next() {
        Some(Event::Received(received)) => received,
        other => panic!("{other:?}"),
    }
}

fn part<'a>(handle: u32, more: bool) -> Transfer<'a> {
    Transfer { handle, more, ..Transfer::default() }
}

/// 2.6.14: parts are put together; links take turns within a session.
#[test]
fn parts() {
    let mut world = World::open();
    world.incoming(0, 0, 5);
    world.incoming(0, 1, 5);
    assert!(world.transfer(0, Transfer { more: true, ..delivery(0, 0) }, b"a").is_empty());
    assert!(world.transfer(0, Transfer { more: true, ..delivery(1, 1) }, b"1").is_empty());
    assert!(world.transfer(0, Transfer { delivery_id: Some(0), ..part(0, true) }, b"b").is_empty());
    let second = received(world.transfer(0, part(1, false), b"2"));
    assert_eq!(&second.payload[..], b"12");
    let settled = Transfer { settled: Some(true), ..part(0, false) };
    let first = received(world.transfer(0, settled, b"c"));
    assert_eq!(&first.payload[..], b"abc");
    assert!(first.receipt.settled && !second.receipt.settled);
}

/// A delivery that is given up leaves nothing, and another may follow.
#[test]
fn aborted() {
    let mut world = World::open();
    world.incoming(0, 0, 5);
    world.transfer(0, Transfer { more: true, ..delivery(0, 0) }, b"a");
    assert!(world.transfer(0, Transfer { aborted: true, ..part(0, false) }, b"b").is_empty());
    assert!(world.transfer(0, Transfer { aborted: true, ..delivery(0, 1) }, b"b").is_empty());
    assert_eq!(&received(world.transfer(0, delivery(0, 2), b"c")).payload[..], b"c");
}

/// The first part names the delivery; a part of another delivery in between isn't one.
#[test]
fn names_of_deliveries() {
    for wrong in
        [Transfer { delivery_id: None, ..delivery(0, 0) }, Transfer { delivery_tag: None, ..delivery(0, 0) }]
    {
        let mut world = World::open();
        world.incoming(0, 0, 5);
        world.transfer(0, wrong, b"x");
        assert_eq!(world.last_error(), "end amqp:invalid-field");
    }
    let mut world = World::open();
    world.incoming(0, 0, 5);
    world.transfer(0, Transfer { more: true, ..delivery(0, 0) }, b"a");
    world.transfer(0, delivery(0, 1), b"x");
    assert_eq!(world.last_error(), "detach amqp:invalid-field");
    // A number that was used, also over the end of numbers.
    let mut world = World::open();
    world.incoming(0, 0, 5);
    received(world.transfer(0, delivery(0, u32::MAX), b"x"));
    received(world.transfer(0, delivery(0, 0), b"x"));
    world.transfer(0, delivery(0, 0), b"x");
    assert_eq!(world.last_error(), "end amqp:invalid-field");
}

/// A message may be as large as the link says, in however many parts.
#[test]
fn message_size() {
    for parts in [1, 2] {
        let mut world = World::open();
        let link = world.attach(0, 0, fleetline_amqp::performative::Role::Sender);
        world.engine.accept(link, &Accept { message_bytes_max: 10, ..accept() });
        world.sent();
        let events = match parts {
            1 => world.transfer(0, delivery(0, 0), &[0; 11]),
            _ => {
                world.transfer(0, Transfer { more: true, ..delivery(0, 0) }, &[0; 6]);
                world.transfer(0, part(0, true), &[0; 5])
            }
        };
        assert!(matches!(&events[..], [Event::Detached { error: Some(_), .. }]));
        assert_eq!(world.last_error(), "detach amqp:link:message-size-exceeded");
    }
}

/// Endless deliveries in parts hold no more than the bound, and end their own link.
#[test]
fn partial_bytes() {
    let limits = Limits { partial_bytes_max: 100, ..Limits::default() };
    let mut world = World::open_with(limits, Open { container_id: "c", ..Open::default() });
    world.incoming(0, 0, 5);
    world.incoming(0, 1, 5);
    world.transfer(0, Transfer { more: true, ..delivery(0, 0) }, &[0; 60]);
    world.transfer(0, Transfer { more: true, ..delivery(1, 1) }, &[0; 41]);
    assert_eq!(world.last_error(), "detach amqp:resource-limit-exceeded");
    assert_eq!(received(world.transfer(0, part(0, false), &[0; 40])).payload.len(), 100);
    // What was whole, or ended, is free again.
    world.incoming(0, 2, 5);
    world.transfer(0, Transfer { more: true, ..delivery(2, 2) }, &[0; 100]);
    assert_eq!(received(world.transfer(0, part(2, false), &[])).payload.len(), 100);
}

/// Accepted deliveries in a row are told in one frame, others by themselves, all in order.
#[test]
fn outcomes_are_joined() {
    let mut world = World::open();
    world.incoming(0, 0, 100);
    let receipts: Vec<_> =
        (0..6).map(|id| received(world.transfer(0, delivery(0, id), b"x")).receipt).collect();
    for (at, receipt) in receipts.into_iter().enumerate() {
        let outcome = if at == 3 { Outcome::Released } else { Outcome::Accepted };
        world.engine.settle(receipt, &outcome);
    }
    let told: Vec<(u32, Option<u32>)> = world
        .sent()
        .iter()
        .map(|sent| match &sent.performative {
            Performative::Disposition(disposition) => (disposition.first, disposition.last),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(0, Some(2)), (3, None), (4, Some(5))]);
}

/// What we send is cut to the peer's frames, and put together it is what was sent.
#[test]
fn sending_in_parts() {
    for frame_max in [512, 513, 600, 4096] {
        for size in [0, 1, 400, 470, 480, 490, 500, 512, 5000] {
            let open = Open { container_id: "c", max_frame_size: Some(frame_max), ..Open::default() };
            let mut world = World::open_with(Limits::default(), open);
            let link = world.outgoing(0, 0, 5);
            let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let (head, tail) = body.split_at(size / 3);
            let send = Send { tag: &[7; 32], format: 0, settled: true, parts: &[head, &[], tail] };
            world.engine.send(link, &send).unwrap();
            let raw = world.engine.output().clone();
            let mut lens = &raw[..];
            while !lens.is_empty() {
                let len = u32::from_be_bytes(lens[..4].try_into().unwrap());
                assert!(len <= frame_max);
                lens = &lens[len as usize..];
            }
            let sent = world.sent();
            let mut whole = Vec::new();
            for (at, frame) in sent.iter().enumerate() {
                let Performative::Transfer(transfer) = &frame.performative else { panic!() };
                assert_eq!(transfer.more, at + 1 < sent.len());
                assert_eq!(transfer.delivery_id.is_some(), at == 0);
                whole.extend_from_slice(frame.payload);
            }
            assert_eq!(whole, body);
        }
    }
}
