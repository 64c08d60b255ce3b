//! The few MQTT 3.1.1 packets that the load needs, as bytes.
//!
//! Used by `link` and `dial`. Written here and not taken from `protocol/mqtt`, so that the load judges our
//! server with code of its own, and so that a PUBLISH costs one copy and two patched bytes.
//!
//! Invariant: what is read is exactly what the load may expect; any other packet is an error, never skipped.
//!
//! Not here: sockets, windows, and which packet identifier is free.

use crate::Outcome;

/// DISCONNECT (3.14): complete as it is.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Bytes of a CONNACK, a PUBACK and a SUBACK for one filter are known in advance.
pub const CONNACK_BYTES: usize = 4;
/// SUBACK for one filter: header, packet identifier, one return code.
pub const SUBACK_BYTES: usize = 5;
const PUBACK_BYTES: usize = 4;
/// Largest value of the remaining length (2.2.3).
const REMAINING_MAX: usize = 268_435_455;

/// What a client says about itself in CONNECT.
pub struct Connect<'a> {
    /// Client identifier.
    pub client: &'a str,
    /// User name and password, if any.
    pub login: Option<(&'a str, &'a str)>,
    /// Whether the session begins empty and ends with the connection.
    pub clean_session: bool,
    /// Seconds after which a silent client counts as gone.
    pub keep_alive_s: u16,
}

impl Connect<'_> {
    /// The whole packet (3.1).
    ///
    /// # Errors
    /// When a text is longer than 65,535 bytes.
    pub fn encode(&self) -> Outcome<Vec<u8>> {
        let mut flags = u8::from(self.clean_session) << 1;
        if self.login.is_some() {
            flags |= 0b1100_0000;
        }
        let mut body = Vec::new();
        text(&mut body, "MQTT")?;
        body.extend([4, flags]);
        body.extend(self.keep_alive_s.to_be_bytes());
        text(&mut body, self.client)?;
        if let Some((user, password)) = self.login {
            text(&mut body, user)?;
            text(&mut body, password)?;
        }
        packet(0x10, &body)
    }
}

/// SUBSCRIBE (3.8) with packet identifier 1 to one filter at QoS 1.
///
/// # Errors
/// When the filter is longer than 65,535 bytes.
pub fn subscribe(filter: &str) -> Outcome<Vec<u8>> {
    let mut body = vec![0, 1];
    text(&mut body, filter)?;
    body.push(1);
    packet(0x82, &body)
}

/// A PUBLISH at QoS 1 of which only the packet identifier changes.
pub struct Publish {
    bytes: Vec<u8>,
    /// invariant: two bytes of `bytes` begin here.
    id_at: usize,
}

impl Publish {
    /// To a topic, with that many bytes of payload.
    ///
    /// # Errors
    /// When the topic or the whole is too long for MQTT.
    pub fn new(topic: &str, payload_bytes: usize) -> Outcome<Publish> {
        let mut body = Vec::new();
        text(&mut body, topic)?;
        let id_in_body = body.len();
        body.extend([0, 0]);
        body.resize(body.len() + payload_bytes, b'x');
        let bytes = packet(0x32, &body)?;
        Ok(Publish { id_at: bytes.len() - body.len() + id_in_body, bytes })
    }

    /// Bytes of the whole packet.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends it with that packet identifier, which isn't zero [MQTT-2.3.1-1].
    pub fn append(&self, out: &mut Vec<u8>, id: u16) {
        debug_assert!(id != 0);
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        out[at..at + 2].copy_from_slice(&id.to_be_bytes());
    }
}

/// Checks a CONNACK (3.2): accepted, or why not.
///
/// # Errors
/// When it is none, or a refusal.
pub fn check_connack(bytes: [u8; CONNACK_BYTES]) -> Outcome<()> {
    match bytes {
        [0x20, 2, 0 | 1, 0] => Ok(()),
        [0x20, 2, 0 | 1, code] => Err(format!("connection refused with code {code}").into()),
        _ => Err(format!("no CONNACK but {bytes:02x?}").into()),
    }
}

/// Checks a SUBACK (3.9) for packet identifier 1 that grants QoS 1.
///
/// # Errors
/// When it is none, or grants less.
pub fn check_suback(bytes: [u8; SUBACK_BYTES]) -> Outcome<()> {
    match bytes {
        [0x90, 3, 0, 1, 1] => Ok(()),
        _ => Err(format!("subscription at QoS 1 was not granted: {bytes:02x?}").into()),
    }
}

