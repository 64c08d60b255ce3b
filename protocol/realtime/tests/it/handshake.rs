//! Every row of the handshake: what is asked, what is answered, what goes on behind it.

use bytes::Bytes;
use fleetline_signalr::Protocol;
use fleetline_signalr::handshake::{
    HANDSHAKE_OK, HandshakeError, HandshakeReader, HandshakeRequest, refusal,
};

fn read(payload: &str) -> Result<Option<(HandshakeRequest, Bytes)>, HandshakeError> {
    HandshakeReader::default().feed(Bytes::copy_from_slice(payload.as_bytes()))
}

#[test]
fn requests_of_the_clients() {
    for (text, protocol, version) in [
        (r#"{"protocol":"json","version":1}"#, Protocol::Json, 1),
        (r#"{"protocol":"json","version":2}"#, Protocol::Json, 2),
        (r#"{"protocol":"messagepack","version":1}"#, Protocol::MessagePack, 1),
        // Python.
        (r#"{"protocol": "json", "version": 0}"#, Protocol::Json, 0),
        (r#" { "version" : 1, "more": {}, "protocol" : "messagepack" } "#, Protocol::MessagePack, 1),
        (r#"{"protocol":"json","version":-1}"#, Protocol::Json, -1),
    ] {
        let (request, rest) = read(&format!("{text}\x1e")).unwrap().unwrap();
        assert_eq!(request, HandshakeRequest { protocol, version }, "{text}");
        assert!(rest.is_empty());
    }
    let request = HandshakeRequest { protocol: Protocol::MessagePack, version: 2 };
    assert_eq!(request.to_bytes(), "{\"protocol\":\"messagepack\",\"version\":2}\x1e");
}

#[test]
fn refused() {
    for (text, error) in [
        (r#"{"protocol":"xml","version":1}"#, HandshakeError::UnknownProtocol),
        (r#"{"protocol":"JSON","version":1}"#, HandshakeError::UnknownProtocol),
        (r#"{"protocol":"json","version":3}"#, HandshakeError::Version { version: 3, limit: 2 }),
        (r#"{"protocol":"json","version":"1"}"#, HandshakeError::NotHandshake),
        (r#"{"protocol":"json","version":1.0}"#, HandshakeError::NotHandshake),
        (r#"{"protocol":"json"}"#, HandshakeError::NotHandshake),
        (r#"{"version":1}"#, HandshakeError::NotHandshake),
        (r#"{"type":6}"#, HandshakeError::NotHandshake),
        (r#"["json",1]"#, HandshakeError::NotHandshake),
        ("", HandshakeError::NotHandshake),
        ("\u{2}\u{91}\u{6}", HandshakeError::NotHandshake),
    ] {
        assert_eq!(read(&format!("{text}\x1e")), Err(error), "{text}");
    }
}

#[test]
fn rest_of_the_frame_goes_on() {
    let (_, rest) = read("{\"protocol\":\"json\",\"version\":1}\x1e{\"type\":6}\x1e{\"t").unwrap().unwrap();
    assert_eq!(rest, "{\"type\":6}\x1e{\"t");
}

#[test]
fn pieces_are_gathered_up_to_the_bound() {
    let text = "{\"protocol\":\"json\",\"version\":1}\x1exy";
    for cut in 0..text.len() - 2 {
        let mut reader = HandshakeReader::default();
        assert_eq!(reader.feed(Bytes::copy_from_slice(&text.as_bytes()[..cut])), Ok(None));
        let (_, rest) = reader.feed(Bytes::copy_from_slice(&text.as_bytes()[cut..])).unwrap().unwrap();
        assert_eq!(rest, "xy");
    }
    let mut reader = HandshakeReader::default();
    assert_eq!(reader.feed(vec![b' '; 1_000].into()), Ok(None));
    assert_eq!(reader.feed(vec![b' '; 24].into()), Err(HandshakeError::TooLong { limit: 1_024 }));
    assert_eq!(read(&"{".repeat(2_000)), Err(HandshakeError::TooLong { limit: 1_024 }));
}

#[test]
fn answers() {
    assert_eq!(HANDSHAKE_OK, b"{}\x1e");
    let refused = refusal(&HandshakeError::Version { version: 3, limit: 2 });
    assert!(refused.starts_with(b"{\"error\":\"version 3 ") && refused.ends_with(b"\"}\x1e"), "{refused:?}");
}
