//! The way of log lines to the engine's sink: cut, counted, and never more than a rate.
//!
//! Called by the readers of a process's output and of its stream. Nothing here blocks: lines beyond the
//! rate are dropped, and the next line that passes is preceded by one that says how many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use fleetline_worker::{LogLevel, LogLine};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::worker::LogSink;

/// Seconds of the rate that may come at once.
const BURST_SECONDS: f64 = 5.0;
/// Lines of output that are kept to explain why a process ended.
const TAIL_LINES: usize = 30;
/// Bytes of each of them.
const TAIL_LINE_BYTES: usize = 1000;
/// Bytes read from a pipe at a time.
const READ_BYTES: usize = 16 << 10;
/// What the original's workers put before a line of their own (§5).
const SYSTEM_PREFIX: &str = "LanguageWorkerConsoleLog";

/// The lines of one app.
pub(crate) struct Lines {
    sink: Arc<dyn LogSink>,
    line_bytes: usize,
    rate: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    dropped: u64,
}

impl Lines {
    pub(crate) fn new(sink: Arc<dyn LogSink>, line_bytes: usize, lines_per_second: u32) -> Self {
        let rate = f64::from(lines_per_second);
        let bucket = Bucket { tokens: rate * BURST_SECONDS, filled: Instant::now(), dropped: 0 };
        Self { sink, line_bytes, rate, bucket: Mutex::new(bucket) }
    }

    pub(crate) fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// Takes a line of an app.
    pub(crate) fn take(&self, line: LogLine) {
        let dropped = match self.bucket.lock().admit(self.rate, Instant::now()) {
            Some(dropped) => dropped,
            None => return,
        };
        if dropped > 0 {
            self.say(LogLevel::Warning, format!("{dropped} log lines were dropped: too many at once"));
        }
        self.sink.log(line);
    }

    /// A line of the host's own. It isn't counted: the host writes few.
    pub(crate) fn say(&self, level: LogLevel, message: String) {
        self.sink.log(LogLine {
            invocation: None,
            level,
            category: "host".to_owned(),
            message,
            is_system: true,
        });
    }
}

impl Bucket {
    /// `Some(dropped so far)` when a line passes.
    fn admit(&mut self, rate: f64, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(rate * BURST_SECONDS);
        self.filled = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// The last lines that a process wrote, for the reason of its end.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<VecDeque<String>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() >= TAIL_LINES {
            lines.pop_front();
        }
        let mut end = line.len().min(TAIL_LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        lines.push_back(line[..end].to_owned());
    }

    /// The lines, after `reason`.
    pub(crate) fn explain(&self, reason: &str) -> String {
        let mut text = reason.to_owned();
        for line in self.0.lock().iter() {
            text.push('\n');
            text.push_str(line);
        }
        text
    }
}

/// Which pipe a line came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pipe {
    Out,
    Err,
}

/// Reads a process's output to its end. A line longer than the limit is cut, its rest skipped; memory
/// stays at one line and one read.
pub(crate) async fn read_output(
    mut source: impl AsyncRead + Unpin,
    pipe: Pipe,
    lines: Arc<Lines>,
    tail: Arc<Tail>,
) {
    let mut splitter = Splitter::new(lines.line_bytes());
    let mut buffer = vec![0; READ_BYTES];
    let mut emit = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        tail.push(&text);
        lines.take(output_line(&text, pipe));
    };
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        splitter.feed(&buffer[..count], &mut emit);
    }
    splitter.finish(&mut emit);
}

fn output_line(text: &str, pipe: Pipe) -> LogLine {
    let (message, is_system) = match text.strip_prefix(SYSTEM_PREFIX) {
        Some(rest) => (rest.trim_start(), true),
        None => (text, false),
    };
    let (level, category) = match pipe {
        Pipe::Out => (LogLevel::Information, "stdout"),
        Pipe::Err if is_system => (LogLevel::Error, "stderr"),
        Pipe::Err => (LogLevel::Warning, "stderr"),
    };
    let category = category.to_owned();
    LogLine { invocation: None, level, category, message: message.to_owned(), is_system }
}

/// Cuts bytes into lines of at most `limit` bytes.
struct Splitter {
    limit: usize,
    line: Vec<u8>,
    /// The line has more than `limit` bytes; what follows up to its end is skipped.
    is_cut: bool,
}

impl Splitter {
    fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), is_cut: false }
    }

    fn feed(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.end_line(emit);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = self.limit - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_cut |= bytes.len() > room;
    }

    fn end_line(&mut self, emit: &mut impl FnMut(&[u8])) {
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.is_cut {
            self.line.extend_from_slice("…".as_bytes());
        }
        if !self.line.is_empty() {
            emit(&self.line);
        }
        self.line.clear();
        self.is_cut = false;
    }

    fn finish(&mut self, emit: &mut impl FnMut(&[u8])) {
        self.end_line(emit);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn split(limit: usize, parts: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::new(limit);
        let mut found = Vec::new();
        let mut emit = |line: &[u8]| found.push(String::from_utf8_lossy(line).into_owned());
        for part in parts {
            splitter.feed(part.as_bytes(), &mut emit);
        }
        splitter.finish(&mut emit);
        found
    }

    #[test]
    fn lines_are_found_across_reads() {
        assert_eq!(split(10, &["ab", "c\nde", "\r\n\nf"]), ["abc", "de", "f"]);
    }

    #[test]
    fn long_lines_are_cut_and_their_rest_is_skipped() {
        assert_eq!(split(4, &["abcdef", "ghi", "j\nxy\n"]), ["abcd…", "xy"]);
        assert_eq!(split(4, &["abcd\n"]), ["abcd"]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: 50.0, filled: start, dropped: 0 };
        let passed = (0..200).filter(|_| bucket.admit(10.0, start).is_some()).count();
        assert_eq!((passed, bucket.dropped), (50, 150));
        assert_eq!(bucket.admit(10.0, start + Duration::from_secs(1)), Some(150));
        assert_eq!(bucket.admit(10.0, start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn the_tail_is_bounded() {
        let tail = Tail::default();
        for number in 0..100 {
            tail.push(&format!("{number} {}", "ä".repeat(5000)));
        }
        let text = tail.explain("why");
        assert!(text.starts_with("why\n70 ä") && text.len() <= 4 + TAIL_LINES * (TAIL_LINE_BYTES + 1));
    }

    #[test]
    fn lines_of_the_workers_own_are_system_lines() {
        let line = output_line("LanguageWorkerConsoleLog hello", Pipe::Out);
        assert_eq!((line.message.as_str(), line.is_system), ("hello", true));
    }
}
