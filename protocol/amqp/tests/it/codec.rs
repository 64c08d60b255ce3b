//! Round trips by ourselves, and through another crate's codec: what we write it reads, and writes
//! again in its own way, and we read that as what it was.

use fe2o3_amqp_types::messaging;
use fe2o3_amqp_types::performatives as theirs;
use fleetline_amqp::message::{FORMAT_BATCH, Header, Message, MessageWriter, Properties, batch_messages};
use fleetline_amqp::performative::{Begin, Detach, Disposition, Flow, Open, Performative, Role, Transfer};
use fleetline_amqp::value::Value;
use fleetline_amqp::{DeliveryState, Writer};
use proptest::prelude::*;
use serde_amqp::{from_slice, to_vec};

use crate::kit::{attach, leak};

/// A value that owns what it holds.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Value<'static>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    Symbols(Vec<String>),
    Described(u64, Box<Tree>),
}

fn write(tree: &Tree, w: &mut Writer<'_>) {
    match tree {
        Tree::Leaf(value) => w.value(value),
        Tree::List(trees) => w.list(|w| trees.iter().for_each(|tree| write(tree, w))),
        Tree::Map(pairs) => w.map(|w| {
            for (key, tree) in pairs {
                w.string(key);
                write(tree, w);
            }
        }),
        Tree::Symbols(names) => w.symbols(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        Tree::Described(code, tree) => w.described(*code, |w| write(tree, w)),
    }
}

fn bytes(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    write(tree, &mut Writer::new(&mut out));
    out
}

fn leaf() -> impl Strategy<Value = Tree> {
    let text = || "[ -~äß]{0,300}".prop_map(|text| &*Box::leak(text.into_boxed_str()));
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u8>().prop_map(Value::Ubyte),
        any::<u16>().prop_map(Value::Ushort),
        prop_oneof![any::<u32>(), 0..300u32].prop_map(Value::Uint),
        prop_oneof![any::<u64>(), 0..300u64].prop_map(Value::Ulong),
        any::<i8>().prop_map(Value::Byte),
        any::<i16>().prop_map(Value::Short),
        prop_oneof![any::<i32>(), -200..200i32].prop_map(Value::Int),
        prop_oneof![any::<i64>(), -200..200i64].prop_map(Value::Long),
        (-1e9f32..1e9).prop_map(Value::Float),
        (-1e9f64..1e9).prop_map(Value::Double),
        any::<char>().prop_map(Value::Char),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Binary(leak(bytes))),
        text().prop_map(Value::String),
        "[a-z:.-]{0,300}".prop_map(|text| Value::Symbol(Box::leak(text.into_boxed_str()))),
    ];
    value.prop_map(Tree::Leaf)
}

fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(5, 40, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
            proptest::collection::btree_map("[a-z]{1,9}", inner.clone(), 0..8)
                .prop_map(|map| Tree::Map(map.into_iter().collect())),
            proptest::collection::vec("[a-z]{0,9}", 1..8).prop_map(Tree::Symbols),
            (any::<u64>(), inner).prop_map(|(code, tree)| Tree::Described(code, Box::new(tree))),
        ]
    })
}

fn read_again(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).value(&Value::read_all(bytes).unwrap());
    out
}

fn ours(performative: &Performative<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    performative.write(&mut out);
    out
}

/// There, through the other crate, and back.
macro_rules! around {
    ($type:ty, $performative:expr) => {{
        let performative = $performative;
        let bytes = ours(&performative);
        let read: $type = from_slice(&bytes).unwrap();
        let back = to_vec(&read).unwrap();
        let mut input = &back[..];
        let again = Performative::read(&mut input);
        prop_assert_eq!(again.as_ref(), Ok(&performative), "{:02x?}", back);
        let mut input = &bytes[..];
        prop_assert_eq!(Performative::read(&mut input), Ok(performative.clone()));
    }};
}

