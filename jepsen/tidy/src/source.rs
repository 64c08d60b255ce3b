//! Rules on the text of one Rust file.
//!
//! Deterministic code is what every replica must compute alike, or what the simulator must replay
//! from a seed. There the clock, randomness, threads and maps with a random order are banned, except
//! on a line that says why behind `// tidy: `, and in tests and examples. The lists are here and nowhere else.

use crate::Problem;

/// A file of more lines has two reasons to change.
const LINES_MAX: usize = 900;

/// Folders and files of deterministic code (path prefixes).
const DETERMINISTIC: &[&str] = &[
    "protocol/",
    "storage/log/src/",
    "storage/state/src/",
    "raft/group/src/",
    "broker/streams/src/",
    "broker/cluster/src/",
    "broker/twins/src/",
    "broker/devices/src/",
    "broker/partition/src/machine.rs",
];

/// Where a thread is the point, and which.
const THREADS: &[(&str, &str)] = &[
    ("storage/log/src/seg_log.rs", "starts the log's writer, mark and keeper; tests pump it by hand"),
    ("storage/state/src/rocks/view.rs", "holds a RocksDB snapshot, which can't leave its thread"),
];

/// What deterministic code may not say, and what it should do.
const BANNED: &[(&str, &str)] = &[
    ("SystemTime::now", "time comes in as a value or through `fleetline_env::Clock`"),
    ("Instant::now", "time comes in as a value or through `fleetline_env::Clock`"),
    ("HashMap", "its order is random; use `BTreeMap`"),
    ("HashSet", "its order is random; use `BTreeSet`"),
    ("rand::rng(", "randomness comes in as a value or through `fleetline_env::Entropy`"),
    ("thread::spawn", "the simulator can't schedule a thread"),
    ("thread::Builder", "the simulator can't schedule a thread"),
];

/// What may stand nowhere, tests included. Spelt in two halves, so that this file may hold it.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "repair it, or say in a sentence what is missing"),
    (concat!("XX", "X"), "repair it, or say in a sentence what is missing"),
    (concat!("dbg", "!("), "remove it"),
    (concat!("todo", "!("), "write it"),
];

/// A test that doesn't run; only one that another test starts may be marked so.
const SKIPPED: &str = concat!("#[ign", "ore");
const SKIPPED_ALLOWED: &str = concat!("#[ign", "ore = \"started by ");

/// All problems of the Rust file at `path`.
pub fn check(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(Problem::new(
            path,
            1,
            "open with a `//!` header: what is this, who calls it, what holds",
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(Problem::new(path, 0, format!("{lines} lines, more than {LINES_MAX}: split it")));
    }
    for (number, line) in (1..).zip(text.lines()) {
        leftovers(path, number, line, &mut problems);
    }
    let runs_alone = path.contains("/tests/") || path.contains("/examples/");
    if DETERMINISTIC.iter().any(|place| path.starts_with(place)) && !runs_alone {
        deterministic(path, text, &mut problems);
    }
    problems
}

fn leftovers(path: &str, number: usize, line: &str, problems: &mut Vec<Problem>) {
    for (word, advice) in LEFTOVERS {
        if says(line, word) {
            problems.push(Problem::new(path, number, format!("`{word}` was left over: {advice}")));
        }
    }
    if line.contains(SKIPPED) && !line.contains(SKIPPED_ALLOWED) {
        problems.push(Problem::new(
            path,
            number,
            "a test that doesn't run shows nothing: make it run or remove it",
        ));
    }
}

fn deterministic(path: &str, text: &str, problems: &mut Vec<Problem>) {
    for (number, line) in code_lines(text) {
        if line.contains("// tidy: ") {
            continue;
        }
        let code = line.split("//").next().unwrap_or_default();
        for (word, advice) in BANNED {
            let exempt = word.starts_with("thread::") && THREADS.iter().any(|(file, _)| path == *file);
            if says(code, word) && !exempt {
                problems.push(Problem::new(
                    path,
                    number,
                    format!("`{word}` in deterministic code: {advice}"),
                ));
            }
        }
    }
}

/// The lines of the file that are not its tests, which stand last: up to the line that opens a module
/// behind `#[cfg(test)]` or a `#[cfg(all(test, …))]`.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| {
        let test = pair[0].trim_start().starts_with("#[cfg(") && says(pair[0], "test");
        test && pair[1].trim_start().starts_with("mod ") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
    (1..).zip(lines).take(end)
}