/// Reads all whole PUBACKs (3.4) at the beginning of `bytes` and returns how many bytes they are.
///
/// # Errors
/// When something else begins there, or `on_ack` refuses an identifier.
pub fn read_pubacks(bytes: &[u8], mut on_ack: impl FnMut(u16) -> Outcome<()>) -> Outcome<usize> {
    let (packets, rest) = bytes.as_chunks::<PUBACK_BYTES>();
    for packet in packets {
        match *packet {
            [0x40, 2, high, low] => on_ack(u16::from_be_bytes([high, low]))?,
            _ => return Err(format!("no PUBACK but {packet:02x?}").into()),
        }
    }
    Ok(bytes.len() - rest.len())
}

fn text(out: &mut Vec<u8>, text: &str) -> Outcome<()> {
    let length = u16::try_from(text.len()).map_err(|_| format!("text of {} bytes", text.len()))?;
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

/// Fixed header and body.
fn packet(first: u8, body: &[u8]) -> Outcome<Vec<u8>> {
    if body.len() > REMAINING_MAX {
        return Err(format!("packet of {} bytes", body.len()).into());
    }
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of figures 3.6 (with user and password) and of a clean session without any.
    #[test]
    fn connects_are_as_the_standard_says() {
        let mut connect = Connect { client: "dev1", login: None, clean_session: true, keep_alive_s: 0x0102 };
        assert_eq!(connect.encode().unwrap(), b"\x10\x10\0\x04MQTT\x04\x02\x01\x02\0\x04dev1");
        connect.login = Some(("u", "pw"));
        connect.clean_session = false;
        assert_eq!(connect.encode().unwrap(), b"\x10\x17\0\x04MQTT\x04\xc0\x01\x02\0\x04dev1\0\x01u\0\x02pw");
        let long = "x".repeat(65_536);
        connect.client = &long;
        assert!(connect.encode().is_err());
    }

    /// Only the identifier differs, wherever the packet begins and however long its header is.
    #[test]
    fn publishes_are_patched() {
        let short = Publish::new("a/", 3).unwrap();
        let mut out = b"before".to_vec();
        short.append(&mut out, 0x1234);
        short.append(&mut out, 1);
        assert_eq!(out, b"before\x32\x09\0\x02a/\x12\x34xxx\x32\x09\0\x02a/\0\x01xxx");
        assert_eq!(short.len(), 11);
        // 200 bytes of payload need a second byte of length: 2 + 1 + 2 + 200 = 205 = 0xcd 0x01.
        let long = Publish::new("a", 200).unwrap();
        let mut out = Vec::new();
        long.append(&mut out, 0xffff);
        assert_eq!(&out[..9], b"\x32\xcd\x01\0\x01a\xff\xffx");
        assert_eq!((out.len(), long.len()), (208, 208));
        assert!(Publish::new("a", REMAINING_MAX).is_err());
    }

    fn acks(bytes: &[u8]) -> (Result<usize, String>, Vec<u16>) {
        let mut seen = Vec::new();
        let read = read_pubacks(bytes, |id| {
            seen.push(id);
            Ok(())
        });
        (read.map_err(|error| error.to_string()), seen)
    }

    /// Whole acknowledgements are taken in order; half of one stays for the next read.
    #[test]
    fn pubacks_are_read() {
        assert_eq!(acks(b""), (Ok(0), vec![]));
        assert_eq!(acks(b"\x40\x02\x12"), (Ok(0), vec![]));
        assert_eq!(acks(b"\x40\x02\x12\x34"), (Ok(4), vec![0x1234]));
        assert_eq!(acks(b"\x40\x02\x12\x34\x40\x02\0\x01\x40"), (Ok(8), vec![0x1234, 1]));
    }

    /// Anything else is an error, also behind a good one; so is an identifier that the caller refuses.
    #[test]
    fn other_packets_are_errors() {
        let (read, seen) = acks(b"\x40\x02\0\x07\xd0\0\x40\x02");
        assert!(read.unwrap_err().contains("no PUBACK"));
        assert_eq!(seen, [7]);
        assert!(acks(b"\x40\x03\0\x07").0.is_err());
        assert!(read_pubacks(b"\x40\x02\0\x07", |_| Err("unknown".into())).is_err());
    }

    /// A refusal names its code (3.2.2.3); other bytes are no CONNACK.
    #[test]
    fn answers_are_checked() {
        check_connack([0x20, 2, 0, 0]).unwrap();
        check_connack([0x20, 2, 1, 0]).unwrap();
        assert!(check_connack([0x20, 2, 0, 5]).unwrap_err().to_string().contains("code 5"));
        assert!(check_connack([0x40, 2, 0, 0]).is_err());
        check_suback([0x90, 3, 0, 1, 1]).unwrap();
        assert!(check_suback([0x90, 3, 0, 1, 0x80]).is_err());
        assert_eq!(subscribe("a/#").unwrap(), b"\x82\x08\0\x01\0\x03a/#\x01");
    }
}
