//! Any bytes, and any cut of good ones.

use fleetline_amqp::frame::Protocol;
use fleetline_amqp::message::Message;
use fleetline_amqp::performative::{Attach, Begin, Detach, Performative, Role, Transfer};
use fleetline_amqp::value::Value;
use fleetline_amqp::{Accept, Engine, EngineOptions, Event, Limits, Outcome, Send};
use proptest::prelude::*;

use crate::kit::{accept, attach, begin, credit_flow, delivery, disposition, frame};

fn engine() -> Engine {
    let options =
        EngineOptions { container_id: "s".into(), mechanisms: vec!["ANONYMOUS"], limits: Limits::default() };
    Engine::new(options, 0)
}

/// A caller that says yes to everything and answers what comes.
fn drive(engine: &mut Engine, input: &mut &[u8], events: &mut Vec<String>) {
    while let Some(event) = engine.next(1, input) {
        events.push(format!("{event:?}"));
        match event {
            Event::Sasl(_) => engine.sasl_outcome(fleetline_amqp::sasl::SaslCode::Ok),
            Event::Attach(link, _) => drop(engine.accept(link, &Accept { window: 50, ..accept() })),
            Event::Received(received) => engine.settle(received.receipt, &Outcome::Accepted),
            Event::Credit(link) => {
                for _ in 0..3 {
                    let send = Send { tag: b"t", format: 0, settled: false, parts: &[&[1; 700], &[2; 100]] };
                    let _ = engine.send(link, &send);
                }
                engine.drained(link);
            }
            Event::Outcome { id, settled: false, .. } => engine.settle_sent(id, &Outcome::Accepted),
            _ => {}
        }
    }
}

/// Everything a good client does.
fn script() -> Vec<u8> {
    let mut bytes = Protocol::Amqp.header().to_vec();
    let mut put = |channel, performative: &Performative<'_>, payload: &[u8]| {
        bytes.extend(frame(channel, performative, payload));
    };
    let open = fleetline_amqp::performative::Open {
        container_id: "c",
        max_frame_size: Some(600),
        ..Default::default()
    };
    put(0, &Performative::Open(open), &[]);
    put(0, &Performative::Begin(begin()), &[]);
    put(0, &attach(0, Role::Sender), &[]);
    put(0, &attach(1, Role::Receiver), &[]);
    put(0, &credit_flow(1, 0, 10), &[]);
    put(0, &Performative::Transfer(delivery(0, 0)), b"whole");
    put(0, &Performative::Transfer(Transfer { more: true, ..delivery(0, 1) }), b"first ");
    put(0, &Performative::Disposition(disposition(0, 1, true)), &[]);
    put(0, &Performative::Transfer(Transfer { handle: 0, ..Transfer::default() }), b"second");
    put(0, &Performative::Disposition(disposition(2, 2, false)), &[]);
    put(1, &Performative::Begin(Begin { incoming_window: 1, ..begin() }), &[]);
    put(1, &attach(0, Role::Receiver), &[]);
    put(1, &credit_flow(0, 0, 3), &[]);
    put(0, &Performative::Detach(Detach { handle: 0, closed: true, error: None }), &[]);
    put(0, &Performative::Attach(Box::new(Attach::new("again", 0, Role::Sender))), &[]);
    put(1, &Performative::End(Default::default()), &[]);
    put(0, &Performative::Close(Default::default()), &[]);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Random bytes are never more than an error.
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), header in 0..3) {
        let mut all = match header {
            0 => Vec::new(),
            1 => Protocol::Amqp.header().to_vec(),
            _ => Protocol::Sasl.header().to_vec(),
        };
        all.extend(&bytes);
        drive(&mut engine(), &mut &all[..], &mut Vec::new());
        let _ = Value::read_all(&bytes);
        if let Ok(message) = Message::parse(&bytes) {
            drop((message.properties(), message.header(), message.data()));
        }
        drop(Performative::read(&mut &bytes[..]));
    }

    /// A good script with some bytes changed never panics, and never grows beyond what it may.
    #[test]
    fn changed_bytes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = script();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut engine = engine();
        let mut events = Vec::new();
        drive(&mut engine, &mut &bytes[..], &mut events);
        engine.tick(10_000_000);
        drive(&mut engine, &mut &[][..], &mut events);
        prop_assert!(engine.is_over() && engine.links() == 0 && engine.unsettled() == 0);
        prop_assert!(engine.output_len() < 64 << 10);
    }

    /// Cut anywhere, however often, it gives the same events and the same bytes.
    #[test]
    fn cut_anywhere(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let bytes = script();
        let mut whole = (engine(), Vec::new());
        drive(&mut whole.0, &mut &bytes[..], &mut whole.1);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut parts = (engine(), Vec::new());
        let mut kept: Vec<u8> = Vec::new();
        let mut from = 0;
        for cut in cuts {
            kept.extend_from_slice(&bytes[from..cut]);
            from = cut;
            let mut input = &kept[..];
            drive(&mut parts.0, &mut input, &mut parts.1);
            kept = input.to_vec();
        }
        prop_assert_eq!(&parts.1, &whole.1);
        prop_assert_eq!(parts.0.output(), whole.0.output());
    }
}

/// The script is good: all of it is understood, and it ends with the client's close.
#[test]
fn the_script_is_good() {
    let mut engine = engine();
    let mut events = Vec::new();
    let bytes = script();
    let mut input = &bytes[..];
    drive(&mut engine, &mut input, &mut events);
    assert!(input.is_empty());
    let count = |what: &str| events.iter().filter(|event| event.starts_with(what)).count();
    assert_eq!((count("Attach"), count("Received"), count("Outcome")), (4, 2, 3), "{events:#?}");
    assert!(events.last().unwrap().contains("by_peer: true"));
}