/// Whether `line` holds `word` as a word of its own.
fn says(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = line[at + word.len()..].chars().next();
        let ends = word.ends_with(|c: char| !is_name(c)) || !behind.is_some_and(is_name);
        ends && !before.is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the problems of a file with this body under a header.
    fn lines(path: &str, body: &str) -> Vec<usize> {
        check(path, &format!("//! Header.\n{body}")).iter().map(|p| p.line).collect()
    }

    #[test]
    fn header_is_missed() {
        assert_eq!(check("a.rs", "//! Yes.\n"), []);
        assert_eq!(check("a.rs", "// No.\n").len(), 1);
        assert_eq!(check("a.rs", "use x;\n//! Late.\n").len(), 1);
        assert_eq!(check("a.rs", "").len(), 1);
    }

    #[test]
    fn size_is_bounded() {
        let with = |lines| check("a.rs", &format!("//! Header.\n{}", "\n".repeat(lines))).len();
        assert_eq!((with(LINES_MAX - 1), with(LINES_MAX)), (0, 1));
    }

    /// In comments and in tests too, but only as words of their own.
    #[test]
    fn leftovers_are_found_anywhere() {
        for (word, _) in LEFTOVERS {
            assert_eq!(lines("client/a.rs", &format!("\n    x(); // {word}\n")), [3], "{word}");
            assert_eq!(lines("client/a.rs", &format!("\nA{word}\n")), [0; 0], "{word}");
        }
        assert_eq!(lines("a.rs", &format!("{SKIPPED}]\n")), [2]);
        assert_eq!(lines("a.rs", &format!("{SKIPPED} = \"slow\"]\n")), [2]);
        assert_eq!(lines("a.rs", &format!("{SKIPPED_ALLOWED}another\"]\n")), [0; 0]);
    }

    /// Each banned word is found in each deterministic place, and allowed elsewhere, in comments, in
    /// tests, and with a reason.
    #[test]
    fn deterministic_code_is_watched() {
        for place in DETERMINISTIC {
            let path = if place.ends_with(".rs") { (*place).to_owned() } else { format!("{place}a.rs") };
            for (word, _) in BANNED {
                let line = format!("let x = std::{word};\n");
                assert_eq!(lines(&path, &line), [2], "{path} {line}");
                assert_eq!(lines("client/a.rs", &line), [0; 0], "{line}");
                assert_eq!(lines(&path, &format!("// {line}")), [0; 0], "{line}");
                assert_eq!(lines(&path, &format!("{} // tidy: why\n", line.trim_end())), [0; 0], "{line}");
                assert_eq!(
                    lines(&path, &format!("#[cfg(test)]\nmod tests {{\n{line}}}\n")),
                    [0; 0],
                    "{line}"
                );
                assert_eq!(lines(&path, &format!("#[cfg(test)]\nuse x;\n{line}")), [4], "{line}");
            }
        }
        assert_eq!(lines("protocol/batch/tests/a.rs", "std::thread::spawn(x)\n"), [0; 0]);
        assert_eq!(lines("protocol/batch/examples/a.rs", "std::thread::spawn(x)\n"), [0; 0]);
        assert_eq!(lines("protocol/batch/src/a.rs", "MyHashMapper\n"), [0; 0]);
    }

    /// A thread where it is the point is allowed; a clock there is not.
    #[test]
    fn named_threads_are_allowed() {
        for (file, _) in THREADS {
            assert_eq!(lines(file, "std::thread::Builder::new()\n"), [0; 0]);
            assert_eq!(lines(file, "std::time::Instant::now()\n"), [2]);
        }
    }
}
