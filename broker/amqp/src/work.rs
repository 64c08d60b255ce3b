//! What a connection asks leaders for on behalf of devices, and the ends of their sessions.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp::{Error, Outcome, Receipt, SentId, condition};
use fleetline_devices::{
    Ask, CloseSession, CommandRow, Connect, DesiredChange, DeviceAnswer, DeviceKey, Op, OpenSession,
    PatchReported, Proof, Request, SessionOpened, Settle, SettleCommand, Subscribe, SubscriptionRow,
};
use fleetline_gateway::devices::connections::{Link, Registered};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_iothub::bag::format_time;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::topics::error_body;
use fleetline_twins::Section;
use fleetline_types::PartitionId;
use serde_json::{Map, Value};

use crate::errors;

/// How often the leader is asked again when an identity changes under the login.
const ATTEMPTS: usize = 4;
/// How long the end of a session may take to be told to its leader.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// How a session says that method calls are listened for, whatever the protocol.
const METHODS_FILTER: &str = "$iothub/methods/POST/#";

/// A request of a twin's link: how it is called, and what settles it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TwinRequest {
    /// The correlation id as it was written; empty when there was none.
    pub(crate) id: Vec<u8>,
    pub(crate) receipt: Receipt,
}

/// Something that a device's leader must be asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    TwinGet(TwinRequest),
    Reported {
        request: TwinRequest,
        if_version: u64,
        patch: bytes::Bytes,
    },
    Settle {
        sequence: u64,
        settle: Settle,
        sent: Option<SentId>,
    },
    Commands {
        after: u64,
        limit: usize,
    },
    Desired {
        after: u64,
    },
    /// Services call methods of those devices only that the leader knows to listen.
    Listen {
        listens: bool,
    },
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum WorkDone {
    Twin {
        request: TwinRequest,
        status: u16,
        version: Option<u64>,
        body: String,
    },
    Settled {
        sequence: u64,
        settle: Settle,
        sent: Option<SentId>,
        outcome: Outcome,
    },
    Commands(Vec<CommandRow>),
    Desired(Vec<DesiredChange>),
    Listening,
    /// Desired changes are forgotten: the device has to read its twin again.
    Stale,
    /// The session is over.
    Over,
}

/// Does one piece of work.
pub(crate) async fn perform(
    hub: Arc<dyn DeviceHub>,
    partition: PartitionId,
    key: DeviceKey,
    epoch: u64,
    work: Work,
) -> WorkDone {
    let ask = |after, limit: usize| Ask { key: key.clone(), epoch, after, limit: limit as u32 };
    match work {
        Work::TwinGet(request) => {
            let asked = hub.ask(partition, Request::Get(ask(0, 1))).await.map_err(AskError::Hub);
            let twin = asked.and_then(answered).map(|answer| twin_text(&answer));
            match twin {
                Ok(Some(body)) => WorkDone::Twin { request, status: 200, version: None, body },
                Ok(None) => twin_error(&hub, request, ErrorCode::DeviceNotFound, "the twin doesn't exist"),
                Err(error) => twin_refusal(&hub, request, &error),
            }
        }
        Work::Reported { request, if_version, patch } => {
            let op = Op::PatchReported(PatchReported { key, epoch, patch, if_version });
            match hub.change(partition, op).await {
                Ok(reply) => {
                    let version = Some(reply.number);
                    WorkDone::Twin { request, status: 204, version, body: String::new() }
                }
                Err(error) => twin_refusal(&hub, request, &error),
            }
        }
        Work::Settle { sequence, settle, sent } => {
            let command = SettleCommand {
                key,
                token: String::new(),
                epoch,
                sequence,
                settle: settle as i32,
                auth_version: 0,
            };
            settled(&hub, partition, command, settle, sent).await
        }
        Work::Commands { after, limit } => {
            match insist(&hub, partition, Request::Commands(ask(after, limit))).await {
                Some(answer) => WorkDone::Commands(answer.commands),
                None => WorkDone::Over,
            }
        }
        Work::Desired { after } => match insist(&hub, partition, Request::Desired(ask(after, 0))).await {
            Some(answer) if answer.views.is_empty() => WorkDone::Desired(answer.changes),
            Some(_) => WorkDone::Stale,
            None => WorkDone::Over,
        },
        Work::Listen { listens } => listen(&hub, partition, key, epoch, listens).await,
    }
}

/// Settles a command. It is tried until there is an answer: that it may be done twice harms nothing.
async fn settled(
    hub: &Arc<dyn DeviceHub>,
    partition: PartitionId,
    command: SettleCommand,
    settle: Settle,
    sent: Option<SentId>,
) -> WorkDone {
    let sequence = command.sequence;
    let mut wait = Duration::from_millis(50);
    loop {
        let outcome = match hub.change(partition, Op::SettleCommand(command.clone())).await {
            // "accepted – also when the client rejected or released"
            Ok(_) => Outcome::Accepted,
            Err(AskError::Refused(error)) => match ErrorCode::from_number(error.code) {
                Some(ErrorCode::DeviceConnectionClosedRemotely) => return WorkDone::Over,
                Some(code) => Outcome::Rejected(errors::of_code(code, error.text)),
                None => Outcome::Rejected(Error::new(condition::INTERNAL_ERROR, error.text)),
            },
            Err(AskError::Hub(error)) => {
                tracing::debug!(%error, "asked again later");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
                continue;
            }
        };
        return WorkDone::Settled { sequence, settle, sent, outcome };
    }
}

