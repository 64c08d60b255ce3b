//! The recording's time: runs so many times as fast as ours, waits when the hub can't follow, and is kept, so
//! that the next run goes on where this one ended.
//!
//! ```text
//! demo.json in the data folder: {"place": milliseconds since 1970, "round": 3}
//! ```
//!
//! Invariant: within a round time never goes back. Not here: who waits for it (`replay`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recording::Recording;

/// How far messages may be behind before the recording waits for them: nothing piles up at a hub that is slow.
pub(super) const LAG_MAX: Duration = Duration::from_secs(2);
/// Between two rounds, so that the last aircraft are seen to land.
const PAUSE_MS: u64 = 60_000;
const FILE: &str = "demo.json";

/// A moment of the replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment {
    /// How often the recording has ended, in all runs.
    pub(super) round: u64,
    /// The recording's time, in milliseconds since 1970.
    pub(super) place: u64,
}

/// The recording's time.
#[derive(Debug)]
pub(super) struct Clock {
    now: Moment,
    begin: u64,
    end: u64,
    speed: f64,
    /// What is too little for a millisecond.
    rest: f64,
}

impl Clock {
    /// Goes on at a moment, or begins where that is none of this recording.
    pub(super) fn new(recording: &Recording, speed: f64, from: Option<Moment>) -> Clock {
        let (begin, end) = (recording.begin, recording.end);
        let known = from.filter(|moment| (begin..=end).contains(&moment.place));
        let now = known.unwrap_or(Moment { round: from.map_or(0, |moment| moment.round), place: begin });
        Clock { now, begin, end, speed, rest: 0.0 }
    }

    /// The time now.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// So much of our time has passed, messages are so far behind, and nobody flies any more (or somebody
    /// does). Answers whether the recording waited.
    pub(super) fn advance(&mut self, passed: Duration, lag: Duration, all_landed: bool) -> bool {
        if lag >= LAG_MAX {
            return true;
        }
        let exact = passed.as_secs_f64() * 1000.0 * self.speed + self.rest;
        self.rest = exact.fract();
        self.now.place = self.now.place.saturating_add(exact as u64);
        // A round ends with its last flight: an aircraft is in the air once.
        if all_landed && self.now.place > self.end.saturating_add(PAUSE_MS) {
            self.now = Moment { round: self.now.round + 1, place: self.begin };
        }
        false
    }
}

/// The file that keeps the moment.
pub(super) fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// The moment at which the last run ended, if there is one that can be read.
pub(super) fn load(data: &Path) -> Option<Moment> {
    serde_json::from_slice(&std::fs::read(file(data)).ok()?).ok()
}

/// Keeps a moment. Written whole or not at all; losing it costs no more than a look at the same flights again.
///
/// # Errors
/// When it can't be written.
pub(super) fn save(data: &Path, moment: Moment) -> std::io::Result<()> {
    let temporary = file(data).with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(&moment)?)?;
    std::fs::rename(&temporary, file(data))
}

#[cfg(test)]
mod tests {
    use super::super::recording::recorded;
    use super::*;

    fn clock(speed: f64, from: Option<Moment>) -> Clock {
        Clock::new(&recorded(&[("a", "x", &[100, 110]), ("b", "x", &[1000])]), speed, from)
    }

    /// Time is as many times as fast, also in steps that are no whole milliseconds.
    #[test]
    fn runs() {
        let mut clock = clock(60.0, None);
        assert_eq!(clock.now(), Moment { round: 0, place: 100_000 });
        assert!(!clock.advance(Duration::from_millis(50), Duration::ZERO, false));
        assert_eq!(clock.now().place, 103_000);
        let mut slow = self::clock(0.001, None);
        for _ in 0..2500 {
            slow.advance(Duration::from_millis(1), Duration::ZERO, false);
        }
        assert_eq!(slow.now().place, 100_002);
    }

    /// Behind the end a round more begins, after a pause, and once all have landed.
    #[test]
    fn rounds() {
        let mut clock = clock(1000.0, Some(Moment { round: 4, place: 999_000 }));
        clock.advance(Duration::from_millis(60), Duration::ZERO, true);
        assert_eq!(clock.now(), Moment { round: 4, place: 1_059_000 });
        clock.advance(Duration::from_millis(2), Duration::ZERO, false);
        assert_eq!(clock.now(), Moment { round: 4, place: 1_061_000 });
        clock.advance(Duration::ZERO, Duration::ZERO, true);
        assert_eq!(clock.now(), Moment { round: 5, place: 100_000 });
    }

    /// A hub that is too far behind is waited for.
    #[test]
    fn waits() {
        let mut clock = clock(60.0, None);
        let before = clock.now();
        assert!(clock.advance(Duration::from_secs(1), LAG_MAX, true));
        assert_eq!(clock.now(), before);
        assert!(!clock.advance(Duration::from_secs(1), LAG_MAX - Duration::from_millis(1), true));
        assert!(clock.now() > before);
    }

    /// The next run goes on; what is no moment of this recording begins anew.
    #[test]
    fn goes_on() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), None);
        let moment = Moment { round: 2, place: 500_000 };
        save(folder.path(), moment).unwrap();
        assert_eq!(clock(60.0, load(folder.path())).now(), moment);
        let elsewhere = Moment { round: 2, place: 7 };
        assert_eq!(clock(60.0, Some(elsewhere)).now(), Moment { round: 2, place: 100_000 });
        std::fs::write(file(folder.path()), "{").unwrap();
        assert_eq!(load(folder.path()), None);
    }
}
