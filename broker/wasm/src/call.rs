//! What a component can reach while it runs: its log, its state, the app's settings, and nothing else.
//!
//! One [`Call`] is the data of one store, thus of one instance and one invocation; it implements the
//! imports of `wit/fleetline.wit` and what the engine asks about memory. `run.rs` makes it and takes
//! it apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fleetline_worker::{LogLevel, LogLine};
use fleetline_workers::LogSink;
use wasmtime::{ResourceLimiter, bail};

use crate::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX, MEMORIES_MAX, MODULES_MAX, TABLES_MAX, cut};
use crate::state::{State, StateError};
use crate::wit::{logging, settings, state, types};

/// Why a component was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Its time was over.
    TimedOut,
    /// Nobody waits for it any more, or its worker ends.
    Cancelled,
    /// It wanted more memory than it may have.
    OutOfMemory,
}

/// Where the lines of an invocation go.
pub(crate) struct Log {
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) invocation: String,
    pub(crate) category: String,
    /// Lines so far, those that were dropped among them.
    pub(crate) lines: usize,
}

impl Log {
    pub(crate) fn new(sink: Arc<dyn LogSink>, invocation: &str, function: &str) -> Self {
        let category = format!("Function.{function}.User");
        Self { sink, invocation: invocation.to_owned(), category, lines: 0 }
    }

    fn write(&mut self, level: LogLevel, message: String) {
        self.lines += 1;
        if self.lines <= LOG_LINES_MAX {
            self.sink.log(self.line(level, cut(message, LOG_LINE_BYTES_MAX), false));
        }
    }

    /// Says how many lines were dropped, if any were.
    pub(crate) fn finish(&self) {
        let dropped = self.lines.saturating_sub(LOG_LINES_MAX);
        if dropped > 0 {
            let message = format!("{dropped} more lines of this invocation were dropped");
            self.sink.log(self.line(LogLevel::Warning, message, true));
        }
    }

    fn line(&self, level: LogLevel, message: String, is_system: bool) -> LogLine {
        let (invocation, category) = (Some(self.invocation.clone()), self.category.clone());
        LogLine { invocation, level, category, message, is_system }
    }
}

/// One invocation, seen from inside its component.
pub(crate) struct Call {
    pub(crate) log: Log,
    pub(crate) state: State,
    pub(crate) settings: Arc<BTreeMap<String, String>>,
    pub(crate) deadline: Instant,
    /// Set by whoever has given the invocation up.
    pub(crate) given_up: Arc<AtomicBool>,
    /// Set when the app's worker ends.
    pub(crate) ends: Arc<AtomicBool>,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) memory: Memory,
}

impl Call {
    /// Whether the component has to stop now.
    pub(crate) fn must_stop(&mut self) -> bool {
        if self.given_up.load(Ordering::Relaxed) || self.ends.load(Ordering::Relaxed) {
            self.stopped = Some(Stopped::Cancelled);
        } else if Instant::now() >= self.deadline {
            self.stopped = Some(Stopped::TimedOut);
        }
        self.stopped.is_some()
    }
}

/// Bytes of memory that an instance has, over all of its memories.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
}

impl ResourceLimiter for Call {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let bytes = self.memory.bytes.saturating_add(more);
        if bytes > self.memory.bytes_max {
            // An error ends the instance. A plain refusal would be up to the component's allocator,
            // which ends it too, but says `unreachable` only.
            self.stopped = Some(Stopped::OutOfMemory);
            bail!("the component wanted {bytes} bytes of memory, more than {}", self.memory.bytes_max);
        }
        self.memory.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(usize::MAX).min(crate::limits::TABLE_ELEMENTS_MAX))
    }

    fn instances(&self) -> usize {
        MODULES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }
}

/// Types only; nothing to call.
impl types::Host for Call {}

impl logging::Host for Call {
    fn log(&mut self, level: logging::Level, message: String) {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Information => LogLevel::Information,
            logging::Level::Warning => LogLevel::Warning,
            logging::Level::Error => LogLevel::Error,
            logging::Level::Critical => LogLevel::Critical,
        };
        self.log.write(level, message);
    }
}

impl state::Host for Call {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.state.get(&key).map(|value| value.to_vec())
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), state::Refusal> {
        self.state.set(key, Bytes::from(value)).map_err(|error| match error {
            StateError::TooManyKeys { .. } => state::Refusal::TooManyKeys,
            StateError::BadKey { .. } | StateError::Form(_) => state::Refusal::BadKey,
            StateError::ValueTooLarge { .. } => state::Refusal::ValueTooLarge,
        })
    }

    fn delete(&mut self, key: String) {
        self.state.delete(&key);
    }

    fn keys(&mut self) -> Vec<String> {
        self.state.keys().map(str::to_owned).collect()
    }
}

impl settings::Host for Call {
    fn get(&mut self, name: String) -> Option<String> {
        self.settings.get(&name).cloned()
    }
}
