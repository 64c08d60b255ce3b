//! Records that a function could not process: they go back into the stream, marked, so that nothing is lost
//! and no trigger gets them again.
//!
//! ```text
//! message source  functionPoison
//! properties      iothub-poison-function, -reason, -offset, -partition, -count, -enqueued
//! body            the record's own, cut to what fits (then iothub-poison-cut is set)
//! ```
//!
//! A batch with more records than [`RECORDS_MAX`] is one poison record that names their range: the
//! records themselves stay readable at their offsets for as long as the stream keeps them.

use fleetline_devices::{Emit, EventRow, Op, Property, SystemPropertyRow, endpoints};
use fleetline_iothub::bag::SystemProperty;
use fleetline_types::PartitionId;

use crate::civil::iso;
use crate::records::{POISON_SOURCE, StreamRecord};

/// Records of a batch that become a poison record each; all have to fit into one commit.
const RECORDS_MAX: usize = 200;
/// Bytes of all bodies together, for the same reason.
const BODIES_MAX: usize = 2 << 20;
/// Bytes of one body.
const BODY_MAX: usize = 128 << 10;
/// Bytes of the reason.
const REASON_MAX: usize = 1024;

/// What a commit has to put into the stream for these records.
pub(crate) fn emits(
    origin: &str,
    partition: PartitionId,
    records: &[StreamRecord],
    reason: &str,
    now_ms: u64,
) -> Vec<Op> {
    if records.len() > RECORDS_MAX {
        let first: Vec<&StreamRecord> = records.iter().take(1).collect();
        let row = |record: &&StreamRecord| event(origin, partition, record, records.len(), reason, 0, now_ms);
        return first.iter().map(row).collect();
    }
    let body_max = (BODIES_MAX / records.len().max(1)).min(BODY_MAX);
    records.iter().map(|record| event(origin, partition, record, 1, reason, body_max, now_ms)).collect()
}

fn event(
    origin: &str,
    partition: PartitionId,
    record: &StreamRecord,
    count: usize,
    reason: &str,
    body_max: usize,
    now_ms: u64,
) -> Op {
    let body = record.view.body.slice(..record.view.body.len().min(body_max));
    let mut properties = vec![
        ("iothub-poison-function", origin.to_owned()),
        ("iothub-poison-reason", cut(reason)),
        ("iothub-poison-offset", record.offset.to_string()),
        ("iothub-poison-partition", partition.0.to_string()),
        ("iothub-poison-count", count.to_string()),
        ("iothub-poison-enqueued", iso(record.enqueued_ms)),
    ];
    if body.len() < record.view.body.len() {
        properties.push(("iothub-poison-cut", record.view.body.len().to_string()));
    }
    let copied = [SystemProperty::ContentType, SystemProperty::ContentEncoding, SystemProperty::MessageId];
    let copied = record.view.system().filter(|(id, _)| copied.iter().any(|kept| kept.number() == *id));
    let mut system: Vec<SystemPropertyRow> = copied
        .map(|(id, value)| SystemPropertyRow { id: id.into(), value: cut(&String::from_utf8_lossy(&value)) })
        .collect();
    let source = SystemProperty::MessageSource.number().into();
    system.push(SystemPropertyRow { id: source, value: POISON_SOURCE.to_owned() });
    let property = |(name, value): (&str, String)| Property { name: name.to_owned(), value };
    Op::Emit(Emit {
        event: EventRow {
            device: record.device(),
            time_ms: now_ms,
            system,
            properties: properties.into_iter().map(property).collect(),
            body,
            endpoints: endpoints::EVENTS,
        },
    })
}

fn cut(text: &str) -> String {
    let end = (0..=text.len().min(REASON_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}
