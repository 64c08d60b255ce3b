//! Where effects belong: into the commit of the function's own partition, or elsewhere before it.
//!
//! | effect | own partition's device | another partition's |
//! |---|---|---|
//! | twin, command | in the commit: exactly once | before the commit: at least once |
//! | record of the stream | in the commit, by the outbox | appended by a producer of its own |
//! | realtime | before the commit | |
//!
//! What goes out before the commit carries the invocation's id, which is the same when the batch comes
//! again, so that receivers can drop what they had. A record for which no device is named stays in the own
//! partition.

use fleetline_devices::{
    AckMode, CommandRow, Commit, Condition, DeviceCommand, DeviceKey, Emit, EventRow, Op, PatchTwin,
    Property, SendCommand, SystemPropertyRow, endpoints, limits,
};
use fleetline_iothub::bag::{SystemProperty, is_stamped_name};
use fleetline_types::{PartitionId, partition_of_key};

use crate::effects::{CommandEffect, Effect, EventEffect, TwinEffect};
use crate::realtime::{Destination, GroupAction};
use crate::records::{ORIGIN_PROPERTY, OUTPUT_SOURCE};

/// Bytes of a commit that are left for its own fields.
const COMMIT_SPARE: usize = 4 << 10;

/// Something to do outside of the commit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outside {
    Change(PartitionId, Box<Op>),
    Append(PartitionId, Box<EventRow>),
    Message { hub: String, destination: Destination, target: String, arguments: bytes::Bytes },
    Group { hub: String, action: GroupAction },
}

/// Effects by their place, each list in the function's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placed {
    pub(crate) own: Vec<Op>,
    pub(crate) outside: Vec<Outside>,
}

/// Who causes effects.
#[derive(Clone, Debug)]
pub(crate) struct Cause<'a> {
    pub(crate) partitions: u32,
    /// The partition whose commit there will be.
    pub(crate) own: Option<PartitionId>,
    pub(crate) app: &'a str,
    pub(crate) function: &'a str,
    pub(crate) invocation: &'a str,
    /// The device that all records of the invocation are of, if there is one.
    pub(crate) device: Option<&'a str>,
    pub(crate) now_ms: u64,
}

