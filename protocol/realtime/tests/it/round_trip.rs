//! What is written is read again, however it is cut.

use bytes::Bytes;
use fleetline_signalr::{Decoder, Encoded, Message, Protocol};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::kit::{BOTH, decode_with, message, wide};

fn payload(messages: &[Message], protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.encode(protocol, &mut out).unwrap());
    out
}

proptest! {
    #[test]
    fn messages_survive(messages in vec(message(), 0..6)) {
        for protocol in BOTH {
            let bytes = payload(&messages, protocol);
            let read = decode_with(protocol, wide(), &bytes).unwrap();
            prop_assert_eq!(read.len(), messages.len());
            prop_assert_eq!(payload(&read, protocol), bytes);
            if protocol == Protocol::Json {
                prop_assert_eq!(&read, &messages);
            }
        }
    }

    /// Pieces of any sizes give the same messages as the whole, and a payload with all is no exception.
    #[test]
    fn pieces_equal_the_whole(messages in vec(message(), 0..6), cuts in vec(any::<Index>(), 0..9)) {
        for protocol in BOTH {
            let bytes = payload(&messages, protocol);
            let whole = decode_with(protocol, wide(), &bytes).unwrap();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let (mut decoder, mut read, mut start) = (Decoder::new(protocol, wide()), Vec::new(), 0);
            for end in ends {
                decoder.feed(Bytes::copy_from_slice(&bytes[start..end]));
                start = end;
                while let Some(message) = decoder.next().unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, whole);
        }
    }

    /// Payloads that are fed before the former was read to its end are not lost.
    #[test]
    fn feeding_ahead_loses_nothing(messages in vec(message(), 0..6), cut in any::<Index>()) {
        for protocol in BOTH {
            let bytes = payload(&messages, protocol);
            let at = cut.index(bytes.len() + 1);
            let mut decoder = Decoder::new(protocol, wide());
            decoder.feed(Bytes::copy_from_slice(&bytes[..at]));
            decoder.feed(Bytes::copy_from_slice(&bytes[at..]));
            let mut count = 0;
            while decoder.next().unwrap().is_some() {
                count += 1;
            }
            prop_assert_eq!(count, messages.len());
        }
    }

    #[test]
    fn shared_bytes_are_those_of_the_message(message in message()) {
        let encoded = Encoded::message(message.clone()).unwrap();
        for protocol in BOTH {
            prop_assert_eq!(encoded.bytes(protocol), message.to_bytes(protocol).unwrap());
        }
        if let Message::Invocation(invocation) = &message
            && invocation.invocation_id.is_none()
            && invocation.stream_ids.is_empty()
        {
            let json = invocation.arguments.array().raw().clone();
            let lazy = Encoded::invocation(&invocation.target, json).unwrap();
            for protocol in BOTH {
                prop_assert_eq!(lazy.bytes(protocol), encoded.bytes(protocol));
            }
        }
    }
}
