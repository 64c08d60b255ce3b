//! What a component can reach while it runs: its log, its state, the app's settings, and nothing else.
//!
//! One [`Call`] is the data of one store, thus of one instance and one invocation; it implements the
//! imports of `wit/fleetline.wit` and what the engine asks about memory. `run.rs` makes it and takes
//! it apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    /// `None` while a component is made ready.
    pub(crate) invocation: Option<String>,
    pub(crate) category: String,
    /// Lines so far, those that were dropped among them.
    pub(crate) lines: usize,
    /// What was written to an output without the end of its line, at most a line's bytes.
    unfinished: Vec<(LogLevel, Vec<u8>)>,
}

impl Log {
    pub(crate) fn new(sink: Arc<dyn LogSink>, invocation: Option<&str>, function: &str) -> Self {
        let category = format!("Function.{function}.User");
        Self { sink, invocation: invocation.map(str::to_owned), category, lines: 0, unfinished: Vec::new() }
    }

    fn write(&mut self, level: LogLevel, message: String) {
        self.lines += 1;
        if self.lines <= LOG_LINES_MAX {
            self.sink.log(self.line(level, cut(message, LOG_LINE_BYTES_MAX), false));
        }
    }

    /// Takes bytes of an output whose lines have this level.
    pub(crate) fn write_bytes(&mut self, level: LogLevel, bytes: &[u8]) {
        let mut line = self.take_unfinished(level);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // What is longer than a line may be is cut; no more of it has to be kept.
            let room = (LOG_LINE_BYTES_MAX + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.write_line(level, &std::mem::take(&mut line));
            }
        }
        self.unfinished.push((level, line));
    }

    fn take_unfinished(&mut self, level: LogLevel) -> Vec<u8> {
        let place = self.unfinished.iter().position(|(found, _)| *found == level);
        place.map_or_else(Vec::new, |place| self.unfinished.swap_remove(place).1)
    }

    fn write_line(&mut self, level: LogLevel, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            self.write(level, text.to_owned());
        }
    }

    /// Writes what has no end of its line, and says how many lines were dropped, if any were.
    pub(crate) fn finish(&mut self) {
        for (level, line) in std::mem::take(&mut self.unfinished) {
            self.write_line(level, &line);
        }
        let dropped = self.lines.saturating_sub(LOG_LINES_MAX);
        if dropped > 0 {
            let message = format!("{dropped} more lines of this invocation were dropped");
            self.sink.log(self.line(LogLevel::Warning, message, true));
        }
    }

    fn line(&self, level: LogLevel, message: String, is_system: bool) -> LogLine {
        let (invocation, category) = (self.invocation.clone(), self.category.clone());
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

/// What an invocation takes along to its thread.
pub(crate) struct Frame {
    pub(crate) settings: Arc<BTreeMap<String, String>>,
    pub(crate) limit: Duration,
    pub(crate) given_up: Arc<AtomicBool>,
    pub(crate) ends: Arc<AtomicBool>,
}

impl Call {
    /// A call that begins now.
    pub(crate) fn new(log: Log, state: State, frame: Frame, memory_bytes_max: usize) -> Self {
        let Frame { settings, limit, given_up, ends } = frame;
        let deadline = Instant::now() + limit;
        let memory = Memory { bytes: 0, bytes_max: memory_bytes_max };
        Self { log, state, settings, deadline, given_up, ends, stopped: None, memory }
    }

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