impl Cause<'_> {
    /// Sorts effects.
    ///
    /// # Errors
    /// One that can never be done: it is too large, or has a form that the hub refuses.
    pub(crate) fn place(&self, effects: Vec<Effect>) -> Result<Placed, String> {
        let mut placed = Placed::default();
        for (number, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::Message { hub, destination, target, arguments } => {
                    placed.outside.push(Outside::Message { hub, destination, target, arguments });
                }
                Effect::Group { hub, action } => placed.outside.push(Outside::Group { hub, action }),
                Effect::Twin(twin) => {
                    let at = self.of_device(&twin.device);
                    self.put(&mut placed, at, patch_twin(twin))?;
                }
                Effect::Command(command) => {
                    let at = self.of_device(&command.device);
                    self.put(&mut placed, at, self.send_command(*command, number)?)?;
                }
                Effect::Event(event) => self.put_event(&mut placed, event, number)?,
            }
        }
        Ok(placed)
    }

    fn of_device(&self, device: &str) -> PartitionId {
        partition_of_key(device.as_bytes(), self.partitions)
    }

    fn put(&self, placed: &mut Placed, at: PartitionId, op: Op) -> Result<(), String> {
        let command = DeviceCommand::new(op);
        command.check().map_err(|error| error.to_string())?;
        let Some(op) = command.op else { return Ok(()) };
        match self.own == Some(at) {
            true => placed.own.push(op),
            false => placed.outside.push(Outside::Change(at, Box::new(op))),
        }
        Ok(())
    }

    fn put_event(&self, placed: &mut Placed, event: EventEffect, number: usize) -> Result<(), String> {
        let named = event.device.clone().or_else(|| self.device.map(str::to_owned));
        let row = self.event_row(event, named.clone(), number);
        let op = DeviceCommand::new(Op::Emit(Emit { event: row.clone() }));
        op.check().map_err(|error| error.to_string())?;
        let at = match (&named, self.own) {
            (None, Some(own)) => own,
            _ => self.of_device(&row.device),
        };
        match self.own == Some(at) {
            true => placed.own.extend(op.op),
            false => placed.outside.push(Outside::Append(at, Box::new(row))),
        }
        Ok(())
    }

    fn event_row(&self, event: EventEffect, device: Option<String>, number: usize) -> EventRow {
        // No device has a slash in its id.
        let device = device.unwrap_or_else(|| format!("functions/{}/{}", self.app, self.function));
        let system = |id: SystemProperty, value: String| SystemPropertyRow { id: id.number().into(), value };
        let mut rows = vec![
            system(SystemProperty::MessageSource, OUTPUT_SOURCE.to_owned()),
            system(SystemProperty::MessageId, format!("{}-{number}", self.invocation)),
        ];
        if let Some(content_type) = event.content_type {
            if content_type.to_ascii_lowercase().contains("json") {
                rows.push(system(SystemProperty::ContentEncoding, "utf-8".to_owned()));
            }
            rows.push(system(SystemProperty::ContentType, content_type));
        }
        let is_own = |name: &str| name == ORIGIN_PROPERTY || is_stamped_name(name);
        let mut properties: Vec<Property> = event
            .properties
            .into_iter()
            .filter(|(name, _)| !is_own(name))
            .map(|(name, value)| Property { name, value })
            .collect();
        properties.push(Property {
            name: ORIGIN_PROPERTY.to_owned(),
            value: format!("{}/{}", self.app, self.function),
        });
        EventRow {
            device,
            time_ms: self.now_ms,
            system: rows,
            properties,
            body: event.body,
            endpoints: endpoints::TELEMETRY,
        }
    }

    fn send_command(&self, command: CommandEffect, number: usize) -> Result<Op, String> {
        let ack = match command.ack.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "none" => AckMode::None,
            "positive" => AckMode::Positive,
            "negative" => AckMode::Negative,
            "full" => AckMode::Full,
            other => return Err(format!("ack {other} is none of none, positive, negative, full")),
        };
        let message_id = command.message_id.unwrap_or_else(|| format!("{}-{number}", self.invocation));
        let texts = [
            (SystemProperty::CorrelationId, command.correlation_id),
            (SystemProperty::ContentType, command.content_type),
            (SystemProperty::ContentEncoding, command.content_encoding),
        ];
        let row = |(id, value): (SystemProperty, Option<String>)| {
            value.map(|value| SystemPropertyRow { id: id.number().into(), value })
        };
        let properties = command.properties.into_iter().map(|(name, value)| Property { name, value });
        let expires_ms =
            command.ttl_seconds.map_or(0, |ttl| self.now_ms.saturating_add(ttl.saturating_mul(1000)));
        let row = CommandRow {
            system: texts.into_iter().filter_map(row).collect(),
            properties: properties.collect(),
            body: command.body,
            expires_ms,
            ack: ack.into(),
            message_id,
            ..CommandRow::default()
        };
        let key = DeviceKey { device: command.device, module: command.module };
        Ok(Op::SendCommand(SendCommand { key, command: row }))
    }
}

fn patch_twin(twin: TwinEffect) -> Op {
    Op::PatchTwin(PatchTwin {
        key: DeviceKey { device: twin.device, module: twin.module },
        tags: twin.tags,
        desired: twin.desired,
        replace: twin.replace,
        condition: Condition::any(),
    })
}

/// Whether so many changes of so many bytes fit into one commit.
pub(crate) fn fits(count: usize, bytes: usize) -> bool {
    count <= limits::BULK_MAX && bytes + COMMIT_SPARE <= limits::COMMIT_BYTES_MAX
}

/// Bytes of a change within a commit, at the most.
pub(crate) fn size(op: &Op) -> usize {
    // A field's head and length, twice.
    prost::Message::encoded_len(&DeviceCommand::new(op.clone())) + 16
}