proptest! {
    /// Ours → ours.
    #[test]
    fn values(tree in tree()) {
        let bytes = bytes(&tree);
        prop_assert_eq!(&read_again(&bytes), &bytes);
        for cut in 0..bytes.len().min(60) {
            prop_assert!(Value::read_all(&bytes[..cut]).is_err());
        }
    }

    /// Ours → theirs → ours.
    #[test]
    fn values_of_others(tree in tree()) {
        let bytes = bytes(&tree);
        let theirs: serde_amqp::Value = from_slice(&bytes).unwrap();
        let back = to_vec(&theirs).unwrap();
        prop_assert_eq!(read_again(&back), bytes);
    }

    #[test]
    fn transfers(handle: u32, id: u32, tag in proptest::collection::vec(any::<u8>(), 0..=32),
                 settled: bool, more: bool, aborted: bool, format: u32) {
        around!(theirs::Transfer, Performative::Transfer(Transfer {
            handle, delivery_id: Some(id), delivery_tag: Some(&tag), message_format: Some(format),
            settled: Some(settled), more, aborted,
        }));
    }

    #[test]
    fn flows(next: Option<u32>, windows: (u32, u32, u32), handle: Option<u32>, count: Option<u32>,
             credit: Option<u32>, available: Option<u32>, drain: bool, echo: bool) {
        around!(theirs::Flow, Performative::Flow(Flow {
            next_incoming_id: next, incoming_window: windows.0, next_outgoing_id: windows.1,
            outgoing_window: windows.2, handle, delivery_count: count, link_credit: credit, available,
            drain, echo,
        }));
    }

    #[test]
    fn opens(id in "[a-z]{0,300}", host in "[a-z]{0,20}", size: u32, channel: u16, idle: Option<u32>) {
        around!(theirs::Open, Performative::Open(Open {
            container_id: &id, hostname: Some(&host), max_frame_size: Some(size),
            channel_max: Some(channel), idle_time_out: idle, ..Open::default()
        }));
    }

    #[test]
    fn begins(channel: Option<u16>, next: u32, incoming: u32, outgoing: u32, handle: u32) {
        around!(theirs::Begin, Performative::Begin(Begin {
            remote_channel: channel, next_outgoing_id: next, incoming_window: incoming,
            outgoing_window: outgoing, handle_max: Some(handle), ..Begin::default()
        }));
    }

    #[test]
    fn dispositions(receiver: bool, first: u32, last: Option<u32>, settled: bool, state in 0..5) {
        let state = match state {
            0 => None,
            1 => Some(DeliveryState::Accepted),
            2 => Some(DeliveryState::Rejected(None)),
            3 => Some(DeliveryState::Released),
            _ => Some(DeliveryState::Modified {
                delivery_failed: true, undeliverable_here: false, annotations: None,
            }),
        };
        let role = if receiver { Role::Receiver } else { Role::Sender };
        around!(theirs::Disposition, Performative::Disposition(Disposition { role, first, last, settled, state }));
    }

    #[test]
    fn detaches(handle: u32, closed: bool) {
        around!(theirs::Detach, Performative::Detach(Detach { handle, closed, error: None }));
    }

    /// Messages: what a client of the other crate reads of ours, and we of its own.
    #[test]
    fn messages(body in proptest::collection::vec(any::<u8>(), 0..600), to in "[a-z/]{0,300}", ttl: u32,
                key in "[a-z]{1,9}", text in "[a-zä]{0,9}", expiry: i64, id: [u8; 16]) {
        let mut out = Vec::new();
        let properties = Properties {
            message_id: Value::Uuid(id), user_id: Some(b"u"), to: Some(&to), content_type: Some("a/b"),
            absolute_expiry_time: Some(expiry), ..Properties::default()
        };
        MessageWriter::new(&mut out)
            .header(&Header { durable: true, ttl: Some(ttl), delivery_count: 3 })
            .message_annotations(|w| { w.symbol(&key); w.string(&text); })
            .properties(&properties)
            .application_properties(|w| { w.string(&key); w.long(expiry); })
            .data(&body);
        let read: messaging::Message<messaging::Data> =
            from_slice::<messaging::message::__private::Deserializable<_>>(&out).unwrap().0;
        prop_assert_eq!(&read.body.0[..], &body[..]);
        prop_assert_eq!(read.header.as_ref().unwrap().delivery_count, 3);
        let back = to_vec(&messaging::message::__private::Serializable(&read)).unwrap();
        for bytes in [&back, &out] {
            let message = Message::parse(bytes).unwrap();
            prop_assert_eq!(message.properties().unwrap(), properties);
            prop_assert_eq!(message.message_annotations.get(&key), Some(Value::String(&text)));
            prop_assert_eq!(message.application_properties.get(&key), Some(Value::Long(expiry)));
            let data = message.data();
            prop_assert_eq!(data.as_ref(), &body[..]);
            prop_assert_eq!(message.header().unwrap().ttl, Some(ttl));
        }
    }

    /// A batch gives back its messages, byte for byte.
    #[test]
    fn batches(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..9)) {
        let messages: Vec<Vec<u8>> = bodies.iter().map(|body| {
            let mut out = Vec::new();
            MessageWriter::new(&mut out).data(body);
            out
        }).collect();
        let mut batch = Vec::new();
        let mut writer = MessageWriter::new(&mut batch);
        messages.iter().for_each(|message| { writer.data(message); });
        let read = Message::parse(&batch).unwrap();
        let found: Vec<&[u8]> = batch_messages(&read).unwrap().collect();
        prop_assert_eq!(found, messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!(FORMAT_BATCH, 0x8001_3700);
    }
}

/// An attach of ours is one to the other crate, with source and target.
#[test]
fn attaches() {
    for role in [Role::Sender, Role::Receiver] {
        let performative = attach(7, role);
        let read: theirs::Attach = from_slice(&ours(&performative)).unwrap();
        assert_eq!(read.source.as_ref().unwrap().address.as_deref(), Some("from"));
        let back = to_vec(&read).unwrap();
        let Performative::Attach(back) = Performative::read(&mut &back[..]).unwrap() else { panic!() };
        assert_eq!((back.handle, back.role, back.name), (7, role, "link"));
        assert_eq!(back.address(), Some(if role == Role::Sender { "to" } else { "from" }));
    }
}