/// Tells the leader whether method calls are listened for, until it is known there.
async fn listen(
    hub: &Arc<dyn DeviceHub>,
    partition: PartitionId,
    key: DeviceKey,
    epoch: u64,
    listens: bool,
) -> WorkDone {
    let filter = METHODS_FILTER.to_owned();
    let (add, remove) = match listens {
        true => (vec![SubscriptionRow { filter, qos: 0 }], Vec::new()),
        false => (Vec::new(), vec![filter]),
    };
    let op = Subscribe { key, epoch, add, remove };
    let mut wait = Duration::from_millis(50);
    loop {
        match hub.change(partition, Op::Subscribe(op.clone())).await {
            Ok(_) => return WorkDone::Listening,
            Err(AskError::Refused(_)) => return WorkDone::Over,
            Err(AskError::Hub(error)) => tracing::debug!(%error, "asked again later"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

/// A question that must be answered as long as the session lives; `None` when it is over.
async fn insist(hub: &Arc<dyn DeviceHub>, partition: PartitionId, request: Request) -> Option<DeviceAnswer> {
    let mut wait = Duration::from_millis(50);
    loop {
        match hub.ask(partition, request.clone()).await.map_err(AskError::Hub).and_then(answered) {
            Ok(answer) => return Some(answer),
            Err(AskError::Refused(_)) => return None,
            Err(AskError::Hub(error)) => tracing::debug!(%error, "asked again later"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

/// The twin as its device sees it.
fn twin_text(answer: &DeviceAnswer) -> Option<String> {
    let twin = &answer.views.first()?.twin;
    let section =
        |stored: &[u8]| Section::decode(stored).ok().map(|section| Value::Object(section.device_json()));
    let mut text = Map::new();
    text.insert("desired".to_owned(), section(&twin.desired)?);
    text.insert("reported".to_owned(), section(&twin.reported)?);
    Some(Value::Object(text).to_string())
}

fn twin_refusal(hub: &Arc<dyn DeviceHub>, request: TwinRequest, error: &AskError) -> WorkDone {
    match error {
        AskError::Refused(refused) => match ErrorCode::from_number(refused.code) {
            Some(ErrorCode::DeviceConnectionClosedRemotely) => WorkDone::Over,
            code => twin_error(hub, request, code.unwrap_or(ErrorCode::ArgumentInvalid), &refused.text),
        },
        AskError::Hub(error) => twin_error(hub, request, ErrorCode::ServerBusy, &error.to_string()),
    }
}

/// An error as the answer to a twin request.
pub(crate) fn twin_error(
    hub: &Arc<dyn DeviceHub>,
    request: TwinRequest,
    code: ErrorCode,
    text: &str,
) -> WorkDone {
    let mut tracking = [0; 16];
    hub.random(&mut tracking);
    let tracking: String = tracking.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = error_body(code.number(), &tracking, text, &format_time(hub.now_ms()));
    WorkDone::Twin { request, status: code.http_status(), version: None, body }
}

/// Has the leader check the proof and open the session. Gives it with the identity's generation.
pub(crate) async fn open(
    hub: &Arc<dyn DeviceHub>,
    partition: PartitionId,
    open: OpenSession,
    proof: Proof,
) -> Result<(SessionOpened, String), Error> {
    let unavailable = || Error::new(condition::INTERNAL_ERROR, "the session can't be opened now, try again");
    for _ in 0..ATTEMPTS {
        let request = Request::Connect(Connect { open: open.clone(), proof: proof.clone() });
        let answer = hub.ask(partition, request).await.map_err(AskError::Hub).and_then(answered);
        let error = match answer {
            Ok(answer) => {
                let generation = answer.verified.map(|verified| verified.generation).unwrap_or_default();
                let opened = answer.reply.and_then(|reply| reply.opened);
                return opened.map(|opened| (opened, generation)).ok_or_else(unavailable);
            }
            Err(AskError::Refused(error)) => error,
            Err(AskError::Hub(error)) => {
                tracing::debug!(device = open.key.text(), %error, "session can't be opened now");
                return Err(unavailable());
            }
        };
        match ErrorCode::from_number(error.code) {
            // The identity changed under the check: check again.
            Some(ErrorCode::ServerBusy) => {}
            Some(code) => return Err(errors::of_code(code, error.text)),
            None => return Err(unavailable()),
        }
    }
    Err(unavailable())
}

/// Ends a session behind its last record: the next one begins behind that (P12). The registration lives
/// until then, so that fences find what is on its way.
pub(crate) async fn close(
    hub: Arc<dyn DeviceHub>,
    partition: PartitionId,
    registered: Registered,
    sent: u64,
) {
    let link = registered.link.clone();
    stored(&link, sent).await;
    if link.is_over() || link.epoch() == 0 {
        return;
    }
    let close = CloseSession { key: link.key.clone(), epoch: link.epoch(), graceful: true };
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

/// Waits until a link's records up to `sent` are stored, or its session is over.
async fn stored(link: &Arc<Link>, sent: u64) {
    drop(link.take_methods());
    poll_fn(|cx| {
        loop {
            let acked = link.acked();
            if acked >= sent || link.is_over() {
                return std::task::Poll::Ready(());
            }
            if link.poll_changed(cx, acked).is_pending() {
                return std::task::Poll::Pending;
            }
            link.take();
            drop(link.take_methods());
        }
    })
    .await;
}
