//! Lines of functions and workers: a ring per function, and their order over all functions of an app.
//!
//! A node keeps the last lines only; nothing is written to disk. Whoever follows asks for what is behind the
//! number that it has seen; lines that were pushed out meanwhile are counted, not shown.

use std::collections::{BTreeMap, VecDeque};

use fleetline_worker::{LogLevel, LogLine};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A line as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptLine {
    /// Grows with every line of the app on its node.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// The node.
    pub node: u64,
    /// The function; empty for lines of the worker itself.
    pub function: String,
    /// `trace` … `critical`.
    pub level: String,
    /// The invocation, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub invocation: Option<String>,
    /// The text.
    pub message: String,
}

#[derive(Debug, Default)]
struct Rings {
    last: u64,
    rings: BTreeMap<String, VecDeque<KeptLine>>,
}

/// The lines of one app on this node.
#[derive(Debug)]
pub(crate) struct AppLogs {
    node: u64,
    lines_max: usize,
    bytes_max: usize,
    rings: Mutex<Rings>,
}

impl AppLogs {
    pub(crate) fn new(node: u64, lines_max: usize, bytes_max: usize) -> AppLogs {
        AppLogs { node, lines_max: lines_max.max(1), bytes_max, rings: Mutex::default() }
    }

    /// Keeps a line. `function` must be one of the app, or empty: each has a ring.
    pub(crate) fn push(&self, at_ms: u64, function: &str, line: LogLine) {
        let mut message = line.message;
        if message.len() > self.bytes_max {
            let end = (0..=self.bytes_max).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push_str(" …");
        }
        let mut rings = self.rings.lock();
        rings.last += 1;
        let kept = KeptLine {
            number: rings.last,
            at_ms,
            node: self.node,
            function: function.to_owned(),
            level: level_name(line.level).to_owned(),
            invocation: line.invocation,
            message,
        };
        let ring = rings.rings.entry(function.to_owned()).or_default();
        if ring.len() >= self.lines_max {
            ring.pop_front();
        }
        ring.push_back(kept);
    }

    /// Lines behind a number, in order, at most the last `most`; of one function or of all.
    pub(crate) fn behind(&self, after: u64, function: Option<&str>, most: usize) -> Vec<KeptLine> {
        let rings = self.rings.lock();
        // Seen before this node was started again.
        let after = if after > rings.last { 0 } else { after };
        let wanted = |(name, _): &(&String, &VecDeque<KeptLine>)| {
            function.is_none_or(|function| name.eq_ignore_ascii_case(function))
        };
        let mut lines: Vec<KeptLine> = rings
            .rings
            .iter()
            .filter(wanted)
            .flat_map(|(_, ring)| ring.iter().rev().take_while(|line| line.number > after).take(most))
            .cloned()
            .collect();
        drop(rings);
        lines.sort_by_key(|line| line.number);
        lines.drain(..lines.len().saturating_sub(most));
        lines
    }
}

pub(crate) fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Information => "information",
        LogLevel::Warning => "warning",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_bounded_and_ordered() {
        let logs = AppLogs::new(1, 3, 8);
        let say = |function: &str, message: String| {
            let (invocation, category, level) = (None, String::new(), LogLevel::Error);
            logs.push(0, function, LogLine { invocation, level, category, message, is_system: false });
        };
        for number in 0..5 {
            say("f", format!("f{number}"));
            say("g", format!("g{number}"));
        }
        let texts = |lines: Vec<KeptLine>| lines.into_iter().map(|line| line.message).collect::<Vec<_>>();
        assert_eq!(texts(logs.behind(0, None, 100)), ["f2", "g2", "f3", "g3", "f4", "g4"]);
        assert_eq!(texts(logs.behind(0, Some("F"), 100)), ["f2", "f3", "f4"]);
        assert_eq!(texts(logs.behind(8, None, 100)), ["f4", "g4"]);
        assert_eq!(texts(logs.behind(0, None, 2)), ["f4", "g4"]);
        say("f", "ääääääääää".into());
        assert_eq!(texts(logs.behind(10, None, 9)), ["ääää …"]);
    }
}
