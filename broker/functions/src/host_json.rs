//! `host.json` (2.0): the part of it that means something here (functions.md §3).

use std::time::Duration;

use serde_json::Value as Json;

use crate::civil::{parse_iso, parse_span};
use crate::options::{EVENT_BATCH_MAX, FunctionsOptions};

/// Where a function begins that has no checkpoint yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initial {
    /// At the oldest record.
    Start,
    /// Behind the newest record.
    End,
    /// At the first record of this time or later, in milliseconds since 1970.
    Time(u64),
}

/// What the app's owner has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostJson {
    pub(crate) function_timeout: Duration,
    /// Without slashes at its ends; may be empty.
    pub(crate) route_prefix: String,
    pub(crate) event_batch: usize,
    /// A batch waits until it has so many records …
    pub(crate) event_batch_min: usize,
    /// … or so long.
    pub(crate) event_wait: Duration,
    pub(crate) initial: Initial,
    /// Records of lag that one instance is for.
    pub(crate) lag_target: u64,
    pub(crate) http_concurrency: Option<usize>,
    pub(crate) http_outstanding: Option<usize>,
}

impl HostJson {
    /// Reads it. What has another form than it should is left at its default: the public host ignores
    /// what it doesn't know, and an app written for it shall start.
    pub(crate) fn read(json: &Json, options: &FunctionsOptions) -> HostJson {
        let hubs = at(json, &["extensions", "eventHubs"]);
        let http = at(json, &["extensions", "http"]);
        let number = |from: Option<&Json>, path: &[&str]| {
            from.and_then(|from| at(from, path)).and_then(Json::as_u64).filter(|number| *number > 0)
        };
        // Older apps have the batch's size deeper.
        let batch = number(hubs, &["maxEventBatchSize"])
            .or_else(|| number(hubs, &["maxBatchSize"]))
            .or_else(|| number(hubs, &["eventProcessorOptions", "maxBatchSize"]))
            .map_or(options.event_batch, |size| usize::try_from(size).unwrap_or(usize::MAX));
        let event_batch = batch.clamp(1, EVENT_BATCH_MAX);
        let min = number(hubs, &["minEventBatchSize"]).map_or(1, |size| usize::try_from(size).unwrap_or(1));
        let wait = hubs.and_then(|hubs| at(hubs, &["maxWaitTime"])).and_then(span);
        let prefix = http.and_then(|http| at(http, &["routePrefix"])).and_then(Json::as_str).unwrap_or("api");
        let limit =
            |name: &str| number(http, &[name]).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        HostJson {
            function_timeout: timeout(json, options),
            route_prefix: prefix.trim_matches('/').to_owned(),
            event_batch,
            event_batch_min: min.min(event_batch),
            event_wait: wait.unwrap_or(Duration::from_secs(60)).min(Duration::from_secs(600)),
            initial: initial(hubs),
            lag_target: number(hubs, &["targetUnprocessedEventThreshold"]).unwrap_or(event_batch as u64),
            http_concurrency: limit("maxConcurrentRequests"),
            http_outstanding: limit("maxOutstandingRequests"),
        }
    }
}

fn timeout(json: &Json, options: &FunctionsOptions) -> Duration {
    match at(json, &["functionTimeout"]) {
        // `-1`: unbounded, as far as anything is here.
        Some(Json::String(text)) if text.trim().starts_with('-') => options.function_timeout_max,
        Some(value) => span(value)
            .filter(|span| !span.is_zero())
            .unwrap_or(options.function_timeout)
            .min(options.function_timeout_max),
        None => options.function_timeout,
    }
}

fn initial(hubs: Option<&Json>) -> Initial {
    let text = |name: &str| {
        let found = hubs.and_then(|hubs| at(hubs, &["initialOffsetOptions", name]))?;
        found.as_str()
    };
    match text("type").unwrap_or_default().to_ascii_lowercase().as_str() {
        "fromend" => Initial::End,
        "fromenqueuedtime" => {
            text("enqueuedTimeUtc").and_then(parse_iso).map_or(Initial::Start, Initial::Time)
        }
        _ => Initial::Start,
    }
}

fn span(value: &Json) -> Option<Duration> {
    value.as_str().and_then(parse_span)
}

/// What lies at a path; names in any case.
fn at<'a>(json: &'a Json, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, name| {
        let map = json.as_object()?;
        map.get(*name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Json) -> HostJson {
        HostJson::read(&json, &FunctionsOptions::new("/tmp"))
    }

    #[test]
    fn defaults() {
        let host = read(json!({ "version": "2.0" }));
        assert_eq!((host.event_batch, host.event_batch_min, host.lag_target), (100, 1, 100));
        assert_eq!((host.route_prefix.as_str(), host.initial), ("api", Initial::Start));
        assert_eq!(host.function_timeout, Duration::from_secs(300));
        assert_eq!(read(json!(null)), host);
        assert_eq!(read(json!({ "extensions": [], "functionTimeout": 5 })), host);
    }

    #[test]
    fn what_is_set() {
        let host = read(json!({
            "functionTimeout": "00:01:00",
            "extensions": {
                "http": { "routePrefix": "/v1/x/", "maxConcurrentRequests": 3, "maxOutstandingRequests": 9 },
                "eventHubs": {
                    "maxEventBatchSize": 7, "minEventBatchSize": 50, "maxWaitTime": "00:00:02",
                    "targetUnprocessedEventThreshold": 1000,
                    "initialOffsetOptions": { "type": "FromEnqueuedTime", "enqueuedTimeUtc": "2026-11-24T06:15:38Z" },
                },
            },
        }));
        assert_eq!((host.event_batch, host.event_batch_min, host.lag_target), (7, 7, 1000));
        assert_eq!((host.route_prefix.as_str(), host.event_wait), ("v1/x", Duration::from_secs(2)));
        assert_eq!(host.initial, Initial::Time(1_795_500_938_000));
        assert_eq!((host.http_concurrency, host.http_outstanding), (Some(3), Some(9)));
        assert_eq!(host.function_timeout, Duration::from_secs(60));
        let old =
            json!({ "extensions": { "eventHubs": { "eventProcessorOptions": { "maxBatchSize": 64 } } } });
        assert_eq!(read(old).event_batch, 64);
        assert_eq!(read(json!({ "functionTimeout": "-1" })).function_timeout, Duration::from_secs(1800));
        let end = json!({ "extensions": { "eventHubs": { "initialOffsetOptions": { "type": "fromEnd" } } } });
        assert_eq!(read(end).initial, Initial::End);
    }
}
