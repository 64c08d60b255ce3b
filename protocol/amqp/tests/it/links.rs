//! attach, detach, credit, drain.

use fleetline_amqp::performative::{Attach, Detach, Flow, Performative, Role, SenderSettle};
use fleetline_amqp::{Accept, Blocked, Error, Event, Limits, Outcome, Send, condition};

use crate::kit::{World, accept, attach, credit_flow, delivery, leak};

fn send<'a>(parts: &'a [&'a [u8]], settled: bool) -> Send<'a> {
    Send { tag: b"t", format: 0, settled, parts }
}

/// 2.6.3: an attach is answered with source and target as they were asked for; whoever sends tells its
/// first count, whoever receives how large messages may be and how many may come.
#[test]
fn accepting() {
    let mut world = World::open();
    let link = world.attach(0, 3, Role::Receiver);
    assert!(world.engine.accept(link, &Accept { settled: true, capabilities: &["a", "b"], ..accept() }));
    let sent = world.sent();
    let Performative::Attach(answer) = &sent[0].performative else { panic!() };
    assert_eq!((answer.handle, answer.role), (3, Role::Sender));
    assert_eq!(answer.initial_delivery_count, Some(0));
    assert_eq!(answer.source.as_ref().unwrap().address, Some("from"));
    assert_eq!(answer.snd_settle_mode, SenderSettle::Settled);
    assert!(answer.offered_capabilities.contains("b"));
    assert!(!world.engine.accept(link, &accept()));

    let link = world.attach(0, 4, Role::Sender);
    assert!(world.engine.accept(link, &accept()));
    let sent = world.sent();
    let Performative::Attach(answer) = &sent[0].performative else { panic!() };
    assert_eq!((answer.role, answer.max_message_size), (Role::Receiver, Some(1 << 20)));
    let Performative::Flow(flow) = &sent[1].performative else { panic!() };
    assert_eq!((flow.handle, flow.link_credit), (Some(4), Some(10)));
}

/// 2.6.3: a refused link is attached to nothing, then detached with the reason.
#[test]
fn refusing() {
    for role in [Role::Sender, Role::Receiver] {
        let mut world = World::open();
        let link = world.attach(0, 0, role);
        world.engine.refuse(link, &Error::new(condition::NOT_FOUND, "nobody"));
        let sent = world.sent();
        let Performative::Attach(answer) = &sent[0].performative else { panic!() };
        match role {
            Role::Sender => assert!(answer.target.is_none() && answer.source.is_some()),
            Role::Receiver => assert!(answer.source.is_none() && answer.target.is_some()),
        }
        let Performative::Detach(detach) = &sent[1].performative else { panic!() };
        assert!(detach.closed && detach.error.unwrap().condition == "amqp:not-found");
        // What was on its way counts not; the peer's detach makes the handle free.
        assert!(world.send(0, credit_flow(0, 0, 5)).is_empty());
        assert!(!world.engine.accept(link, &accept()));
        assert!(world.send(0, Performative::Detach(Detach { handle: 0, ..Detach::default() })).is_empty());
        assert!(world.sent().is_empty());
        assert_eq!(world.engine.links(), 0);
        let again = world.attach(0, 0, role);
        assert_ne!(again, link);
    }
}

/// A detach is answered as it was meant, also while the attach waits for its answer.
#[test]
fn detached_by_the_peer() {
    let mut world = World::open();
    let link = world.incoming(0, 0, 5);
    let events = world.send(0, Performative::Detach(Detach { handle: 0, closed: true, error: None }));
    assert_eq!(events, [Event::Detached { link, error: None }]);
    assert!(matches!(world.sent()[0].performative, Performative::Detach(Detach { closed: true, .. })));
    let waiting = world.attach(0, 0, Role::Receiver);
    let events = world.send(0, Performative::Detach(Detach::default()));
    assert_eq!(events, [Event::Detached { link: waiting, error: None }]);
    let sent = world.sent();
    assert!(matches!(sent[0].performative, Performative::Attach(_)));
    assert!(matches!(sent[1].performative, Performative::Detach(Detach { closed: false, .. })));
    assert!(!world.engine.accept(waiting, &accept()));
}

/// Handles: twice, above the maximum, without a link. Many links may have one name.
#[test]
fn handles() {
    let mut world = World::open();
    world.attach(0, 0, Role::Sender);
    world.attach(0, 1, Role::Sender);
    world.sent();
    world.send(0, attach(1, Role::Receiver));
    assert_eq!(world.last_error(), "end amqp:session:handle-in-use");
    let mut world = World::open();
    world.send(0, attach(1 << 20, Role::Sender));
    assert_eq!(world.last_error(), "close amqp:connection:framing-error");
    let mut world = World::open();
    world.send(0, Performative::Detach(Detach { handle: 8, ..Detach::default() }));
    assert_eq!(world.last_error(), "end amqp:session:unattached-handle");
    let mut world = World::open();
    world.send(0, credit_flow(8, 0, 1));
    assert_eq!(world.last_error(), "end amqp:session:unattached-handle");
}

/// Names, sources and targets are kept, so they are bounded; so are links.
#[test]
fn bounds() {
    let mut world = World::open();
    let name = "n".repeat(2000);
    world.send(0, Performative::Attach(Box::new(Attach::new(&name, 0, Role::Sender))));
    assert_eq!(world.last_error(), "end amqp:resource-limit-exceeded");
    let mut world = World::open();
    let mut target = Vec::new();
    let address = "a".repeat(5000);
    fleetline_amqp::terminus::Target { address: Some(&address), ..Default::default() }.write(&mut target);
    let mut large = Attach::new("l", 0, Role::Sender);
    large.target_raw = leak(target);
    world.send(0, Performative::Attach(Box::new(large)));
    assert_eq!(world.last_error(), "end amqp:resource-limit-exceeded");
    let open = fleetline_amqp::performative::Open { container_id: "c", ..Default::default() };
    let mut world = World::open_with(Limits { links_max: 3, ..Limits::default() }, open);
    for handle in 0..3 {
        world.attach(0, handle, Role::Sender);
    }
    world.sent();
    world.send(0, attach(3, Role::Sender));
    assert_eq!(world.last_error(), "end amqp:resource-limit-exceeded");
}

/// An attach of no source and no target is the caller's to refuse, and harms nothing.
#[test]
fn attach_without_terminus() {
    let mut world = World::open();
    let bare = Attach::new("l", 0, Role::Sender);
    let events = world.send(0, Performative::Attach(Box::new(bare)));
    let [Event::Attach(link, attach)] = &events[..] else { panic!() };
    assert_eq!(attach.address(), None);
    world.engine.refuse(*link, &Error::new(condition::INVALID_FIELD, "no target"));
    assert_eq!(world.last_error(), "detach amqp:invalid-field");
}

/// A sender without `initial-delivery-count` isn't one (2.7.3).
#[test]
fn sender_without_count() {
    let mut world = World::open();
    let mut bare = Attach::new("l", 0, Role::Sender);
    bare.initial_delivery_count = None;
    world.send(0, Performative::Attach(Box::new(bare)));
    assert_eq!(world.last_error(), "close amqp:invalid-field");
}

/// Nothing goes without credit, and credit of 2³²−1 is only a number.
#[test]
fn credit() {
    let mut world = World::open();
    let link = world.outgoing(0, 0, 1);
    assert!(world.engine.send(link, &send(&[b"x"], true)).is_ok());
    assert_eq!(world.engine.send(link, &send(&[b"x"], true)), Err(Blocked::Credit));
    let events = world.send(0, credit_flow(0, 1, u32::MAX));
    assert_eq!(events, [Event::Credit(link)]);
    assert_eq!(world.engine.credit(link), u32::MAX);
    assert!(world.engine.send(link, &send(&[b"x"], true)).is_ok());
    world.send(0, credit_flow(0, 0, 2));
    assert_eq!(world.engine.send(link, &send(&[b"x"], true)), Err(Blocked::Credit));
}

/// Credit that comes with the attach is told when the link is accepted.
#[test]
fn early_credit() {
    let mut world = World::open();
    let link = world.attach(0, 0, Role::Receiver);
    assert!(world.send(0, credit_flow(0, 0, 7)).is_empty());
    assert_eq!(world.engine.can_send(link), Err(Blocked::Gone));
    world.engine.accept(link, &accept());
    assert_eq!(world.bytes(&[]), [Event::Credit(link)]);
    assert_eq!(world.engine.credit(link), 7);
}

/// 2.6.7, drain: when there is nothing more, the count goes on by the credit and a flow says so.
#[test]
fn drain() {
    let mut world = World::open();
    let link = world.outgoing(0, 0, 1);
    let mut flow = credit_flow(0, 0, 5);
    let Performative::Flow(inner) = &mut flow else { panic!() };
    inner.drain = true;
    world.send(0, flow);
    assert!(world.engine.drains(link));
    world.engine.send(link, &send(&[b"x"], true)).unwrap();
    world.sent();
    world.engine.drained(link);
    let Performative::Flow(answer) = &world.sent()[0].performative else { panic!() };
    assert_eq!((answer.delivery_count, answer.link_credit, answer.drain), (Some(5), Some(0), true));
    assert!(!world.engine.drains(link));
    world.engine.drained(link);
    assert!(world.sent().is_empty());
}

/// A sender without credit loses its link, and the others nothing.
#[test]
fn transfer_without_credit() {
    let mut world = World::open();
    let other = world.incoming(0, 1, 5);
    let link = world.incoming(0, 0, 2);
    (0..2).for_each(|id| drop(world.transfer(0, delivery(0, id), b"x")));
    let events = world.transfer(0, delivery(0, 2), b"x");
    assert!(matches!(&events[..], [Event::Detached { link: gone, error: Some(_) }] if *gone == link));
    assert_eq!(world.last_error(), "detach amqp:link:transfer-limit-exceeded");
    assert!(world.transfer(0, delivery(0, 3), b"on its way").is_empty());
    let events = world.transfer(0, delivery(1, 4), b"x");
    assert!(matches!(&events[..], [Event::Received(received)] if received.receipt.link == other));
    // Before the attach is answered there is no credit either.
    world.attach(0, 5, Role::Sender);
    world.sent();
    world.transfer(0, delivery(5, 5), b"x");
    assert_eq!(world.last_error(), "detach amqp:link:transfer-limit-exceeded");
}

/// Credit comes back as deliveries are settled, also those that need no outcome.
#[test]
fn credit_comes_back() {
    let mut world = World::open();
    let link = world.incoming(0, 0, 4);
    let mut receipts = Vec::new();
    for id in 0..4 {
        let transfer =
            fleetline_amqp::performative::Transfer { settled: Some(id % 2 == 0), ..delivery(0, id) };
        let events = world.transfer(0, transfer, b"x");
        let [Event::Received(received)] = &events[..] else { panic!() };
        receipts.push(received.receipt);
    }
    world.engine.settle(receipts[0], &Outcome::Accepted);
    assert!(world.sent().is_empty());
    world.engine.settle(receipts[1], &Outcome::Accepted);
    let sent = world.sent();
    assert!(matches!(&sent[0].performative, Performative::Disposition(d) if d.first == 1));
    assert!(matches!(
        sent[1].performative,
        Performative::Flow(Flow { link_credit: Some(2), delivery_count: Some(4), .. })
    ));
    assert_eq!(world.engine.credit(link), 2);
}

/// A receiver that sends transfers, and a link that is detached here while something is open.
#[test]
fn wrong_direction_and_open_ends() {
    let mut world = World::open();
    let link = world.outgoing(0, 0, 3);
    world.engine.send(link, &send(&[b"x"], false)).unwrap();
    assert_eq!(world.engine.unsettled(), 1);
    world.transfer(0, delivery(0, 0), b"x");
    assert_eq!(world.last_error(), "detach amqp:not-allowed");
    assert_eq!(world.engine.unsettled(), 0);
    assert_eq!(world.engine.can_send(link), Err(Blocked::Gone));
}
