//! Links of services: commands to devices, feedback on them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp::message::{Message, MessageWriter, Properties};
use fleetline_amqp::{Error, Outcome, PeerOutcome, Receipt, SentId, condition};
use fleetline_devices::{
    CommandRow, DeviceKey, FeedbackRow, LockFeedback, Op, Outcome as CommandOutcome, Request, SendCommand,
    Settle, SettleFeedback,
};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_gateway::devices::settings::{HubSettings, Right};
use fleetline_iothub::bag::format_time;
use fleetline_iothub::limits::C2D_MESSAGE_BYTES_MAX;
use fleetline_types::{PartitionId, partition_of_key};
use futures::future::AbortHandle;
use serde_json::{Value, json};

use crate::address::command_target;
use crate::errors;
use crate::incoming::{Incoming, MessageError};

/// Sending commands, as policies name it.
pub(crate) const SEND: &str = "cloudToDeviceMessages/send/action";
/// Receiving feedback, as policies name it.
pub(crate) const FEEDBACK: &str = "cloudToDeviceMessages/feedback/action";

/// The media type that SDKs look for.
const FEEDBACK_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";
/// How long a service has feedback to itself.
const LOCK_MS: u64 = 60_000;

/// A service's link for commands.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) policy: String,
    /// Not sent yet, in order.
    queue: VecDeque<(Receipt, DeviceKey, Box<CommandRow>)>,
    pub(crate) sending: bool,
}

impl Commands {
    pub(crate) fn new(policy: String) -> Commands {
        Commands { policy, queue: VecDeque::new(), sending: false }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// What it is rejected with.
    pub(crate) fn take(
        &mut self,
        settings: &HubSettings,
        receipt: Receipt,
        payload: &[u8],
        new_id: String,
    ) -> Result<(), Error> {
        let message = Message::parse(payload).map_err(|error| invalid(&error.into()))?;
        let incoming = Incoming::of(&message).map_err(|error| invalid(&error))?;
        let (bytes, limit) = (incoming.size(), C2D_MESSAGE_BYTES_MAX);
        if bytes > limit {
            return Err(invalid(&MessageError::TooLarge { bytes, limit }));
        }
        let key = incoming.to.and_then(command_target).ok_or_else(|| {
            Error::new(condition::ARGUMENT_ERROR, "`to` is not the address of a device's commands")
        })?;
        let policy = settings.policies.get(&self.policy);
        let may =
            |right, action| policy.is_some_and(|policy| policy.allows(right) && policy.covers_action(action));
        if !may(Right::ServiceConnect, SEND)
            || !policy.is_some_and(|policy| policy.covers_device(&key.device))
        {
            let text = "the policy doesn't allow commands to this device";
            return Err(Error::new(condition::UNAUTHORIZED_ACCESS, text));
        }
        let command = incoming.into_command(new_id).map_err(|error| invalid(&error))?;
        self.queue.push_back((receipt, key, Box::new(command)));
        Ok(())
    }

    /// The next command to send, when none is on its way.
    pub(crate) fn next(&mut self) -> Option<(Receipt, DeviceKey, Box<CommandRow>)> {
        if self.sending {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.sending = true;
        Some(next)
    }
}

/// What a message is rejected with.
pub(crate) fn invalid(error: &MessageError) -> Error {
    let condition = match error {
        MessageError::Decode(_) => condition::DECODE_ERROR,
        MessageError::Invalid(_) => condition::ARGUMENT_ERROR,
        MessageError::TooLarge { .. } => condition::MESSAGE_SIZE_EXCEEDED,
    };
    Error::new(condition, error.to_string())
}

/// Sends a command; its outcome.
pub(crate) async fn send(hub: Arc<dyn DeviceHub>, key: DeviceKey, command: CommandRow) -> Outcome {
    let partition = partition_of_key(key.device.as_bytes(), hub.partitions());
    match hub.change(partition, Op::SendCommand(SendCommand { key, command })).await {
        Ok(_) => Outcome::Accepted,
        Err(error) => Outcome::Rejected(errors::tracked(hub.as_ref(), errors::of_ask(&error))),
    }
}

/// Feedback records under one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lot {
    pub(crate) partition: PartitionId,
    /// The lock's token; as HTTP has it, so that either wire may settle.
    pub(crate) token: String,
    /// 16 bytes, "converted to a Guid".
    pub(crate) tag: [u8; 16],
    pub(crate) message: Vec<u8>,
}

/// A service's link for feedback.
#[derive(Debug, Default)]
pub(crate) struct Feedback {
    pub(crate) fetched: Option<Lot>,
    /// A fetch is on its way; whether it waits until there is something.
    pub(crate) fetching: Option<(AbortHandle, bool)>,
    pub(crate) open: BTreeMap<SentId, (PartitionId, String)>,
}

impl Drop for Feedback {
    fn drop(&mut self) {
        self.fetching.iter().for_each(|(fetching, _)| fetching.abort());
    }
}

/// Feedback of any partition; without an interval what there is now, else it waits for some. Heads are
/// read first: a lock is an entry of the log, a look not.
pub(crate) async fn fetch(hub: Arc<dyn DeviceHub>, host: String, interval: Option<Duration>) -> Option<Lot> {
    let partitions = hub.partitions();
    let mut random = [0; 4];
    hub.random(&mut random);
    let mut first = u32::from_le_bytes(random);
    loop {
        for step in 0..partitions {
            let partition = PartitionId(first.wrapping_add(step) % partitions.max(1));
            match lock(&hub, partition, &host).await {
                Ok(Some(lot)) => return Some(lot),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "feedback is looked for later"),
            }
        }
        first = first.wrapping_add(1);
        tokio::time::sleep(interval?).await;
    }
}

