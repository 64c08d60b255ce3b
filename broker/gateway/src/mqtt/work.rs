//! What a connection asks leaders for.

use std::sync::Arc;
use std::time::Duration;

use fleetline_devices::{
    Ask, CloseSession, DeviceKey, Op, PatchReported, Request, Settle, SettleCommand, Subscribe,
};
use fleetline_iothub::bag::format_time;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::topics::error_body;
use fleetline_twins::Section;
use fleetline_types::PartitionId;
use serde_json::{Map, Value};

use super::MqttContext;
use super::session::{Close, Done, Work};
use crate::devices::connections::Link;
use crate::devices::hub::{AskError, DeviceHub, answered};
use fleetline_mqtt::reason;

/// How long the end of a session may take to be told to its leader.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// Does one piece of work.
pub(super) async fn perform(
    hub: Arc<dyn DeviceHub>,
    partition: PartitionId,
    key: DeviceKey,
    epoch: u64,
    work: Work,
) -> Result<Done, Close> {
    let ask = |after, limit: usize| Ask { key: key.clone(), epoch, after, limit: limit as u32 };
    match work {
        Work::TwinGet { rid, ack } => {
            let answer = hub.ask(partition, Request::Get(ask(0, 1))).await.map_err(AskError::Hub);
            let twin = answer
                .and_then(answered)
                .map(|answer| twin_text(answer.views.first().map(|view| &view.twin)));
            Ok(match twin {
                Ok(Some(body)) => Done::Twin { rid, status: 200, version: None, body, ack },
                Ok(None) => twin_error(&hub, rid, ack, ErrorCode::DeviceNotFound, "the twin doesn't exist")?,
                Err(error) => twin_refusal(&hub, rid, ack, &error)?,
            })
        }
        Work::Reported { rid, if_version, patch, ack } => {
            let op = Op::PatchReported(PatchReported { key, epoch, patch, if_version });
            Ok(match hub.change(partition, op).await {
                Ok(reply) => {
                    let (version, body) = (Some(reply.number), String::new());
                    Done::Twin { rid, status: 204, version, body, ack }
                }
                Err(error) => twin_refusal(&hub, rid, ack, &error)?,
            })
        }
        Work::Subscribe { id, add, codes } => {
            let op = Op::Subscribe(Subscribe { key, epoch, add: add.clone(), remove: Vec::new() });
            if !add.is_empty() {
                insist(&hub, partition, op).await?;
            }
            Ok(Done::Subscribed { id, add, codes })
        }
        Work::Unsubscribe { id, remove, codes } => {
            let op = Op::Subscribe(Subscribe { key, epoch, add: Vec::new(), remove: remove.clone() });
            if !remove.is_empty() {
                insist(&hub, partition, op).await?;
            }
            Ok(Done::Unsubscribed { id, remove, codes })
        }
        Work::Complete { sequence } => {
            let settle = SettleCommand {
                key,
                token: String::new(),
                epoch,
                sequence,
                settle: Settle::Complete as i32,
                auth_version: 0,
            };
            match insist(&hub, partition, Op::SettleCommand(settle)).await {
                Ok(()) => Ok(Done::Completed),
                Err(close) => Err(close),
            }
        }
        Work::Commands { after, limit } => {
            let answer = insist_ask(&hub, partition, Request::Commands(ask(after, limit))).await?;
            Ok(Done::Commands(answer.commands))
        }
        Work::Desired { after } => {
            let answer = insist_ask(&hub, partition, Request::Desired(ask(after, 0))).await?;
            Ok(match answer.views.is_empty() {
                true => Done::Desired(answer.changes),
                false => Done::Stale,
            })
        }
    }
}

