//! begin, end, windows.

use fleetline_amqp::performative::{Begin, End, Flow, Performative, Role};
use fleetline_amqp::{Blocked, Error, Event, Limits, Outcome, Send, condition};

use crate::kit::{World, attach, begin, credit_flow, delivery, disposition};

fn send<'a>(parts: &'a [&'a [u8]]) -> Send<'a> {
    Send { tag: b"t", format: 0, settled: false, parts }
}

fn session_flow(next_incoming_id: Option<u32>, incoming_window: u32) -> Performative<'static> {
    Performative::Flow(Flow { next_incoming_id, incoming_window, outgoing_window: 5, ..Flow::default() })
}

/// 2.5.1: a begin is answered with the peer's channel in it; 2.5.3: an end with an end.
#[test]
fn begin_and_end() {
    let mut world = World::open();
    world.send(9, Performative::Begin(begin()));
    let sent = world.sent();
    assert_eq!(sent[0].channel, 9);
    assert!(matches!(sent[0].performative, Performative::Begin(Begin { remote_channel: Some(9), .. })));
    let link = world.attach(9, 0, Role::Sender);
    let events = world.send(9, Performative::End(End::default()));
    assert_eq!(events, [Event::Detached { link, error: None }, Event::Ended(9)]);
    assert_eq!(world.last_error(), "end -");
    assert_eq!(world.engine.links(), 0);
    // The channel is free again.
    world.send(9, Performative::Begin(begin()));
    assert_eq!(world.sent().len(), 1);
}

/// Begin twice, and begin for a session that nobody has begun.
#[test]
fn wrong_begins() {
    let mut world = World::open();
    world.send(0, Performative::Begin(begin()));
    assert_eq!(world.last_error(), "close amqp:connection:framing-error");
    let mut world = World::open();
    world.send(1, Performative::Begin(Begin { remote_channel: Some(0), ..begin() }));
    assert_eq!(world.last_error(), "close amqp:not-allowed");
}

/// One session's error leaves the other as it is, and what is on its way to the ended one counts not.
#[test]
fn errors_stay_inside() {
    let mut world = World::open();
    world.send(1, Performative::Begin(begin()));
    let other = world.outgoing(1, 0, 5);
    world.incoming(0, 0, 5);
    let events = world.transfer(0, delivery(77, 0), b"to a handle without a link");
    assert!(matches!(&events[..], [Event::Detached { .. }, Event::Ended(0)]));
    assert_eq!(world.last_error(), "end amqp:session:unattached-handle");
    assert!(world.transfer(0, delivery(0, 1), b"late").is_empty());
    assert!(world.send(0, attach(5, Role::Sender)).is_empty());
    assert!(world.send(0, Performative::End(End::default())).is_empty());
    assert!(world.sent().is_empty());
    assert!(world.engine.send(other, &send(&[b"x"])).is_ok());
    // Its channel may be used again now.
    world.send(0, Performative::Begin(begin()));
    assert!(matches!(world.sent().last().unwrap().performative, Performative::Begin(_)));
}

/// 2.5.6: transfers beyond the window end the session; the window is opened again at half.
#[test]
fn incoming_window() {
    let mut world = World::open();
    let link = world.incoming(0, 0, 5000);
    let mut flows = 0;
    for id in 0..3000 {
        let events = world.transfer(0, delivery(0, id), b"x");
        let Event::Received(received) = &events[0] else { panic!() };
        world.engine.settle(received.receipt, &Outcome::Accepted);
        flows += world
            .sent()
            .iter()
            .filter(|sent| {
                matches!(
                    sent.performative,
                    Performative::Flow(Flow { handle: None, incoming_window: 2048, .. })
                )
            })
            .count();
    }
    assert_eq!(flows, 2);
    assert_eq!(world.engine.credit(link), 4500);

    let mut narrow = World::open_with(
        Limits { incoming_window: 1, ..Limits::default() },
        fleetline_amqp::performative::Open { container_id: "c", ..Default::default() },
    );
    narrow.incoming(0, 0, 10);
    narrow.transfer(0, delivery(0, 0), b"x");
    narrow.transfer(0, delivery(0, 1), b"x");
    assert_eq!(narrow.last_error(), "end amqp:session:window-violation");
}

