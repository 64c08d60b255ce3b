//! Timers: each tick runs once in the whole cluster.
//!
//! ```text
//! document   fn/t/<app>/<function>     {"tick","last","node","run","startedMs","done"}
//! ```
//!
//! The nodes take a tick by compare-and-set of that document, in the order of their rank: the first at
//! the tick's time, the next ones a little later, so that usually one only asks. Who took it runs the
//! function and writes that it is done. A tick whose node is gone, or has not finished it within its time,
//! is taken again by another one: a tick is run at least once, and once when nothing fails.
//!
//! Ticks that were missed while nobody was there become one late run (`IsPastDue`), if the timer is
//! monitored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{AskError, answered};
use fleetline_gateway::hub::HubError;
use fleetline_types::{NodeId, PartitionId, partition_of_key};
use fleetline_worker::{FunctionError, LogLevel, RetryContext, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::civil::iso;
use crate::direct::{Call, CallError, call};
use crate::error::FunctionsError;
use crate::ids::guid_of;
use crate::retry;
use crate::spec::{FunctionSpec, TimerTrigger};
use crate::store::ask_again;
use crate::stream::{Stop, rank};

/// How much later than the one before it a node takes a tick.
const STAGGER: Duration = Duration::from_secs(2);
/// How long a timer sleeps at the most before it looks again: clocks of machines move.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How often somebody else's running tick is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// What a running tick may take beyond its function's time-out until it is taken again.
const GRACE_MS: u64 = 30_000;
/// A run that starts so much later than its tick is late.
const LATE_MS: u64 = 2_000;

/// What the cluster keeps of a timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TimerRow {
    /// The tick that was taken last.
    tick: u64,
    /// When a run was started before that; 0 for never.
    last: u64,
    node: u64,
    /// The node's run.
    run: String,
    started_ms: u64,
    done: bool,
    /// The tick was late when it was taken.
    late: bool,
}

struct Timer {
    app: Arc<App>,
    spec: Arc<FunctionSpec>,
    trigger: TimerTrigger,
    document: String,
    partition: PartitionId,
}

/// The document of a timer.
pub(crate) fn document_of(app: &str, function: &str) -> String {
    format!("fn/t/{app}/{function}")
}

/// Fires a timer until it has to stop.
pub(crate) async fn run(app: Arc<App>, spec: Arc<FunctionSpec>, trigger: TimerTrigger, mut stop: Stop) {
    let document = document_of(&app.name, &spec.name);
    let partition = partition_of_key(document.as_bytes(), app.core.devices.partitions());
    let timer = Timer { app, spec, trigger, document, partition };
    let mut backoff = timer.app.core.backoff();
    while !stop.is_set() {
        let wait = match timer.look(&mut stop).await {
            Ok(wait) => {
                backoff.reset();
                wait
            }
            Err(error) => {
                tracing::debug!(timer = timer.document, %error, "timer");
                backoff.next()
            }
        };
        if !stop.sleep(wait.min(SLEEP_MAX)).await {
            return;
        }
    }
}

impl Timer {
    /// Takes and runs what is due; says when to look again.
    async fn look(&self, stop: &mut Stop) -> Result<Duration, FunctionsError> {
        let core = &self.app.core;
        let alive = core.cluster.alive();
        let place = rank(&self.document, core.cluster.node(), &alive) as u64;
        let Some((row, version)) = self.read().await? else {
            return self.begin(stop).await;
        };
        let now = core.now_ms();
        if !row.done {
            let is_mine = row.run == core.run;
            let is_gone =
                !alive.contains(&NodeId(row.node)) || (row.node == core.cluster.node().0 && !is_mine);
            let time = u64::try_from(self.app.host.function_timeout.as_millis()).unwrap_or(u64::MAX);
            let is_over = now >= row.started_ms.saturating_add(time).saturating_add(GRACE_MS);
            // One that this run of the node has left unfinished was dropped by a change of the app.
            if is_gone || is_over || is_mine {
                let again = TimerRow { late: true, ..self.taken(row.tick, row.last, now) };
                return self.fire(again, version, stop).await;
            }
            return Ok(WATCH);
        }
        let stagger = STAGGER.as_millis() as u64 * place;
        let due = self.trigger.schedule.latest(row.tick, now);
        let Some((tick, missed)) = due else {
            return Ok(match self.trigger.schedule.next(row.tick.max(now)) {
                Some(next) => Duration::from_millis((next + stagger).saturating_sub(now).max(1)),
                None => SLEEP_MAX,
            });
        };
        let ready = tick + stagger;
        if now < ready {
            return Ok(Duration::from_millis(ready - now));
        }
        let late = missed > 1 || now - tick >= LATE_MS + stagger;
        if late && !self.trigger.monitored {
            // What was missed stays missed.
            let skipped = TimerRow { done: true, ..self.taken(tick, row.last, row.started_ms) };
            self.write(&skipped, Condition::tag(version)).await?;
            return Ok(Duration::ZERO);
        }
        let last = row.started_ms;
        self.fire(TimerRow { late, ..self.taken(tick, last, now) }, version, stop).await
    }

    /// The first look of all: ticks count from now on.
    async fn begin(&self, stop: &mut Stop) -> Result<Duration, FunctionsError> {
        let now = self.app.core.now_ms();
        let row = TimerRow { done: !self.trigger.on_startup, ..self.taken(now, 0, 0) };
        let version = self.write(&row, Condition::absent()).await?;
        match (self.trigger.on_startup, version) {
            (true, Some(version)) => self.fire(TimerRow { started_ms: now, ..row }, version, stop).await,
            _ => Ok(Duration::ZERO),
        }
    }

