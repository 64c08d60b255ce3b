//! From received bytes to records: the hot path.
//!
//! Bytes are read into a buffer of the thread, packets are decoded in place, and a record's payload is
//! copied once, into the open batch. Only the beginning of a packet that hasn't arrived whole is kept.

use std::cell::RefCell;
use std::sync::Arc;

use fleetline_batch::RecordRef;
use fleetline_devices::endpoints;
use fleetline_iothub::bag::{Bag, SystemProperty, parse_into};
use fleetline_iothub::limits::D2C_MESSAGE_BYTES_MAX;
use fleetline_mqtt::{Limits, Version, decode, frame_len, reason};
use fleetline_types::{PartitionId, TimestampMs};

use super::session::{Close, Session, Step, Telemetry};
use crate::devices::connections::Link;
use crate::devices::ingest::{Ingest, Pushed};
use crate::devices::record::Stamps;

thread_local! {
    /// Properties of the message at hand; its memory is kept.
    static BAG: RefCell<Bag<'static>> = RefCell::new(Bag::new());
}

/// What input needs beside the session.
pub(super) struct Sink<'a> {
    pub(super) ingest: &'a Ingest,
    pub(super) partition: PartitionId,
    pub(super) link: &'a Arc<Link>,
    pub(super) stamps: &'a Stamps,
    pub(super) limits: &'a Limits,
    pub(super) now: TimestampMs,
}

/// How far input got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All whole packets are done; the rest begins at this byte.
    All(usize),
    /// The packet at this byte has to wait: for the session's own room, or (`true`) the partition's.
    Blocked(usize, bool),
}

/// Handles the packets in `bytes`.
pub(super) fn handle(
    session: &mut Session,
    sink: &Sink<'_>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<Progress, Close> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let len = match frame_len(rest, sink.limits) {
            Ok(Some(len)) if rest.len() >= len => len,
            Ok(_) => return Ok(Progress::All(at)),
            Err(error) => return Err(Close::error(error.reason(), "malformed")),
        };
        if !session.has_room() {
            return Ok(Progress::Blocked(at, false));
        }
        let packet = decode(&rest[..len], Some(session.version), sink.limits)
            .map_err(|error| Close::error(error.reason(), "malformed"))?;
        if let Step::Telemetry(telemetry) = session.on_packet(packet, out)? {
            match push(session, sink, &telemetry)? {
                true => session.taken(telemetry.ack),
                false => return Ok(Progress::Blocked(at, true)),
            }
        }
        at += len;
    }
}

/// Gives a message to the ingest; `false` when there is no room.
fn push(session: &Session, sink: &Sink<'_>, telemetry: &Telemetry<'_>) -> Result<bool, Close> {
    let (stamps, count) = sink.stamps.properties();
    let plain = telemetry.bag.is_empty() && !telemetry.retain && session.version == Version::V311;
    let pushed = match plain {
        true => {
            if telemetry.payload.len() > D2C_MESSAGE_BYTES_MAX {
                return Err(Close::error(reason::PACKET_TOO_LARGE, "message_too_large"));
            }
            let record = RecordRef {
                device: session.key.device.as_bytes(),
                time: sink.now,
                endpoints: endpoints::TELEMETRY,
                system: &stamps[..count],
                properties: &[],
                body: telemetry.payload,
            };
            sink.ingest.push(sink.partition, sink.link, session.next_number(), &record)
        }
        false => push_with_properties(session, sink, telemetry, &stamps[..count])?,
    };
    match pushed {
        Pushed::Taken => Ok(true),
        Pushed::Full => Ok(false),
        Pushed::Over => Err(Close::error(reason::SESSION_TAKEN_OVER, "session_over")),
        Pushed::Refused(_) => Err(Close::error(reason::PACKET_TOO_LARGE, "message_too_large")),
    }
}

fn push_with_properties(
    session: &Session,
    sink: &Sink<'_>,
    telemetry: &Telemetry<'_>,
    stamps: &[(u8, &[u8])],
) -> Result<Pushed, Close> {
    BAG.with_borrow_mut(|kept| {
        let mut bag = std::mem::take(kept).recycle();
        parse_into(telemetry.bag, &mut bag)
            .map_err(|_| Close::error(reason::TOPIC_NAME_INVALID, "property_bag"))?;
        let mut system: Vec<(u8, &[u8])> = Vec::with_capacity(stamps.len() + bag.system.len() + 1);
        system.extend_from_slice(stamps);
        system.extend(bag.system.iter().map(|(id, value)| (id.number(), value.as_bytes())));
        let mut application: Vec<(&[u8], &[u8])> = Vec::with_capacity(bag.application.len() + 1);
        application.extend(bag.application.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        if telemetry.retain {
            application.push((b"mqtt-retain", b"true"));
        }
        let properties = &telemetry.properties;
        let content_type =
            properties.content_type.filter(|_| bag.system_value(SystemProperty::ContentType).is_none());
        system.extend(content_type.map(|value| (SystemProperty::ContentType.number(), value.as_bytes())));
        application.extend(
            properties.user_properties.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        let counted = |rows: &[(&[u8], &[u8])]| {
            rows.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let size = telemetry.payload.len()
            + system[stamps.len()..].iter().map(|(_, value)| value.len()).sum::<usize>()
            + counted(&application);
        if size > D2C_MESSAGE_BYTES_MAX {
            return Err(Close::error(reason::PACKET_TOO_LARGE, "message_too_large"));
        }
        let record = RecordRef {
            device: session.key.device.as_bytes(),
            time: sink.now,
            endpoints: endpoints::TELEMETRY,
            system: &system,
            properties: &application,
            body: telemetry.payload,
        };
        let pushed = sink.ingest.push(sink.partition, sink.link, session.next_number(), &record);
        drop((system, application));
        *kept = bag.recycle();
        Ok(pushed)
    })
}