async fn lock(hub: &Arc<dyn DeviceHub>, partition: PartitionId, host: &str) -> Result<Option<Lot>, AskError> {
    let answer = answered(hub.ask(partition, Request::Head(true)).await?)?;
    if answer.head.is_none_or(|head| head.feedback == 0) {
        return Ok(None);
    }
    let mut tag = [0; 16];
    hub.random(&mut tag);
    let guid = fleetline_amqp::message::uuid_text(&tag);
    let token = format!("{guid}-{}", partition.0);
    let lock = LockFeedback { token: token.clone(), lock_ms: LOCK_MS };
    let reply = hub.change(partition, Op::LockFeedback(lock)).await?;
    if reply.feedback.is_empty() {
        return Ok(None);
    }
    let newest = reply.feedback.iter().map(|row| row.time_ms).max().unwrap_or_default();
    let body = Value::Array(reply.feedback.iter().map(record).collect()).to_string();
    let message = service_message(FEEDBACK_TYPE, host, newest, &token, body.as_bytes());
    Ok(Some(Lot { partition, token, tag, message }))
}

/// A message for services: "C# dereferences without checks".
pub(crate) fn service_message(
    media_type: &str,
    host: &str,
    enqueued_ms: u64,
    token: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    MessageWriter::new(&mut out)
        .message_annotations(|w| {
            w.symbol("iothub-enqueuedtime");
            w.timestamp(enqueued_ms as i64);
            w.symbol("x-opt-lock-token");
            w.string(token);
        })
        .properties(&Properties {
            user_id: Some(host.as_bytes()),
            content_type: Some(media_type),
            ..Properties::default()
        })
        .data(body);
    out
}

fn record(row: &FeedbackRow) -> Value {
    let (code, description) = match CommandOutcome::try_from(row.outcome) {
        Ok(CommandOutcome::Success) | Err(_) => ("Success", "Success"),
        Ok(CommandOutcome::Expired) => ("Expired", "Message expired"),
        Ok(CommandOutcome::DeliveryCountExceeded) => ("DeliveryCountExceeded", "Delivery count exceeded"),
        Ok(CommandOutcome::Rejected) => ("Rejected", "Message rejected"),
        Ok(CommandOutcome::Purged) => ("Purged", "Message purged"),
    };
    let message_id = (!row.message_id.is_empty()).then_some(&row.message_id);
    json!({
        "originalMessageId": message_id,
        "deviceId": row.key.device,
        "deviceGenerationId": row.generation,
        "enqueuedTimeUtc": format_time(row.time_ms),
        "statusCode": code,
        "description": description,
    })
}

/// What a service's word on feedback means.
pub(crate) fn settle_of(outcome: &PeerOutcome) -> Settle {
    match outcome {
        PeerOutcome::Accepted | PeerOutcome::None => Settle::Complete,
        PeerOutcome::Rejected(_) => Settle::Reject,
        PeerOutcome::Released | PeerOutcome::Modified { .. } => Settle::Abandon,
    }
}

/// Settles feedback. "Answer both with a settled accepted."
pub(crate) async fn settle(
    hub: Arc<dyn DeviceHub>,
    partition: PartitionId,
    token: String,
    settle: Settle,
) -> Outcome {
    let op = Op::SettleFeedback(SettleFeedback { token, settle: settle as i32 });
    match hub.change(partition, op).await {
        Ok(_) => Outcome::Accepted,
        Err(error) => Outcome::Rejected(errors::of_ask(&error)),
    }
}
