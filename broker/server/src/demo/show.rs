//! What the demo shows: steps while it prepares, then a line that is always of now.
//!
//! On a terminal steps and the line are drawn by `indicatif` and redrawn in place; elsewhere each is printed
//! once, and the line once a second.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line is drawn on a terminal.
const DRAW: Duration = Duration::from_millis(250);
/// How often it is printed elsewhere.
const PRINT: Duration = Duration::from_secs(1);

/// Prints a line. Whoever read it may have gone: that is no reason to end.
pub(super) fn say(text: &str) {
    drop(std::io::stdout().write_all(format!("{text}\n").as_bytes()));
}

/// A step of the preparation.
pub(super) struct Step {
    bar: ProgressBar,
    live: bool,
    title: &'static str,
}

impl Step {
    /// A step begins.
    pub(super) fn begin(title: &'static str) -> Step {
        let live = std::io::stderr().is_terminal();
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:14} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title);
        bar.enable_steady_tick(Duration::from_millis(100));
        if !live {
            say(&format!("  {title:<14} …"));
        }
        Step { bar, live, title }
    }

    /// What is done now.
    pub(super) fn tell(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// So many of so many are done.
    pub(super) fn count(&self, done: usize, all: usize) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:14} {wide_bar} {pos}/{len}") {
            self.bar.set_style(style);
        }
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
    }

    /// It is done, and this came of it.
    pub(super) fn done(self, text: &str) {
        self.bar.finish_and_clear();
        say(&format!("{} {:<14} {text}", if self.live { "✓" } else { " " }, self.title));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // A step that failed leaves the terminal as it was; the error says the rest.
        self.bar.finish_and_clear();
    }
}

/// The line.
pub(super) struct Line {
    bar: Option<ProgressBar>,
}

impl Line {
    pub(super) fn new() -> Line {
        if !std::io::stderr().is_terminal() {
            return Line { bar: None };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Line { bar: Some(bar) }
    }

    /// How often it should be written.
    pub(super) fn every(&self) -> Duration {
        if self.bar.is_some() { DRAW } else { PRINT }
    }

    pub(super) fn write(&self, text: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None => say(&text),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A number of things: `1 page`, `2 pages`.
pub(super) fn many(count: u64, one: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {one}{s}")
}

/// The time of day of a moment, UTC.
pub(super) fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!([many(0, "page"), many(1, "page"), many(2, "page")], ["0 pages", "1 page", "2 pages"]);
        assert_eq!(time_of_day(1_533_099_600_000), "05:00:00");
        assert_eq!(time_of_day(1_533_160_790_999), "21:59:50");
    }
}