/// The peer's window cuts a delivery, and its rest goes before anything else of the session.
#[test]
fn outgoing_window() {
    let mut world = World::open();
    let link = world.attach(0, 0, Role::Receiver);
    let second = world.attach(0, 1, Role::Receiver);
    world.engine.accept(link, &crate::kit::accept());
    world.engine.accept(second, &crate::kit::accept());
    for handle in 0..2 {
        let mut flow = credit_flow(handle, 0, 10);
        let Performative::Flow(inner) = &mut flow else { panic!() };
        inner.incoming_window = 2;
        world.send(0, flow);
    }
    world.sent();
    // The peer takes 512 bytes a frame, as nothing else was said: no, it said nothing of it, so 64 KiB.
    let body: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    world.engine.send(link, &send(&[&body[..100], &body[100..]])).unwrap();
    assert_eq!(world.sent().len(), 2);
    assert_eq!(world.engine.can_send(second), Err(Blocked::Window));
    assert_eq!(world.send(0, session_flow(Some(2), 1)), [Event::Window(0)]);
    assert_eq!(world.engine.can_send(second), Err(Blocked::Window));
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.send(0, session_flow(Some(3), 10)), [Event::Window(0)]);
    let sent = world.sent();
    assert!(
        matches!(&sent[..], [last] if matches!(&last.performative, Performative::Transfer(t) if !t.more))
    );
    assert_eq!(world.engine.can_send(second), Ok(()));
}

/// An echo is answered, also about the session alone.
#[test]
fn echo() {
    let mut world = World::open();
    world.send(0, Performative::Flow(Flow { echo: true, incoming_window: 3, ..Flow::default() }));
    assert!(matches!(world.sent()[0].performative, Performative::Flow(Flow { handle: None, .. })));
    world.outgoing(0, 4, 2);
    let mut flow = credit_flow(4, 0, 2);
    let Performative::Flow(inner) = &mut flow else { panic!() };
    inner.echo = true;
    world.send(0, flow);
    let Performative::Flow(answer) = &world.sent()[0].performative else { panic!() };
    assert_eq!((answer.handle, answer.link_credit, answer.delivery_count), (Some(4), Some(2), Some(0)));
}

/// Outcomes of foreign deliveries and of all possible ones touch only what exists in the session.
#[test]
fn outcomes() {
    let mut world = World::open();
    world.send(1, Performative::Begin(begin()));
    let link = world.outgoing(0, 0, 50);
    let ids: Vec<_> = (0..5).map(|_| world.engine.send(link, &send(&[b"x"])).unwrap()).collect();
    // The other session has none of these.
    assert!(world.send(1, Performative::Disposition(disposition(0, 4, true))).is_empty());
    assert!(world.send(0, Performative::Disposition(disposition(70, 90, true))).is_empty());
    let events = world.send(0, Performative::Disposition(disposition(1, 2, true)));
    assert_eq!(events.len(), 2);
    assert!(matches!(&events[0], Event::Outcome { id, settled: true, .. } if *id == ids[1]));
    assert!(world.send(0, Performative::Disposition(disposition(1, 2, true))).is_empty());
    let events = world.send(0, Performative::Disposition(disposition(0, i32::MAX as u32, true)));
    assert_eq!(events.len(), 3);
    assert_eq!(world.engine.unsettled(), 0);
    world.send(0, Performative::Disposition(disposition(5, 4, true)));
    assert_eq!(world.last_error(), "end amqp:invalid-field");
}

/// 2.6.12, receiver settles second: its word is told once, the delivery lives until we settle it.
#[test]
fn settled_second() {
    let mut world = World::open();
    let link = world.outgoing(0, 0, 50);
    let id = world.engine.send(link, &send(&[b"x"])).unwrap();
    world.sent();
    let events = world.send(0, Performative::Disposition(disposition(0, 0, false)));
    assert!(matches!(&events[..], [Event::Outcome { settled: false, .. }]));
    assert!(world.send(0, Performative::Disposition(disposition(0, 0, false))).is_empty());
    world.engine.settle_sent(id, &Outcome::Rejected(Error::new(condition::MESSAGE_LOCK_LOST, "late")));
    let sent = world.sent();
    let Performative::Disposition(answer) = &sent[0].performative else { panic!() };
    assert!(answer.role == Role::Sender && answer.settled && answer.first == 0);
    assert_eq!(world.engine.unsettled(), 0);
    world.engine.settle_sent(id, &Outcome::Accepted);
    assert!(world.sent().is_empty());
}
