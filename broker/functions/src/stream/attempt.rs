//! One invocation until it succeeds or is given up: retries by the function's policy, crashes apart from
//! them.
//!
//! | outcome | then |
//! |---|---|
//! | success, outputs that can be read | its effects |
//! | failure, time-out, outputs that can't be read | again as the policy says, then poison |
//! | the worker ended | again; after the third time, poison |
//! | it did not run (no worker, too busy) | again, for as long as it takes |
//! | the worker refuses it for good | poison |

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetline_worker::{FunctionError, Invocation, InvocationResult, LogLevel, Outcome, RetryContext, Value};
use fleetline_workers::WorkerError;

use super::{Stop, StreamFunction};
use crate::effects::{Produced, STATE, produced};
use crate::expression::Scope;
use crate::inputs::{self, InputError};
use crate::placing::{Cause, Placed};
use crate::records::TriggerData;
use crate::retry;

/// What is to be tried.
pub(crate) struct Job {
    /// The same whenever the same records come again.
    pub(crate) id: String,
    pub(crate) partition: fleetline_types::PartitionId,
    pub(crate) data: TriggerData,
    /// The device that all its records are of.
    pub(crate) device: Option<String>,
    /// The function's state, for workers that keep some.
    pub(crate) state: Option<Value>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Attempted {
    Done {
        placed: Placed,
        state: BTreeMap<String, Option<Bytes>>,
    },
    /// It is given up, for this reason.
    Poison(String),
    Stopped,
}

/// Why one try gave nothing.
enum Failed {
    /// The function's own fault: counts for its policy.
    Function(FunctionError),
    /// The worker ended.
    Crash(String),
    /// It did not run.
    NotRun(String),
    /// It never will.
    Never(String),
}

/// See the module's header.
pub(crate) async fn attempt(function: &StreamFunction, job: Job, stop: &mut Stop) -> Attempted {
    let policy = function.spec.metadata.retry;
    let mut backoff = function.core.backoff();
    let (mut count, mut crashes) = (0u32, 0u32);
    let mut last: Option<FunctionError> = None;
    loop {
        if stop.is_set() {
            return Attempted::Stopped;
        }
        let context =
            policy.map(|policy| RetryContext { count, max: retry::max_on_wire(policy), error: last.clone() });
        let wait = match once(function, &job, context).await {
            Ok((placed, state)) => return Attempted::Done { placed, state },
            Err(Failed::Function(error)) => {
                function.stats.failed(function.core.now_ms(), &error.message);
                function.core.say(
                    &function.app.name,
                    &function.spec.name,
                    LogLevel::Error,
                    format!("invocation {} failed: {}", job.id, error.message),
                );
                count += 1;
                let jitter = (function.core.random_number() % 1000) as f64 / 1000.0;
                match retry::wait(policy, count, jitter) {
                    Some(wait) => {
                        last = Some(error);
                        wait
                    }
                    None => return Attempted::Poison(error.message),
                }
            }
            Err(Failed::Crash(reason)) => {
                function.stats.note_error(function.core.now_ms(), &reason);
                crashes += 1;
                if crashes >= function.core.options.crashes_max {
                    function.stats.failed(function.core.now_ms(), &reason);
                    return Attempted::Poison(format!("the worker ended {crashes} times: {reason}"));
                }
                backoff.next()
            }
            Err(Failed::NotRun(reason)) => {
                function.stats.note_error(function.core.now_ms(), &reason);
                backoff.next()
            }
            Err(Failed::Never(reason)) => {
                function.stats.failed(function.core.now_ms(), &reason);
                return Attempted::Poison(reason);
            }
        };
        if !stop.sleep(wait).await {
            return Attempted::Stopped;
        }
    }
}

type Wanted = (Placed, BTreeMap<String, Option<Bytes>>);

async fn once(function: &StreamFunction, job: &Job, retry: Option<RetryContext>) -> Result<Wanted, Failed> {
    let (core, spec) = (&function.core, &function.spec);
    let scope = Scope {
        metadata: job.data.fields.clone(),
        body: job.data.body.clone(),
        now_ms: core.now_ms(),
        // GUIDs of expressions stay the same when the records come again.
        seed: crate::ids::number_of(job.id.as_bytes()),
        function: spec.name.clone(),
    };
    let mut inputs = vec![(spec.parameter.clone(), job.data.value.clone())];
    match inputs::read(core, spec, &scope).await {
        Ok(more) => inputs.extend(more),
        Err(InputError::Passing { name, reason }) => {
            return Err(Failed::NotRun(format!("input {name}: {reason}")));
        }
        Err(error @ InputError::Wrong { .. }) => return Err(Failed::Function(error_of(error.to_string()))),
    }
    if let Some(state) = &job.state {
        inputs.push((STATE.to_owned(), state.clone()));
    }
    let invocation = Invocation {
        id: job.id.clone(),
        function: String::new(),
        inputs,
        metadata: job.data.metadata.clone(),
        trace_parent: None,
        retry,
    };
    let result = function.app.invoke(spec, invocation).await.map_err(failed)?;
    let all = succeeded(function, &scope, result)?;
    let cause = Cause {
        partitions: core.devices.partitions(),
        own: Some(job.partition),
        app: &function.app.name,
        function: &spec.name,
        invocation: &job.id,
        device: job.device.as_deref(),
        now_ms: core.now_ms(),
    };
    let placed = cause.place(all.effects).map_err(|reason| Failed::Function(error_of(reason)))?;
    Ok((placed, all.state))
}

fn succeeded(function: &StreamFunction, scope: &Scope, result: InvocationResult) -> Result<Produced, Failed> {
    match result.outcome {
        Outcome::Success => {
            produced(&function.spec, scope, result).map_err(|reason| Failed::Function(error_of(reason)))
        }
        Outcome::Failure(error) => Err(Failed::Function(error)),
        Outcome::Cancelled => Err(Failed::NotRun("the worker cancelled it".to_owned())),
    }
}

fn failed(error: WorkerError) -> Failed {
    match error {
        WorkerError::Exited { .. } => Failed::Crash(error.to_string()),
        WorkerError::TimedOut { .. } => Failed::Function(error_of(error.to_string())),
        WorkerError::NotSent { .. } | WorkerError::NotStarted { .. } => Failed::NotRun(error.to_string()),
        WorkerError::Refused(_) => Failed::Never(error.to_string()),
    }
}

fn error_of(message: String) -> FunctionError {
    FunctionError { message, ..FunctionError::default() }
}