    fn taken(&self, tick: u64, last: u64, now: u64) -> TimerRow {
        let core = &self.app.core;
        TimerRow {
            tick,
            last,
            node: core.cluster.node().0,
            run: core.run.clone(),
            started_ms: now,
            done: false,
            late: false,
        }
    }

    /// Takes a tick, and runs it when nobody else was faster.
    async fn fire(&self, row: TimerRow, version: u64, stop: &mut Stop) -> Result<Duration, FunctionsError> {
        let Some(version) = self.write(&row, Condition::tag(version)).await? else {
            return Ok(Duration::ZERO);
        };
        if !self.run(&row, stop).await {
            // Not finished: the next one runs it again.
            return Ok(Duration::ZERO);
        }
        self.write(&TimerRow { done: true, ..row }, Condition::tag(version)).await?;
        Ok(Duration::ZERO)
    }

    /// Runs the function for a tick, with its retries; `false` when it had to stop before the end.
    async fn run(&self, row: &TimerRow, stop: &mut Stop) -> bool {
        let core = &self.app.core;
        let policy = self.spec.metadata.retry;
        let (mut count, mut crashes) = (0, 0);
        let mut backoff = core.backoff();
        let mut last: Option<FunctionError> = None;
        loop {
            let retry = policy.map(|policy| RetryContext {
                count,
                max: retry::max_on_wire(policy),
                error: last.clone(),
            });
            let wait = match call(&self.app, &self.spec, self.call(row, retry)).await {
                Ok(_) => return true,
                Err(CallError::NotRun(_)) => backoff.next(),
                Err(CallError::Crashed(reason)) => {
                    crashes += 1;
                    if crashes >= core.options.crashes_max {
                        return self.give_up(&reason);
                    }
                    backoff.next()
                }
                Err(CallError::TimedOut(message)) => {
                    count += 1;
                    last = Some(FunctionError { message: message.clone(), ..FunctionError::default() });
                    let Some(wait) = retry::wait(policy, count, 0.0) else { return self.give_up(&message) };
                    wait
                }
                Err(CallError::Failed(error)) => {
                    count += 1;
                    let Some(wait) = retry::wait(policy, count, 0.0) else {
                        return self.give_up(&error.message);
                    };
                    last = Some(error);
                    wait
                }
            };
            if !stop.sleep(wait).await {
                return false;
            }
        }
    }

    /// There won't be another try: the tick is done with.
    fn give_up(&self, reason: &str) -> bool {
        let text = format!("the timer's run is given up: {reason}");
        self.app.core.say(&self.app.name, &self.spec.name, LogLevel::Error, text);
        true
    }

    fn call(&self, row: &TimerRow, retry: Option<RetryContext>) -> Call {
        let next = self.trigger.schedule.next(row.tick);
        let moment = |ms: u64| if ms == 0 { "0001-01-01T00:00:00Z".to_owned() } else { iso(ms) };
        let value = json!({
            "Schedule": { "AdjustForDST": true },
            "ScheduleStatus": {
                "Last": moment(row.last),
                "LastUpdated": moment(row.last),
                "Next": next.map(iso),
            },
            "IsPastDue": row.late,
        });
        Call {
            id: guid_of(&["timer", &self.app.name, &self.spec.name, &row.tick.to_string()]),
            value: Value::json(&value),
            metadata: Vec::new(),
            fields: serde_json::Map::new(),
            body: value.as_object().cloned().unwrap_or_default(),
            retry,
        }
    }

    async fn read(&self) -> Result<Option<(TimerRow, u64)>, FunctionsError> {
        let ask = AskDocuments { name: self.document.clone(), all: false, from: String::new(), limit: 1 };
        let devices = &self.app.core.devices;
        let answer = answered(devices.ask(self.partition, Request::Documents(ask)).await?)?;
        let Some(found) = answer.documents.into_iter().next() else { return Ok(None) };
        // What can't be read is begun anew.
        let row = serde_json::from_slice(&found.row.value)
            .unwrap_or(TimerRow { done: true, ..TimerRow::default() });
        Ok(Some((row, found.row.version)))
    }

    /// Writes the row; `None` when somebody else was faster. One whose outcome is unknown is looked up.
    async fn write(&self, row: &TimerRow, condition: Condition) -> Result<Option<u64>, FunctionsError> {
        let value: Bytes =
            serde_json::to_vec(row).map_err(|error| FunctionsError::Invalid(error.to_string()))?.into();
        let put = PutDocument { name: self.document.clone(), value, condition, delete: false };
        match self.app.core.devices.change(self.partition, Op::PutDocument(put)).await {
            Ok(reply) => Ok(Some(reply.number)),
            Err(AskError::Refused(_)) => Ok(None),
            Err(AskError::Hub(HubError::Unknown(_) | HubError::Internal(_))) => {
                let found = ask_again(|| async {
                    self.read().await.map_err(|error| HubError::Unavailable(error.to_string()))
                })
                .await?;
                Ok(found.filter(|(found, _)| found == row).map(|(_, version)| version))
            }
            Err(AskError::Hub(error)) => Err(error.into()),
        }
    }
}
