//! Server-sent events: hub messages as events of a text stream.
//!
//! Each payload is one event, and the client reads each event by itself, so a payload has to be whole
//! messages: an event never parts a message from its separator. Line breaks inside JSON (between its
//! tokens; in strings they are escaped) become lines of the event, which the client joins again. Only JSON
//! goes over this transport.

use bytes::Bytes;

/// The type of the answer.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Written at once, so that the client sees the stream open: a comment.
pub const PREAMBLE: &[u8] = b":\r\n\r\n";

/// One event of whole messages, separators included.
pub fn event(payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 16);
    let mut rest = payload;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[end..];
        rest = match rest {
            [b'\r', b'\n', behind @ ..] | [b'\r' | b'\n', behind @ ..] => behind,
            _ => break,
        };
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events as the HTML standard (§9.2.6) reads them: the data of each.
    fn read(stream: &str) -> Vec<String> {
        let (mut events, mut data) = (Vec::new(), None::<String>);
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
            match line.split_once(':') {
                None if line.is_empty() => events.extend(data.take()),
                Some(("data", text)) => {
                    let text = text.strip_prefix(' ').unwrap_or(text);
                    data = Some(data.map_or(text.to_owned(), |before| before + "\n" + text));
                }
                _ => {}
            }
        }
        events
    }

    #[test]
    fn an_event_is_whole() {
        assert_eq!(&event(b"{\"type\":6}\x1e")[..], b"data: {\"type\":6}\x1e\r\n\r\n");
        assert_eq!(&event(b"[1,\r\n2]\x1e")[..], b"data: [1,\r\ndata: 2]\x1e\r\n\r\n");
        assert_eq!(&event(b"")[..], b"data: \r\n\r\n");
        assert_eq!(read(std::str::from_utf8(PREAMBLE).unwrap()), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn readers_get_what_was_written(payload in "([ -~\r\n]|é|\x1e){0,80}") {
            let stream = [PREAMBLE, &event(payload.as_bytes()), &event(b"2")].concat();
            let joined = payload.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(read(&String::from_utf8(stream).unwrap()), [joined, "2".to_owned()]);
        }
    }
}
