//! Bytes of the specification, of the public clients and of a hub, each way.

use bytes::Bytes;
use fleetline_signalr::{
    DecodeError, Encoded, Limits, Message, Outcome, Protocol, StreamItem, Value, ValueError,
};

use crate::kit::{BOTH, arguments, completion, decode, decode_with, hex, in_protocol, invocation, value};

/// `json` without its separator and `msgpack` without its length are what the message is written as, and
/// are read as the message.
fn check(message: &Message, json: &str, msgpack: &str) {
    assert_eq!(String::from_utf8(message.body(Protocol::Json).unwrap()).unwrap(), json);
    assert_eq!(message.body(Protocol::MessagePack).unwrap(), hex(msgpack), "{json}");
    for protocol in BOTH {
        let bytes = message.to_bytes(protocol).unwrap();
        let read = decode(protocol, &bytes).unwrap().remove(0);
        assert_eq!(read.to_bytes(protocol).unwrap(), bytes);
        assert_eq!(read.to_bytes(Protocol::Json).unwrap(), format!("{json}\x1e"));
    }
}

#[test]
fn samples_of_the_specification() {
    check(
        &Message::Invocation(invocation(Some("xyz"), "method", "[42]")),
        r#"{"type":1,"invocationId":"xyz","target":"method","arguments":[42]}"#,
        "96 01 80 a3 78 79 7a a6 6d 65 74 68 6f 64 91 2a 90",
    );
    check(
        &Message::Invocation(invocation(None, "method", "[42]")),
        r#"{"type":1,"target":"method","arguments":[42]}"#,
        "96 01 80 c0 a6 6d 65 74 68 6f 64 91 2a 90",
    );
    let item = StreamItem { invocation_id: "xyz".to_owned(), item: value("42") };
    check(
        &Message::StreamItem(item),
        r#"{"type":2,"invocationId":"xyz","item":42}"#,
        "94 02 80 a3 78 79 7a 2a",
    );
    check(
        &completion("xyz", Outcome::Error("Error".to_owned())),
        r#"{"type":3,"invocationId":"xyz","error":"Error"}"#,
        "95 03 80 a3 78 79 7a 01 a5 45 72 72 6f 72",
    );
    check(&completion("xyz", Outcome::Void), r#"{"type":3,"invocationId":"xyz"}"#, "94 03 80 a3 78 79 7a 02");
    check(
        &completion("xyz", Outcome::Result(value("42"))),
        r#"{"type":3,"invocationId":"xyz","result":42}"#,
        "95 03 80 a3 78 79 7a 03 2a",
    );
    check(
        &completion("xyz", Outcome::Result(value("null"))),
        r#"{"type":3,"invocationId":"xyz","result":null}"#,
        "95 03 80 a3 78 79 7a 03 c0",
    );
    check(
        &Message::StreamInvocation(invocation(Some("xyz"), "method", "[42]")),
        r#"{"type":4,"invocationId":"xyz","target":"method","arguments":[42]}"#,
        "96 04 80 a3 78 79 7a a6 6d 65 74 68 6f 64 91 2a 90",
    );
    check(
        &Message::CancelInvocation { invocation_id: "xyz".to_owned() },
        r#"{"type":5,"invocationId":"xyz"}"#,
        "93 05 80 a3 78 79 7a",
    );
    check(&Message::Ping, r#"{"type":6}"#, "91 06");
    check(
        &Message::Close { error: Some("xyz".to_owned()), allow_reconnect: true },
        r#"{"type":7,"error":"xyz","allowReconnect":true}"#,
        "93 07 a3 78 79 7a c3",
    );
    check(&Message::Close { error: None, allow_reconnect: false }, r#"{"type":7}"#, "93 07 c0 c2");
    check(&Message::Ack { sequence_id: 36 }, r#"{"type":8,"sequenceId":36}"#, "92 08 24");
    check(&Message::Sequence { sequence_id: 200 }, r#"{"type":9,"sequenceId":200}"#, "92 09 cc c8");
}

/// The specification writes 36 as `cc 24`, which is longer than it has to be; the shortest form is what all
/// libraries write, and both are read.
#[test]
fn ack_in_a_longer_form() {
    for body in ["92 08 cc 24", "92 08 cd 00 24", "92 08 d0 24", "92 08 cf 00 00 00 00 00 00 00 24"] {
        let bytes = hex(body);
        let payload = [&[bytes.len() as u8], &bytes[..]].concat();
        let read = decode(Protocol::MessagePack, &payload);
        assert_eq!(read, Ok(vec![Message::Ack { sequence_id: 36 }]), "{body}");
    }
}

#[test]
fn frames() {
    assert_eq!(Message::Ping.to_bytes(Protocol::Json).unwrap(), "{\"type\":6}\x1e");
    assert_eq!(Message::Ping.to_bytes(Protocol::MessagePack).unwrap(), hex("02 91 06"));
    let long = invocation(None, "m", &format!("[\"{}\"]", "x".repeat(300)));
    let bytes = Message::Invocation(long).to_bytes(Protocol::MessagePack).unwrap();
    // 311 bytes: 0b10_0110111.
    assert_eq!(bytes[..2], hex("b7 02"));
    assert_eq!(bytes.len(), 2 + 311);
}

/// Several messages in a payload; spaces, unknown properties, headers and unknown types are no obstacle.
#[test]
fn json_that_clients_send() {
    let payload = concat!(
        "{ \"arguments\" : [ 1 , \"a\" ], \"target\":\"T\", \"type\": 1, \"headers\":{\"Authorization\":\"Bearer x\"} }\x1e",
        "{\"type\":99,\"target\":7,\"error\":{}}\x1e{\"type\":0}\x1e{\"type\":-1}\x1e",
        "{\"type\":6,\"more\":[{}]}\x1e{\"type\":1,\"invocationId\":\"\",\"target\":\"\\u0054\",\"arguments\":[],\"streamIds\":null,\"headers\":null}\x1e",
    );
    let read = decode(Protocol::Json, payload.as_bytes()).unwrap();
    assert_eq!(
        read,
        [
            Message::Invocation(invocation(None, "T", "[ 1 , \"a\" ]")),
            Message::Ping,
            Message::Invocation(invocation(None, "T", "[]")),
        ]
    );
}

#[test]
fn msgpack_that_clients_send() {
    for (body, expected) in [
        // No stream ids; headers; an id of nil; more elements than are known.
        ("95 01 80 c0 a1 54 90", Some(invocation(None, "T", "[]"))),
        ("95 01 81 a1 61 a1 62 c0 a1 54 91 01", Some(invocation(None, "T", "[1]"))),
        ("95 01 c0 a0 a1 54 90", Some(invocation(None, "T", "[]"))),
        ("98 01 80 c0 a1 54 90 90 93 01 02 03 c3", Some(invocation(None, "T", "[]"))),
        // Types that aren't known.
        ("91 00", None),
        ("93 2a 81 01 02 c1", None),
        ("91 ff", None),
    ] {
        let bytes = hex(body);
        let payload = [&[bytes.len() as u8], &bytes[..]].concat();
        let read = decode(Protocol::MessagePack, &payload);
        match expected {
            Some(invocation) => {
                let message = in_protocol(&Message::Invocation(invocation), Protocol::MessagePack);
                assert_eq!(read, Ok(vec![message]), "{body}");
            }
            // `c1` isn't MessagePack at all.
            None if body.ends_with("c1") => assert!(read.is_err(), "{body}"),
            None => assert_eq!(read, Ok(Vec::new()), "{body}"),
        }
    }
    let read = decode(Protocol::MessagePack, &hex("03 92 07 c0")).unwrap();
    assert_eq!(read, [Message::Close { error: None, allow_reconnect: false }]);
}

#[test]
fn what_is_refused_in_json() {
    let bad = |text: &str| decode(Protocol::Json, format!("{text}\x1e").as_bytes()).unwrap_err();
    for text in [
        "",
        "1",
        "[1]",
        "{",
        "{}",
        "{\"type\":\"1\"}",
        "{\"type\":1.5}",
        "{\"Type\":6}",
        "{\"type\":6}x",
        "{\"type\":7,\"error\":1}",
        "{\"type\":8,\"sequenceId\":-1}",
        "{\"type\":8,\"sequenceId\":1.5}",
        "{\"type\":1,\"target\":\"t\",\"arguments\":{}}",
        "{\"type\":1,\"target\":\"t\",\"arguments\":[1,]}",
        "{\"type\":1,\"target\":\"t\",\"arguments\":null}",
        "{\"type\":6,\"headers\":{\"a\":1}}",
        "{\"type\":1,\"target\":\"t\",\"arguments\":[\"\n\"]}",
    ] {
        assert!(matches!(bad(text), DecodeError::BadJson { .. }), "{text}: {:?}", bad(text));
    }
    for (text, message, what) in [
        ("{\"type\":1,\"arguments\":[]}", "invocation", "target"),
        ("{\"type\":1,\"target\":\"\",\"arguments\":[]}", "invocation", "target"),
        ("{\"type\":1,\"target\":\"t\"}", "invocation", "arguments"),
        ("{\"type\":2,\"invocationId\":\"1\"}", "stream item", "item"),
        ("{\"type\":2,\"item\":1}", "stream item", "invocation id"),
        ("{\"type\":3,\"invocationId\":\"\"}", "completion", "invocation id"),
        ("{\"type\":4,\"target\":\"t\",\"arguments\":[]}", "stream invocation", "invocation id"),
        ("{\"type\":5}", "cancel invocation", "invocation id"),
        ("{\"type\":8}", "ack", "sequence id"),
        ("{\"type\":9}", "sequence", "sequence id"),
    ] {
        assert_eq!(bad(text), DecodeError::Missing { message, what }, "{text}");
    }
    let both = "{\"type\":3,\"invocationId\":\"1\",\"result\":null,\"error\":\"e\"}";
    assert_eq!(bad(both), DecodeError::ResultAndError);
    let not_text = decode(Protocol::Json, b"{\"type\":6,\"a\":\"\xff\"}\x1e");
    assert!(matches!(not_text, Err(DecodeError::BadJson { .. })));
}

#[test]
fn what_is_refused_in_msgpack() {
    for body in [
        "c0",
        "01",
        "90",
        "91 a1 36",
        "92 08 c0",
        "92 08 ff",
        "91 08",
        "94 01 80 c0 a1",
        "91 c1",
        "94 01 80 c0 a1 54",
        "95 01 80 c0 a0 90",
        "95 01 80 c0 a1 54 c0",
        "95 01 90 c0 a1 54 90",
        "95 01 81 01 a1 61 c0 a1 54 90",
        "95 04 80 c0 a1 54 90",
        "94 03 80 c0 02",
        "94 03 80 a0 02",
        "94 03 80 a1 31 03",
        "94 03 80 a1 31 04",
        "95 01 80 c0 a1 ff 90",
        "91 06 00",
        "93 07 c0 01",
        "96 01 80 c0 a1 54 90 91 01",
    ] {
        let bytes = hex(body);
        let payload = [&[bytes.len() as u8], &bytes[..]].concat();
        assert!(decode(Protocol::MessagePack, &payload).is_err(), "{body}");
    }
    let kind = decode(Protocol::MessagePack, &hex("07 94 03 80 a1 31 04 00"));
    assert_eq!(kind, Err(DecodeError::CompletionKind { kind: 4 }));
    assert_eq!(decode(Protocol::MessagePack, &hex("03 91 06 00")), Err(DecodeError::Trailing { count: 1 }));
    for prefix in ["ff ff ff ff 08", "80 80 80 80 80", "ff ff ff ff ff 01"] {
        assert_eq!(decode(Protocol::MessagePack, &hex(prefix)), Err(DecodeError::BadPrefix), "{prefix}");
    }
}

#[test]
fn limits_are_kept() {
    let limits = Limits { message_bytes_max: 100, depth_max: 3, arguments_max: 2, stream_ids_max: 1 };
    let with = |json: &str, stream_ids: usize| {
        let mut invocation = invocation(None, "t", json);
        invocation.stream_ids = vec!["s".to_owned(); stream_ids];
        Message::Invocation(invocation)
    };
    for protocol in BOTH {
        let read = |message: Message| decode_with(protocol, limits, &message.to_bytes(protocol).unwrap());
        assert!(read(with("[1,[[[]]]]", 1)).is_ok());
        assert_eq!(read(with("[[[[[]]]]]", 0)), Err(DecodeError::TooDeep { limit: 3 }));
        assert_eq!(
            read(with("[1,2,3]", 0)),
            Err(DecodeError::TooMany { what: "arguments", limit: 2 }),
            "{protocol:?}"
        );
        assert_eq!(read(with("[]", 2)), Err(DecodeError::TooMany { what: "streams", limit: 1 }));
        let long = with(&format!("[\"{}\"]", "x".repeat(100)), 0);
        assert!(matches!(read(long), Err(DecodeError::TooLong { limit: 100, .. })));
    }
}

/// A bound holds before anything of the message is kept: for JSON by what has come, for MessagePack
/// by what the length says.
#[test]
fn a_long_message_is_refused_before_it_has_come() {
    let limits = Limits { message_bytes_max: 8, ..Limits::default() };
    assert!(decode_with(Protocol::Json, limits, b"12345678").is_ok());
    let long = decode_with(Protocol::Json, limits, b"123456789");
    assert_eq!(long, Err(DecodeError::TooLong { bytes: 9, limit: 8 }));
    let long = decode_with(Protocol::MessagePack, limits, &[9]);
    assert_eq!(long, Err(DecodeError::TooLong { bytes: 9, limit: 8 }));
}

#[test]
fn values_are_slices_of_the_frame() {
    for protocol in BOTH {
        let message = Message::Invocation(invocation(Some("1"), "t", "[\"some text\",{\"a\":[1]}]"));
        let payload = message.to_bytes(protocol).unwrap();
        let range = payload.as_ptr_range();
        let mut decoder = fleetline_signalr::Decoder::new(protocol, Limits::default());
        decoder.feed(payload);
        let Some(Message::Invocation(read)) = decoder.next().unwrap() else { panic!("{protocol:?}") };
        for value in read.arguments.values().unwrap() {
            assert!(range.contains(&value.raw().as_ptr()), "{protocol:?}");
        }
    }
}

#[test]
fn encoded_shares_its_bytes() {
    let encoded = Encoded::invocation("t", Bytes::from_static(b"[1, {\"a\":null}]")).unwrap();
    let other = encoded.clone();
    assert_eq!(encoded.json(), "{\"type\":1,\"target\":\"t\",\"arguments\":[1, {\"a\":null}]}\x1e");
    assert_eq!(encoded.msgpack(), hex("0d 96 01 80 c0 a1 74 92 01 81 a1 61 c0 90"));
    for protocol in BOTH {
        assert_eq!(encoded.bytes(protocol).as_ptr(), other.bytes(protocol).as_ptr());
    }
    assert!(encoded.is_sequenced());
    let ping = Encoded::message(Message::Ping).unwrap();
    assert_eq!((ping.json(), ping.is_sequenced()), (Bytes::from_static(b"{\"type\":6}\x1e"), false));
}

/// What one protocol couldn't say is refused before anything is sent in the other.
#[test]
fn encoded_takes_only_what_both_can_say() {
    for bad in ["", "1", "{}", "[", "[1]]", "[\"\\ud800\"]", "[1e999]", "[-1e999]", "[nan]", "[\"\u{1}\"]"] {
        assert!(Encoded::invocation("t", bad.as_bytes().to_vec().into()).is_err(), "{bad}");
    }
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(Encoded::invocation("t", deep(64).into()).is_ok());
    let error = Encoded::invocation("t", deep(65).into()).unwrap_err();
    assert_eq!(error, ValueError::TooDeep { limit: 64 });
    assert_eq!(arguments(" [ 1 , [2,3] ] ").count(), 2);
}

#[test]
fn what_only_msgpack_can_say() {
    for (bytes, json) in [
        ("c4 03 01 02 ff", "\"AQL/\""),
        ("ca 3f 00 00 00", "0.5"),
        ("cb 7f f0 00 00 00 00 00 00", "null"),
        ("82 01 a1 61 ff c3", "{\"1\":\"a\",\"-1\":true}"),
        ("d6 ff 6a 24 e6 9a", "\"2026-06-07T03:33:46Z\""),
        ("d7 ff 1d 53 53 00 6a 24 e6 9a", "\"2026-06-07T03:33:46.123Z\""),
        ("c7 0c ff 00 00 00 00 ff ff ff ff ff ff ff ff", "\"1969-12-31T23:59:59Z\""),
    ] {
        let value = Value::msgpack(hex(bytes).into()).unwrap();
        assert_eq!(value.to_json().unwrap(), json, "{bytes}");
    }
    for (bytes, error) in [
        ("d4 05 00", ValueError::Extension { kind: 5 }),
        ("d4 ff 00", ValueError::BadMsgpack { what: "a timestamp" }),
        ("81 c0 01", ValueError::BadKey),
    ] {
        assert_eq!(Value::msgpack(hex(bytes).into()).unwrap().to_json(), Err(error), "{bytes}");
    }
    for bytes in ["", "c1", "92 01", "a2 61", "01 01", "dd ff ff ff ff 01", "c6 ff ff ff ff"] {
        assert!(Value::msgpack(hex(bytes).into()).is_err(), "{bytes}");
    }
}
