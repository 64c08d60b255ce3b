//! One invocation without a stream behind it: HTTP, timers, webhooks, realtime clients.
//!
//! There is no checkpoint to commit with, so all effects are outside ones: at least once when the caller
//! repeats. They are done before the caller hears of success.

use std::sync::Arc;
use std::time::Instant;

use fleetline_worker::{FunctionError, Invocation, LogLevel, Outcome, RetryContext, Value};
use fleetline_workers::WorkerError;
use serde_json::{Map, Value as Json};

use crate::app::App;
use crate::effects::{Produced, produced};
use crate::expression::Scope;
use crate::inputs;
use crate::outside::{Appender, Doer};
use crate::placing::Cause;
use crate::spec::FunctionSpec;

/// What a trigger gives.
pub(crate) struct Call {
    /// Stable where the caller repeats.
    pub(crate) id: String,
    pub(crate) value: Value,
    pub(crate) metadata: Vec<(String, Value)>,
    /// What binding expressions can name.
    pub(crate) fields: Map<String, Json>,
    pub(crate) body: Map<String, Json>,
    pub(crate) retry: Option<RetryContext>,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The function failed, or what it gave can't be done.
    #[error("{}", .0.message)]
    Failed(FunctionError),
    /// The worker ended; the function may have run.
    #[error("{0}")]
    Crashed(String),
    /// It took too long; it may have run.
    #[error("{0}")]
    TimedOut(String),
    /// It did not run; later it may.
    #[error("{0}")]
    NotRun(String),
}

/// Invokes a function once, and does what it wants done.
pub(crate) async fn call(app: &Arc<App>, spec: &FunctionSpec, call: Call) -> Result<Produced, CallError> {
    let outcome = invoke(app, spec, call).await;
    if let Err(error) = &outcome {
        let stats = app.core.stats(&app.name, &spec.name);
        match error {
            CallError::NotRun(reason) => stats.note_error(app.core.now_ms(), reason),
            error => stats.failed(app.core.now_ms(), &error.to_string()),
        }
        app.core.say(&app.name, &spec.name, LogLevel::Error, format!("an invocation failed: {error}"));
    }
    outcome
}

async fn invoke(app: &Arc<App>, spec: &FunctionSpec, call: Call) -> Result<Produced, CallError> {
    let core = &app.core;
    let wrong = |message: String| CallError::Failed(FunctionError { message, ..FunctionError::default() });
    let scope = Scope {
        metadata: call.fields,
        body: call.body,
        now_ms: core.now_ms(),
        seed: crate::ids::number_of(call.id.as_bytes()),
        function: spec.name.clone(),
    };
    let mut inputs = vec![(spec.parameter.clone(), call.value)];
    inputs.extend(inputs::read(core, spec, &scope).await.map_err(|error| match error {
        inputs::InputError::Wrong { .. } => wrong(error.to_string()),
        inputs::InputError::Passing { .. } => CallError::NotRun(error.to_string()),
    })?);
    let invocation = Invocation {
        id: call.id.clone(),
        function: String::new(),
        inputs,
        metadata: call.metadata,
        trace_parent: None,
        retry: call.retry,
    };
    let result = app.invoke(spec, invocation).await.map_err(|error| match error {
        WorkerError::Exited { .. } => CallError::Crashed(error.to_string()),
        WorkerError::TimedOut { .. } => CallError::TimedOut(error.to_string()),
        WorkerError::NotSent { .. } | WorkerError::NotStarted { .. } => CallError::NotRun(error.to_string()),
        WorkerError::Refused(_) => wrong(error.to_string()),
    })?;
    match result.outcome.clone() {
        Outcome::Success => {}
        Outcome::Failure(error) => return Err(CallError::Failed(error)),
        Outcome::Cancelled => return Err(CallError::NotRun("the worker cancelled it".to_owned())),
    }
    let mut all = produced(spec, &scope, result).map_err(wrong)?;
    let cause = Cause {
        partitions: core.devices.partitions(),
        own: None,
        app: &app.name,
        function: &spec.name,
        invocation: &call.id,
        device: None,
        now_ms: core.now_ms(),
    };
    let placed = cause.place(std::mem::take(&mut all.effects)).map_err(wrong)?;
    let deadline = Instant::now() + app.host.function_timeout;
    let appender = Appender::unnumbered();
    let doer = Doer {
        core,
        app: &app.name,
        function: &spec.name,
        stats: &core.stats(&app.name, &spec.name),
        appender: &appender,
        must_stop: &|| Instant::now() >= deadline,
    };
    doer.all(placed.outside).await.map_err(|error| CallError::TimedOut(error.to_string()))?;
    Ok(all)
}
