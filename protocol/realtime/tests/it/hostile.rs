//! Random and damaged bytes: an answer or a typed error, never a panic, and never more than was sent.

use bytes::Bytes;
use fleetline_signalr::handshake::HandshakeReader;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::rest::{RestMessage, RestRequest};
use fleetline_signalr::session::{Options, Output, Session, StatefulReconnect};
use fleetline_signalr::{Decoder, Limits, Message, Value, upstream};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::kit::{BOTH, decode, message, wide};

/// Reads all; an error has to stay.
fn drain(decoder: &mut Decoder) -> usize {
    let mut count = 0;
    loop {
        match decoder.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return count,
            Err(error) => {
                decoder.feed(Bytes::from_static(b"{\"type\":6}\x1e"));
                assert_eq!(decoder.next(), Err(error));
                return count;
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..200)) {
        for protocol in BOTH {
            let mut decoder = Decoder::new(protocol, Limits::default());
            decoder.feed(bytes.clone().into());
            prop_assert!(drain(&mut decoder) <= bytes.len() / 2);
            let _ = upstream::outcome(protocol, "1", 200, bytes.clone().into());
        }
        let _ = HandshakeReader::default().feed(bytes.clone().into());
        let _ = RestMessage::parse(&bytes.clone().into());
        if let Ok(value) = Value::msgpack(bytes.into()) {
            let _ = value.to_json();
        }
    }

    #[test]
    fn damaged_messages(
        messages in vec(message(), 1..4),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        for protocol in BOTH {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| message.encode(protocol, &mut bytes).unwrap());
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.index(bytes.len() * 2 + 1));
            let mut decoder = Decoder::new(protocol, wide());
            decoder.feed(bytes.clone().into());
            drain(&mut decoder);
            // What was read in spite of the damage can be written again, in its own protocol.
            for message in decode(protocol, &bytes).unwrap_or_default() {
                let again = message.to_bytes(protocol).unwrap();
                prop_assert_eq!(decode(protocol, &again), Ok(vec![message]));
            }
        }
    }

    #[test]
    fn json_texts(text in "[\\[\\]{}\",:\\\\u0-9a-etrufalsn. -]{0,60}") {
        let is_value = Value::json(text.clone().into()).is_ok();
        // What a strict parser that builds values refuses, we refuse; and the other way round.
        prop_assert_eq!(is_value, serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn rest_targets(method in "GET|HEAD|PUT|POST|DELETE|X", path in "/api/(v1/)?hubs(/[a-z:%.0-9]{0,6}){0,5}", raw in any::<String>()) {
        let _ = RestRequest::parse(&method, &path, &raw);
        let _ = RestRequest::parse(&method, &raw, "api-version=2022-06-01");
        let _ = RestRequest::parse(&method, &path, &format!("api-version=2022-06-01&{raw}"));
    }

    /// Whatever a client sends, the session ends with one Close or goes on; it sends whole messages.
    #[test]
    fn sessions(
        messages in vec(message(), 0..9),
        noise in vec(any::<u8>(), 0..30),
        is_stateful in any::<bool>(),
        cut in any::<Index>(),
    ) {
        for protocol in BOTH {
            let reconnect =
                if is_stateful { StatefulReconnect::Negotiated } else { StatefulReconnect::Off };
            let mut session = Session::new(Options::default(), Transport::WebSockets, reconnect, 0);
            let mut bytes = format!("{{\"protocol\":\"{}\",\"version\":2}}\x1e", protocol.name()).into_bytes();
            messages.iter().for_each(|message| message.encode(protocol, &mut bytes).unwrap());
            bytes.extend_from_slice(&noise);
            let at = cut.index(bytes.len() + 1);
            let (mut sent, mut closes) = (Vec::new(), 0);
            for piece in [&bytes[..at], &bytes[at..]] {
                session.receive(1, Bytes::copy_from_slice(piece));
                while let Some(output) = session.poll(1) {
                    prop_assert_eq!(closes, 0, "something behind Close");
                    match output {
                        Output::Send(bytes) => sent.push(bytes),
                        Output::Close(_) => closes += 1,
                        Output::Event(_) => {}
                    }
                }
            }
            prop_assert!(closes <= 1);
            prop_assert_eq!(closes == 1, session.is_closed());
            prop_assert_eq!(&sent[0][..], fleetline_signalr::handshake::HANDSHAKE_OK);
            let replies = decode(protocol, &sent[1..].concat()).unwrap();
            let is_ours = |message: &Message| {
                matches!(message, Message::Completion(_) | Message::Close { .. } | Message::Ack { .. })
            };
            prop_assert!(replies.iter().all(is_ours), "{replies:?}");
        }
    }
}
