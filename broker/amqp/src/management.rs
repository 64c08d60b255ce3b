//! `$management` of the Event Hubs-compatible endpoint: what the hub and its partitions are.

use std::sync::Arc;

use fleetline_amqp::Writer;
use fleetline_amqp::message::{Message, MessageWriter, Properties};
use fleetline_amqp::value::Value;
use fleetline_gateway::hub::{HubError, PartitionInfo};
use fleetline_types::PartitionId;

use crate::AmqpContext;
use crate::address::number;

/// A request, without what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The message id as it was written.
    pub(crate) id: Vec<u8>,
    pub(crate) reply_to: Option<String>,
    operation: String,
    kind: String,
    name: String,
    partition: Option<String>,
}

impl Ask {
    pub(crate) fn of(message: &Message<'_>) -> Ask {
        let text = |name: &str| {
            let value = message.application_properties.get(name);
            value.and_then(|value| value.as_text()).unwrap_or_default().to_owned()
        };
        let partition = message.application_properties.get("partition").and_then(|value| match value {
            Value::String(text) | Value::Symbol(text) => Some(text.to_owned()),
            value => value.as_i64().map(|number| number.to_string()),
        });
        let properties = message.properties().unwrap_or_default();
        let mut id = Vec::new();
        Writer::new(&mut id).value(&properties.message_id);
        Ask {
            id,
            reply_to: properties.reply_to.map(str::to_owned),
            operation: text("operation"),
            kind: text("type"),
            name: text("name"),
            partition,
        }
    }
}

/// Writes an answer's head; its body follows.
pub(crate) fn answer_head<'b>(
    out: &'b mut Vec<u8>,
    id: &[u8],
    status: i32,
    description: &str,
    condition: Option<&str>,
) -> MessageWriter<'b> {
    let mut raw = id;
    let correlation_id = Value::read(&mut raw).unwrap_or(Value::Null);
    let mut writer = MessageWriter::new(out);
    writer.properties(&Properties { correlation_id, ..Properties::default() }).application_properties(|w| {
        w.string("status-code");
        w.int(status);
        w.string("status-description");
        w.string(description);
        // The older clients look for these names.
        w.string("statusCode");
        w.int(status);
        w.string("statusDescription");
        w.string(description);
        if let Some(condition) = condition {
            w.string("error-condition");
            w.symbol(condition);
        }
    });
    writer
}

fn failed(ask: &Ask, status: i32, condition: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    answer_head(&mut out, &ask.id, status, text, Some(condition)).value(|w| w.null());
    out
}

/// Answers a request.
pub(crate) async fn answer(context: Arc<AmqpContext>, ask: Ask) -> Vec<u8> {
    if !ask.operation.eq_ignore_ascii_case("READ") {
        return failed(&ask, 501, "amqp:not-implemented", "only READ is known");
    }
    if !context.is_hub(&ask.name) && !ask.name.eq_ignore_ascii_case("messages/events") {
        return failed(&ask, 404, "amqp:not-found", "no event hub has this name");
    }
    match ask.kind.to_ascii_lowercase().as_str() {
        "com.microsoft:eventhub" => hub(&context, &ask),
        "com.microsoft:partition" => partition(&context, &ask).await,
        _ => failed(&ask, 400, "com.microsoft:argument-error", "type is neither a hub nor a partition"),
    }
}

fn hub(context: &AmqpContext, ask: &Ask) -> Vec<u8> {
    let count = context.gateway.hub.partitions();
    let ids: Vec<String> = (0..count).map(|partition| partition.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut out = Vec::new();
    answer_head(&mut out, &ask.id, 200, "OK", None).value(|w| {
        w.map(|w| {
            w.string("name");
            w.string(&ask.name);
            w.string("type");
            w.string("com.microsoft:eventhub");
            w.string("created_at");
            w.timestamp(context.identity.created_ms as i64);
            w.string("partition_count");
            w.int(count as i32);
            w.string("partition_ids");
            w.strings(&ids);
            w.string("georeplication_factor");
            w.int(1);
        });
    });
    out
}

async fn partition(context: &AmqpContext, ask: &Ask) -> Vec<u8> {
    let wanted = ask.partition.as_deref().and_then(number);
    let Some(partition) = wanted.filter(|partition| *partition < context.gateway.hub.partitions()) else {
        return failed(ask, 404, "amqp:not-found", "no such partition");
    };
    let info = match context.hub.partition_info(PartitionId(partition)).await {
        Ok(info) => info,
        Err(error @ HubError::NotFound(_)) => {
            return failed(ask, 404, "amqp:not-found", &error.to_string());
        }
        Err(error) => return failed(ask, 503, "com.microsoft:server-busy", &error.to_string()),
    };
    let mut out = Vec::new();
    answer_head(&mut out, &ask.id, 200, "OK", None).value(|w| partition_map(w, ask, partition, &info));
    out
}

fn partition_map(w: &mut Writer<'_>, ask: &Ask, partition: u32, info: &PartitionInfo) {
    // "-1 if empty"
    let last = info.high_watermark.0 as i64 - 1;
    w.map(|w| {
        w.string("name");
        w.string(&ask.name);
        w.string("type");
        w.string("com.microsoft:partition");
        w.string("partition");
        w.string(&partition.to_string());
        w.string("begin_sequence_number");
        w.long(info.start.0 as i64);
        w.string("last_enqueued_sequence_number");
        w.long(last);
        w.string("last_enqueued_offset");
        w.string(&last.to_string());
        w.string("last_enqueued_time_utc");
        w.timestamp(info.last_enqueued.0 as i64);
        w.string("is_partition_empty");
        w.bool(info.start >= info.high_watermark);
    });
}
