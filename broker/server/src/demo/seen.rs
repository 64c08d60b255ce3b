//! What the demo sees of its hub from outside: alarms in the stream, and the node's metrics.
//!
//! Alarms are read as any consumer reads them: the alarm function changes an aircraft's twin, the hub writes
//! each change of a twin into the stream, and here the stream is followed from its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetline_client::model::ReadFrom;
use fleetline_client::{Client, ConsumeError, ConsumerOptions, PartitionId, ReceivedRecord};
use fleetline_iothub::bag::SystemProperty;
use fleetline_telemetry::Metrics;
use serde_json::Value;
use tokio::time::sleep;

/// What the hub says of the source of a twin's change.
const TWIN_CHANGE: &str = "twinChangeEvents";
/// Before a partition that couldn't be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Alarms that functions have raised.
    pub(super) alarms: AtomicU64,
}

impl Seen {
    /// Follows all partitions from their ends, until it is dropped.
    pub(super) async fn follow(&self, client: &Client) {
        let partitions = (0..client.metadata().partitions).map(PartitionId);
        let follow = partitions.map(|partition| async move {
            let mut consumer = client.consumer(partition, ReadFrom::Latest, ConsumerOptions::default());
            loop {
                match consumer.next_batch().await {
                    Ok(batch) => batch.records().flatten().for_each(|record| self.take(&record)),
                    Err(ConsumeError::OffsetGone { start, .. }) => consumer.seek(ReadFrom::Offset(start)),
                    Err(error) => {
                        tracing::debug!(%error, "the stream can't be read now");
                        sleep(AGAIN).await;
                    }
                }
            }
        });
        futures::future::join_all(follow).await;
    }

    fn take(&self, record: &ReceivedRecord) {
        if is_alarm(record) {
            self.alarms.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a record says that the alarm of an aircraft went on.
fn is_alarm(record: &ReceivedRecord) -> bool {
    let source = record.system.iter().find(|(number, _)| *number == SystemProperty::MessageSource.number());
    if source.is_none_or(|(_, value)| value != TWIN_CHANGE) {
        return false;
    }
    let body: Option<Value> = serde_json::from_slice(&record.body).ok();
    body.is_some_and(|body| body["tags"]["alarm"]["steep"] == true)
}

/// What the node counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Invocations of functions.
    pub(super) invocations: u64,
    /// Of these, failed.
    pub(super) failures: u64,
    /// Realtime clients: pages that watch.
    pub(super) pages: u64,
}

impl Counts {
    pub(super) fn read(metrics: &Metrics) -> Counts {
        Counts::of(&metrics.render())
    }

    fn of(text: &str) -> Counts {
        Counts {
            invocations: sum(text, "fleetline_function_invocations_total"),
            failures: sum(text, "fleetline_function_failures_total"),
            pages: sum(text, "fleetline_realtime_connections"),
        }
    }
}

/// The sum over a metric's labels, in Prometheus' text form.
fn sum(text: &str, name: &str) -> u64 {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse().ok()
    };
    text.lines().filter_map(value).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetline_client::{Offset, TimestampMs};

    use super::*;

    fn record(source: &str, body: &'static str) -> ReceivedRecord {
        ReceivedRecord {
            offset: Offset(0),
            device: Bytes::from_static(b"d"),
            time: TimestampMs(0),
            enqueued: TimestampMs(0),
            system: vec![(SystemProperty::MessageSource.number(), Bytes::copy_from_slice(source.as_bytes()))],
            properties: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    /// Only a twin's change that puts the alarm on counts; what a device says of itself doesn't.
    #[test]
    fn alarms() {
        let on = r#"{"version":2,"tags":{"alarm":{"steep":true,"verticalRate":2000}}}"#;
        assert!(is_alarm(&record(TWIN_CHANGE, on)));
        assert!(!is_alarm(&record("Telemetry", on)));
        assert!(!is_alarm(&record(TWIN_CHANGE, r#"{"tags":{"alarm":{"steep":false}}}"#)));
        assert!(!is_alarm(&record(TWIN_CHANGE, r#"{"tags":{"kind":"aircraft"}}"#)));
        assert!(!is_alarm(&record(TWIN_CHANGE, "x")));
    }

    /// Labels are added up; a metric with a longer name isn't.
    #[test]
    fn metrics() {
        let text = "# TYPE fleetline_function_invocations_total counter\n\
            fleetline_function_invocations_total{app=\"a\",function=\"f g\"} 7\n\
            fleetline_function_invocations_total{app=\"b\",function=\"f\"} 5\n\
            fleetline_function_invocations_total_more 100\n\
            fleetline_realtime_connections 2\n";
        assert_eq!(Counts::of(text), Counts { invocations: 12, failures: 0, pages: 2 });
    }
}
