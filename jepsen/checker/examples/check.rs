//! Checks a history file: `cargo run -p fleetline-checker --example check -- <file>`.
//!
//! Prints a verdict per checker. Exit code 0: all valid; 1: a promise is broken, or the history says
//! too little; 2: the file is not a history.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use fleetline_checker::{History, HistoryError, check_all};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check <history in JSON lines>");
        return ExitCode::from(2);
    };
    let read =
        || -> Result<History, HistoryError> { History::read_json_lines(BufReader::new(File::open(&path)?)) };
    let history = match read() {
        Ok(history) => history,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let report = check_all(&history);
    println!("{} operations", history.len());
    print!("{report}");
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
