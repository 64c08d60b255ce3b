//! Feedback on commands over HTTP: take some records under a lock, then complete or abandon them.
//!
//! Records are where their devices are; one answer is of one partition, and its lock names it. Which
//! partition comes first is drawn, so that none waits for ever.

use fleetline_devices::{FeedbackRow, LockFeedback, Op, Outcome, Settle, SettleFeedback};
use fleetline_iothub::bag::format_time;
use fleetline_iothub::errors::ErrorCode;
use fleetline_types::PartitionId;
use http::StatusCode;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};

/// How long a lock holds.
const LOCK_MS: u64 = 60_000;

/// The media type that SDKs look for.
const MEDIA_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";

/// GET `/messages/serviceBound/feedback`.
pub(super) async fn receive(call: &Call) -> Answer {
    let partitions = call.hub().partitions();
    let mut random = [0; 4];
    call.hub().random(&mut random);
    let first = u32::from_le_bytes(random) % partitions.max(1);
    for step in 0..partitions {
        let partition = (first + step) % partitions;
        let token = format!("{}-{partition}", call.guid());
        let op = Op::LockFeedback(LockFeedback { token: token.clone(), lock_ms: LOCK_MS });
        let reply = call.hub().change(PartitionId(partition), op).await?;
        if !reply.feedback.is_empty() {
            let records: Vec<Value> = reply.feedback.iter().map(record).collect();
            let body = Value::Array(records).to_string();
            let mut response = reply::text(StatusCode::OK, MEDIA_TYPE, body);
            reply::put_etag(&mut response, &token);
            return Ok(response);
        }
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn record(row: &FeedbackRow) -> Value {
    let (code, description) = match Outcome::try_from(row.outcome) {
        Ok(Outcome::Success) | Err(_) => ("Success", "Success"),
        Ok(Outcome::Expired) => ("Expired", "Message expired"),
        Ok(Outcome::DeliveryCountExceeded) => ("DeliveryCountExceeded", "Delivery count exceeded"),
        Ok(Outcome::Rejected) => ("Rejected", "Message rejected"),
        Ok(Outcome::Purged) => ("Purged", "Message purged"),
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

/// DELETE completes, POST `…/abandon` gives back.
pub(super) async fn settle(call: &Call, token: &str, settle: Settle) -> Answer {
    let token = token.trim_matches('"');
    let partition = token.rsplit_once('-').and_then(|(_, partition)| partition.parse::<u32>().ok());
    let partition = partition.filter(|partition| *partition < call.hub().partitions()).ok_or_else(|| {
        HttpError::new(ErrorCode::DeviceMessageLockLost, "the lock token is not one of feedback")
    })?;
    let op = Op::SettleFeedback(SettleFeedback { token: token.to_owned(), settle: settle as i32 });
    call.hub().change(PartitionId(partition), op).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
