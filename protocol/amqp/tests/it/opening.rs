//! Headers, SASL, open, close, silence.

use fleetline_amqp::frame::Protocol;
use fleetline_amqp::performative::{Close, Open, Performative};
use fleetline_amqp::sasl::{SaslCode, SaslInit, write_init};
use fleetline_amqp::{Event, Limits};

use crate::kit::{World, begin, frame};

fn open<'a>() -> Open<'a> {
    Open { container_id: "client", hostname: Some("hub"), ..Open::default() }
}

fn ended(events: &[Event<'_>]) -> Option<String> {
    match events {
        [.., Event::Closed { error: Some(error), .. }] => Some(error.condition.to_string()),
        _ => None,
    }
}

/// 2.2, 5.3.2: both protocols may begin a connection; SASL is followed by AMQP.
#[test]
fn with_and_without_sasl() {
    let mut plain = World::new();
    assert!(plain.bytes(b"AMQP\x00\x01\x00").is_empty());
    assert!(plain.bytes(b"\x00").is_empty());
    assert_eq!(&plain.engine.output()[..], b"AMQP\x00\x01\x00\x00");

    let mut world = World::new();
    world.bytes(&Protocol::Sasl.header());
    assert!(world.engine.output().starts_with(b"AMQP\x03\x01\x00\x00"));
    world.engine.output().clear();
    let mut init = Vec::new();
    write_init(
        &mut init,
        &SaslInit { mechanism: "PLAIN", initial_response: Some(b"\0u\0p"), hostname: None },
    );
    // What comes behind init waits for the word on it.
    init.extend_from_slice(&Protocol::Amqp.header());
    let events = world.bytes(&init);
    assert!(matches!(&events[..], [Event::Sasl(SaslInit { mechanism: "PLAIN", .. })]));
    assert!(world.engine.output().is_empty());
    world.engine.sasl_outcome(SaslCode::Ok);
    assert!(world.bytes(&[]).is_empty());
    assert!(world.engine.output().ends_with(&Protocol::Amqp.header()));
    let events = world.send(0, Performative::Open(open()));
    assert!(matches!(&events[..], [Event::Opened(info)] if info.hostname.as_deref() == Some("hub")));
}

/// A refusal is the end, and says so.
#[test]
fn sasl_refused() {
    let mut world = World::new();
    world.bytes(&Protocol::Sasl.header());
    let mut init = Vec::new();
    write_init(&mut init, &SaslInit { mechanism: "PLAIN", initial_response: None, hostname: None });
    world.bytes(&init);
    world.engine.output().clear();
    world.engine.sasl_outcome(SaslCode::Auth);
    let golden = [0, 0, 0, 0x10, 2, 1, 0, 0, 0, 0x53, 0x44, 0xc0, 3, 1, 0x50, 1];
    assert_eq!(&world.engine.output()[..], golden);
    assert!(ended(&world.bytes(&Protocol::Amqp.header())).is_some());
    assert!(world.engine.is_over());
}

/// SASL out of order: AMQP frames in it, SASL in AMQP, SASL twice, frames before any header.
#[test]
fn sasl_out_of_order() {
    let mut init = Vec::new();
    write_init(&mut init, &SaslInit { mechanism: "ANONYMOUS", initial_response: None, hostname: None });
    let amqp_open = frame(0, &Performative::Open(open()), &[]);
    let (sasl, amqp) = (Protocol::Sasl.header(), Protocol::Amqp.header());
    for (bytes, condition) in [
        ([&sasl[..], &amqp_open].concat(), "amqp:connection:framing-error"),
        ([&amqp[..], &init].concat(), "amqp:connection:framing-error"),
        ([&sasl[..], &sasl].concat(), "amqp:connection:framing-error"),
        (init.clone(), "amqp:not-implemented"),
        (b"AMQP\x02\x01\x00\x00".to_vec(), "amqp:not-implemented"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "amqp:not-implemented"),
    ] {
        let mut world = World::new();
        let events = world.bytes(&bytes);
        assert_eq!(ended(&events).as_deref(), Some(condition), "{bytes:02x?}");
        assert!(!world.engine.output().is_empty());
    }
    // After SASL only AMQP may follow.
    let mut world = World::new();
    world.bytes(&[&sasl[..], &init].concat());
    world.engine.sasl_outcome(SaslCode::Ok);
    assert_eq!(ended(&world.bytes(&sasl)).as_deref(), Some("amqp:not-implemented"));
}

/// 2.4.1: open comes first, and once; an error before it is told behind an open of ours.
#[test]
fn open_comes_first_and_once() {
    let mut world = World::new();
    world.bytes(&Protocol::Amqp.header());
    let events = world.send(0, Performative::Begin(begin()));
    assert_eq!(ended(&events).as_deref(), Some("amqp:illegal-state"));
    let sent = world.sent();
    assert!(matches!(sent[0].performative, Performative::Open(_)));
    assert!(matches!(sent[1].performative, Performative::Close(Close { error: Some(_) })));

    let mut world = World::open();
    world.send(0, Performative::Open(open()));
    assert_eq!(world.last_error(), "close amqp:illegal-state");
}

/// Frame sizes: below a header, above what was told, and the narrow bound of the unknown.
#[test]
fn frame_sizes() {
    for (size, known) in [(0u32, true), (7, true), (64 * 1024 + 1, true), (8 * 1024 + 1, false)] {
        let mut world = World::new();
        world.bytes(&Protocol::Amqp.header());
        world.send(0, Performative::Open(open()));
        if known {
            world.engine.authenticated();
        }
        world.sent();
        assert!(ended(&world.bytes(&size.to_be_bytes())).is_some(), "{size}");
        assert_eq!(world.last_error(), "close amqp:connection:framing-error");
    }
    let mut world = World::open();
    assert!(world.bytes(&(64u32 * 1024).to_be_bytes()).is_empty());
}

/// 2.7.1: a peer that takes less than 512 bytes, or nothing, isn't one.
#[test]
fn smallest_frame() {
    for (size, is_fine) in [(0, false), (511, false), (512, true)] {
        let mut world = World::new();
        world.bytes(&Protocol::Amqp.header());
        let events = world.send(0, Performative::Open(Open { max_frame_size: Some(size), ..open() }));
        assert_eq!(ended(&events).is_none(), is_fine);
        assert_eq!(world.engine.is_open(), is_fine);
    }
}

/// Channels above the maximum, and frames on channels without a session.
#[test]
fn channels() {
    let mut world = World::open();
    world.send(4096, Performative::Begin(begin()));
    assert_eq!(world.last_error(), "close amqp:connection:framing-error");
    let mut world = World::open();
    world.send(7, crate::kit::attach(0, fleetline_amqp::performative::Role::Sender));
    assert_eq!(world.last_error(), "close amqp:connection:framing-error");
}

/// 2.4.5: an empty frame at half of the peer's time, the end at twice ours.
#[test]
fn silence() {
    let idle = Open { idle_time_out: Some(60_000), ..open() };
    let mut world = World::open_with(Limits::default(), idle);
    assert_eq!(world.engine.deadline(), Some(30_000));
    world.engine.tick(29_999);
    assert!(world.engine.output().is_empty());
    world.engine.tick(30_000);
    assert_eq!(&world.engine.output()[..], [0, 0, 0, 8, 2, 0, 0, 0]);
    assert_eq!(world.engine.deadline(), Some(60_000));
    world.engine.output().clear();
    // A frame of the peer, also an empty one, says that it is there.
    world.now = 400_000;
    assert!(world.bytes(&[0, 0, 0, 8, 2, 0, 0, 0]).is_empty());
    world.engine.tick(480_001);
    world.engine.output().clear();
    world.engine.tick(880_000);
    assert_eq!(world.last_error(), "close amqp:resource-limit-exceeded");
    assert!(ended(&world.bytes(&[])).is_some());
    assert_eq!(world.engine.deadline(), None);
}

/// A peer that wants a frame every few milliseconds is told no; zero means none.
#[test]
fn small_time_outs() {
    for (idle, is_fine) in [(0, true), (4_999, false), (5_000, true)] {
        let mut world = World::new();
        world.bytes(&Protocol::Amqp.header());
        world.send(0, Performative::Open(Open { idle_time_out: Some(idle), ..open() }));
        assert_eq!(world.engine.is_open(), is_fine, "{idle}");
    }
}

/// 2.4.3: a close is answered with a close, and after ours nothing counts but the peer's.
#[test]
fn closing() {
    let mut world = World::open();
    let events = world.send(0, Performative::Close(Close::default()));
    assert!(matches!(&events[..], [Event::Closed { error: None, by_peer: true }]));
    assert_eq!(world.last_error(), "close -");

    let mut world = World::open();
    world.engine.close(Some(fleetline_amqp::Error::new(fleetline_amqp::condition::CONNECTION_FORCED, "")));
    assert_eq!(world.last_error(), "close amqp:connection:forced");
    assert!(world.send(3, Performative::Begin(begin())).is_empty());
    assert!(world.sent().is_empty());
    let events = world.send(0, Performative::Close(Close::default()));
    assert!(matches!(&events[..], [Event::Closed { error: None, by_peer: false }]));
    assert!(world.bytes(b"anything").is_empty());
}

/// What nobody has authenticated is kept small.
#[test]
fn unknown_peers() {
    let mut world = World::new();
    world.bytes(&Protocol::Amqp.header());
    world.send(0, Performative::Open(open()));
    for channel in 0..4 {
        world.send(channel, Performative::Begin(begin()));
    }
    for handle in 0..16 {
        world.attach(0, handle, fleetline_amqp::performative::Role::Sender);
    }
    world.sent();
    world.send(0, crate::kit::attach(16, fleetline_amqp::performative::Role::Sender));
    assert_eq!(world.last_error(), "close amqp:resource-limit-exceeded");
    let mut world = World::new();
    world.bytes(&Protocol::Amqp.header());
    world.send(0, Performative::Open(open()));
    (0..5).for_each(|channel| drop(world.send(channel, Performative::Begin(begin()))));
    assert_eq!(world.last_error(), "close amqp:resource-limit-exceeded");
}
