//! Frames byte by byte, as the public clients send them (layout by the standard's tables).

use fleetline_amqp::frame::read_frame;
use fleetline_amqp::performative::{Open, Performative, ReceiverSettle, Role, SenderSettle};
use fleetline_amqp::value::Value;
use fleetline_amqp::{DecodeError, DeliveryState};

use crate::kit::leak;

fn bytes(hex: &str) -> &'static [u8] {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    leak(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
}

fn read(hex: &str) -> (u16, Performative<'static>, &'static [u8]) {
    let all = bytes(hex);
    assert_eq!(fleetline_amqp::frame::frame_len(all, 512), Ok(Some(all.len())));
    let frame = read_frame(all).unwrap();
    let mut body = frame.body;
    let performative = Performative::read(&mut body).unwrap();
    (frame.channel, performative, body)
}

#[test]
fn open() {
    // container-id "c", hostname "hub", max-frame-size 65536, channel-max 255, idle-time-out 60000
    let (_, performative, _) = read("0000002302000000005310c01605a10163a10368756270000100006000ff700000ea60");
    let Performative::Open(open) = performative else { panic!() };
    let expected = Open {
        container_id: "c",
        hostname: Some("hub"),
        max_frame_size: Some(65536),
        channel_max: Some(255),
        idle_time_out: Some(60_000),
        ..Open::default()
    };
    assert_eq!(open, expected);
}

#[test]
fn attach_with_a_filter() {
    // A receiver of `c`, whose filter is a described string as pyamqp writes it.
    let (_, performative, _) = read(concat!(
        "0000005c02000001005312c04f07a1016c434150025001005328c03c08a10163404040404040c130",
        "02a30473656c6600a30473656c66a120616d71702e616e6e6f746174696f6e2e782d6f70742d6f6666736574203e203000532945"
    ));
    let Performative::Attach(attach) = performative else { panic!() };
    assert_eq!((attach.name, attach.handle, attach.role), ("l", 0, Role::Receiver));
    assert_eq!(
        (attach.snd_settle_mode, attach.rcv_settle_mode),
        (SenderSettle::Mixed, ReceiverSettle::Second)
    );
    assert_eq!(attach.address(), Some("c"));
    let Some(Value::Described(filter)) = attach.source.unwrap().filter.unwrap().get("self") else { panic!() };
    assert_eq!(filter.descriptor(), Value::Symbol("self"));
    assert_eq!(filter.value().as_text(), Some("amqp.annotation.x-opt-offset > 0"));
}

#[test]
fn transfer_with_payload() {
    // handle 1, delivery-id 7, tag 00000007, format 0, unsettled; a data section "hi"
    let (channel, performative, payload) =
        read("00000021 02000003 005314 c00d 05 5201 5207 a00400000007 43 42 005375 a0026869");
    let Performative::Transfer(transfer) = performative else { panic!() };
    assert_eq!((channel, transfer.handle, transfer.delivery_id), (3, 1, Some(7)));
    assert_eq!((transfer.delivery_tag, transfer.settled), (Some(&[0, 0, 0, 7][..]), Some(false)));
    assert_eq!(payload, b"\x00\x53\x75\xa0\x02hi");
}

#[test]
fn disposition_with_an_error() {
    // role receiver, 3 to 5, settled, rejected with amqp:not-found; C adds a description.
    let (_, performative, _) = read(concat!(
        "0000003b02000000005315c02e05415203520541005325c0220100531dc01c02a30e616d71703a6e",
        "6f742d666f756e64a10962792072656a656374"
    ));
    let Performative::Disposition(disposition) = performative else { panic!() };
    assert_eq!((disposition.first, disposition.last, disposition.settled), (3, Some(5), true));
    let Some(DeliveryState::Rejected(Some(error))) = disposition.state else { panic!() };
    assert_eq!((error.condition, error.description), ("amqp:not-found", "by reject"));
}

/// Descriptors in their long form and as symbols, lists in their long form.
#[test]
fn other_forms() {
    let rows = [
        "00000010 02000000 0080 0000000000000017 45",
        "0000001a 02000000 00a30d 616d71703a656e643a6c697374 45",
        "00000014 02000000 005317 d0 00000004 00000000",
        "0000000f 02000000 005317 c002 01 40",
    ];
    for row in rows {
        let mut sized = bytes(row).to_vec();
        let len = sized.len() as u32;
        sized[..4].copy_from_slice(&len.to_be_bytes());
        let mut body = &leak(sized)[8..];
        let Ok(Performative::End(end)) = Performative::read(&mut body) else { panic!("{row}") };
        assert_eq!(end.error, None);
    }
}

/// "pyamqp" takes fields by their place: performatives are written with all of them, an `end` too.
#[test]
fn whole_performatives() {
    let written = |performative: Performative<'_>| {
        let mut out = Vec::new();
        performative.write(&mut out);
        out
    };
    assert_eq!(written(Performative::End(Default::default())), bytes("005317 c002 01 40"));
    assert_eq!(written(Performative::Detach(Default::default())), bytes("005316 c004 03 43 40 40"));
    let transfer = written(Performative::Transfer(Default::default()));
    assert_eq!(transfer, bytes("005314 c00c 0b 43 40404040404040404040"));
    let flow = written(Performative::Flow(Default::default()));
    assert_eq!(flow[5], 11);
    let attach = fleetline_amqp::performative::Attach::new("l", 0, Role::Sender);
    assert_eq!(written(Performative::Attach(Box::new(attach)))[5], 14);
}

/// Fields that aren't there, of another type, or too many.
#[test]
fn wrong_fields() {
    let rows = [
        ("005310 45", DecodeError::MissingField { field: "container-id" }),
        ("005310 c003 01 5201", DecodeError::WrongType { field: "container-id" }),
        ("005317 c003 02 40 40", DecodeError::TooManyFields),
        ("005399 45", DecodeError::UnknownDescriptor),
        ("a10163", DecodeError::UnknownDescriptor),
        ("005317 43", DecodeError::WrongType { field: "fields" }),
        ("005317 c0ff 01", DecodeError::Truncated),
        (
            "005314 c026 03 43 43 a021 000000000000000000000000000000000000000000000000000000000000000000",
            DecodeError::BadField { field: "delivery-tag" },
        ),
    ];
    for (row, error) in rows {
        assert_eq!(Performative::read(&mut bytes(row)), Err(error), "{row}");
    }
}