/// Whether a commit is within its bounds.
pub(crate) fn check(commit: &Commit) -> Result<(), String> {
    let ops = &commit.changes.ops;
    if !fits(ops.len(), prost::Message::encoded_len(commit)) {
        return Err(format!(
            "the effects are {} changes of {} bytes, and at most {} of {} bytes fit into one commit",
            ops.len(),
            prost::Message::encoded_len(commit),
            limits::BULK_MAX,
            limits::COMMIT_BYTES_MAX
        ));
    }
    commit.check().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSE: Cause<'static> = Cause {
        partitions: 4,
        own: None,
        app: "a",
        function: "f",
        invocation: "id",
        device: None,
        now_ms: 1_000,
    };

    /// A device of a partition.
    fn device_in(partition: u32) -> String {
        (0..).map(|n| format!("d{n}")).find(|id| partition_of_key(id.as_bytes(), 4).0 == partition).unwrap()
    }

    fn twin(device: &str) -> Effect {
        Effect::Twin(TwinEffect { device: device.into(), tags: "{}".into(), ..TwinEffect::default() })
    }

    fn command(device: &str) -> Effect {
        Effect::Command(Box::new(CommandEffect {
            device: device.into(),
            ttl_seconds: Some(5),
            ..CommandEffect::default()
        }))
    }

    fn event(device: Option<&str>) -> Effect {
        Effect::Event(EventEffect {
            device: device.map(str::to_owned),
            body: "x".into(),
            ..EventEffect::default()
        })
    }

    #[test]
    fn own_and_other_partitions() {
        let (mine, other) = (device_in(2), device_in(3));
        let cause = Cause { own: Some(PartitionId(2)), ..CAUSE };
        let effects = vec![
            twin(&mine),
            twin(&other),
            command(&mine),
            command(&other),
            event(None),
            event(Some(&mine)),
            event(Some(&other)),
        ];
        let placed = cause.place(effects.clone()).unwrap();
        assert!(matches!(
            placed.own.as_slice(),
            [Op::PatchTwin(_), Op::SendCommand(_), Op::Emit(_), Op::Emit(_)]
        ));
        assert!(matches!(
            placed.outside.as_slice(),
            [Outside::Change(PartitionId(3), _), Outside::Change(..), Outside::Append(PartitionId(3), _)]
        ));
        let Op::SendCommand(sent) = &placed.own[1] else { panic!() };
        assert_eq!((sent.command.message_id.as_str(), sent.command.expires_ms), ("id-2", 6_000));
        let Op::Emit(emitted) = &placed.own[2] else { panic!() };
        assert_eq!(emitted.event.device, "functions/a/f");
        // Without a partition of its own, everything is outside.
        assert_eq!(CAUSE.place(effects).unwrap().own, []);
        // The device that all records are of is that of a record without one, too.
        let placed = Cause { device: Some(&mine), ..cause }.place(vec![event(None)]).unwrap();
        let Op::Emit(emitted) = &placed.own[0] else { panic!() };
        assert_eq!(emitted.event.device, mine);
    }

    /// What the server says, a function can't say.
    #[test]
    fn properties_of_events() {
        let pair = |name: &str| (name.to_owned(), "v".to_owned());
        let properties = vec![pair("a"), pair("iothub-connection-device-id"), pair(ORIGIN_PROPERTY)];
        let effect = Effect::Event(EventEffect { properties, ..EventEffect::default() });
        let cause = Cause { own: Some(PartitionId(0)), ..CAUSE };
        let placed = cause.place(vec![effect]).unwrap();
        let Op::Emit(emitted) = &placed.own[0] else { panic!() };
        let names: Vec<_> =
            emitted.event.properties.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
        assert_eq!(names, [("a", "v"), (ORIGIN_PROPERTY, "a/f")]);
    }

    #[test]
    fn what_can_never_be_done_is_an_error() {
        let large = Effect::Event(EventEffect {
            body: vec![0; limits::MESSAGE_MAX + 1].into(),
            ..EventEffect::default()
        });
        assert!(CAUSE.place(vec![large]).is_err());
        let ack = Effect::Command(Box::new(CommandEffect {
            ack: Some("maybe".into()),
            ..CommandEffect::default()
        }));
        assert!(CAUSE.place(vec![ack]).is_err());
        assert!(!fits(limits::BULK_MAX + 1, 0) && !fits(1, limits::COMMIT_BYTES_MAX));
    }
}