/// A change that must be done as long as the session lives. That it may be done twice harms none of
/// those that use this.
async fn insist(hub: &Arc<dyn DeviceHub>, partition: PartitionId, op: Op) -> Result<(), Close> {
    let mut wait = Duration::from_millis(50);
    loop {
        match hub.change(partition, op.clone()).await {
            Ok(_) => return Ok(()),
            Err(AskError::Refused(error)) => match ErrorCode::from_number(error.code) {
                // Somebody else has ended it, or it is too old: there is nothing left to do.
                Some(ErrorCode::DeviceMessageLockLost) => return Ok(()),
                Some(ErrorCode::DeviceConnectionClosedRemotely) => {
                    return Err(Close::error(reason::SESSION_TAKEN_OVER, "session_over"));
                }
                _ => return Err(Close::error(reason::QUOTA_EXCEEDED, "refused")),
            },
            Err(AskError::Hub(error)) => tracing::debug!(%error, "asked again later"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

async fn insist_ask(
    hub: &Arc<dyn DeviceHub>,
    partition: PartitionId,
    request: Request,
) -> Result<fleetline_devices::DeviceAnswer, Close> {
    let mut wait = Duration::from_millis(50);
    loop {
        match hub.ask(partition, request.clone()).await.map_err(AskError::Hub).and_then(answered) {
            Ok(answer) => return Ok(answer),
            Err(AskError::Refused(_)) => {
                return Err(Close::error(reason::SESSION_TAKEN_OVER, "session_over"));
            }
            Err(AskError::Hub(error)) => tracing::debug!(%error, "asked again later"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

/// The twin as its device sees it.
fn twin_text(twin: Option<&fleetline_devices::TwinRow>) -> Option<String> {
    let twin = twin?;
    let section =
        |stored: &[u8]| Section::decode(stored).ok().map(|section| Value::Object(section.device_json()));
    let mut text = Map::new();
    text.insert("desired".to_owned(), section(&twin.desired)?);
    text.insert("reported".to_owned(), section(&twin.reported)?);
    Some(Value::Object(text).to_string())
}

fn twin_refusal(
    hub: &Arc<dyn DeviceHub>,
    rid: String,
    ack: Option<fleetline_mqtt::PacketId>,
    error: &AskError,
) -> Result<Done, Close> {
    match error {
        AskError::Refused(refused) => match ErrorCode::from_number(refused.code) {
            Some(ErrorCode::DeviceConnectionClosedRemotely) => {
                Err(Close::error(reason::SESSION_TAKEN_OVER, "session_over"))
            }
            code => twin_error(hub, rid, ack, code.unwrap_or(ErrorCode::ArgumentInvalid), &refused.text),
        },
        AskError::Hub(error) => twin_error(hub, rid, ack, ErrorCode::ServerBusy, &error.to_string()),
    }
}

fn twin_error(
    hub: &Arc<dyn DeviceHub>,
    rid: String,
    ack: Option<fleetline_mqtt::PacketId>,
    code: ErrorCode,
    text: &str,
) -> Result<Done, Close> {
    let mut tracking = [0; 16];
    hub.random(&mut tracking);
    let tracking: String = tracking.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = error_body(code.number(), &tracking, text, &format_time(hub.now_ms()));
    Ok(Done::Twin { rid, status: code.http_status(), version: None, body, ack })
}

/// Tells the leader that a session's connection has ended.
pub(super) async fn close(context: &MqttContext, link: &Arc<Link>, graceful: bool) {
    if link.is_over() {
        return;
    }
    let hub = &context.gateway.hub;
    let partition = context.gateway.partition_of(&link.key.device);
    let close = CloseSession { key: link.key.clone(), epoch: link.epoch(), graceful };
    let told = async {
        let mut wait = Duration::from_millis(100);
        // A refusal says that the session is over already.
        while let Err(AskError::Hub(error)) = hub.change(partition, Op::CloseSession(close.clone())).await {
            tracing::debug!(device = link.key.text(), %error, "end of a session is told again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    };
    if tokio::time::timeout(CLOSE_PATIENCE, told).await.is_err() {
        // The leader ends it when this node's next incarnation says that it is there.
        metrics::counter!("fleetline_sessions_left_open_total").increment(1);
    }
}
