//! The file form of a history: JSON lines, one operation a line.
//!
//! ```text
//! {"history":"fleetline","version":1}
//! {"process":7,"op":"send","partition":0,"key":17,"value":90210,"invoke":1000,"complete":2400,"outcome":"ok","offset":12,"epoch":0}
//! {"process":9,"op":"read","partition":0,"key":17,"value":90210,"invoke":2000,"complete":3100,"outcome":"ok","offset":12,"epoch":0}
//! ```
//!
//! The first line names the format and its version; a reader refuses any other version. `op` is
//! one of `send read seek final claim checkpoint checkpoint-read use`, `outcome` one of
//! `ok failed unknown`. Numbers are unsigned 64-bit integers (tools that read numbers as floating
//! point lose the low bits of `key` and `value`); times are nanoseconds. `offset` is left out where
//! there is none; `key`, `value` and `epoch` may be left out for 0. What the fields mean per kind:
//! [`crate::Record`]. Unknown fields are refused, so that a misspelt one can't hide a violation.
//!
//! Lines are bounded: a file is input like any other.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::history::{History, Record};

/// The longest line that is read, in bytes; a record takes at most about 320.
const LINE_BYTES_MAX: u64 = 4096;

const FORMAT: &str = "fleetline";
const VERSION: u32 = 1;

/// Why a file is not a history.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The file can't be read or written.
    #[error("cannot read or write the history: {0}")]
    Io(#[from] io::Error),
    /// The first line is not the head of a history.
    #[error("line 1 is not the head of a history of version {VERSION}: found {found:?}")]
    Head {
        /// The beginning of what stands there.
        found: String,
    },
    /// A line is not an operation.
    #[error("line {line} is not an operation: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    history: String,
    version: u32,
}

impl History {
    /// Reads a history from its file form.
    ///
    /// # Errors
    /// See [`HistoryError`]; nothing is skipped.
    pub fn read_json_lines(mut input: impl BufRead) -> Result<History, HistoryError> {
        let head = read_line(&mut input, 1)?.unwrap_or_default();
        match serde_json::from_str::<Head>(&head) {
            Ok(h) if h.history == FORMAT && h.version == VERSION => {}
            _ => return Err(HistoryError::Head { found: head.chars().take(80).collect() }),
        }
        let mut records = Vec::new();
        for number in 2.. {
            let Some(line) = read_line(&mut input, number)? else { break };
            if line.is_empty() {
                continue;
            }
            let record: Record = serde_json::from_str(&line)
                .map_err(|e| HistoryError::Line { line: number, reason: e.to_string() })?;
            records.push(record);
        }
        Ok(History::from_records(records))
    }

    /// Writes the file form.
    ///
    /// # Errors
    /// `Io` when the output can't be written.
    pub fn write_json_lines(&self, mut output: impl Write) -> Result<(), HistoryError> {
        write_line(&mut output, &Head { history: FORMAT.to_owned(), version: VERSION })?;
        for record in self.records() {
            write_line(&mut output, record)?;
        }
        output.flush()?;
        Ok(())
    }
}

fn write_line(output: &mut impl Write, value: &impl Serialize) -> Result<(), HistoryError> {
    serde_json::to_writer(&mut *output, value).map_err(io::Error::from)?;
    output.write_all(b"\n")?;
    Ok(())
}

/// The next line without its end, `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<String>, HistoryError> {
    let mut bytes = Vec::new();
    if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
        return Err(HistoryError::Line {
            line: number,
            reason: format!("longer than {LINE_BYTES_MAX} bytes"),
        });
    }
    match String::from_utf8(bytes) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        Err(_) => Err(HistoryError::Line { line: number, reason: "not UTF-8".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kind, Outcome};

    /// What is written is read again, with the largest numbers too.
    #[test]
    fn round_trip() {
        let history = History::from_records(vec![
            Record { invoke: 1, complete: 2, offset: Some(u64::MAX - 1), ..Record::new(Kind::Send, 1, 2) },
            Record {
                key: u64::MAX,
                value: u64::MAX,
                epoch: 3,
                outcome: Outcome::Unknown,
                invoke: 4,
                complete: 5,
                ..Record::new(Kind::CheckpointRead, u32::MAX, 0)
            },
        ]);
        let mut file = Vec::new();
        history.write_json_lines(&mut file).unwrap();
        assert_eq!(History::read_json_lines(&file[..]).unwrap(), history);
    }

    /// Each kind of damage to a file is refused with the line that holds it.
    #[test]
    fn damaged_files_are_refused() {
        let head = "{\"history\":\"fleetline\",\"version\":1}\n";
        let good = "{\"process\":1,\"op\":\"read\",\"partition\":0,\"invoke\":1,\"complete\":2,\"outcome\":\"ok\"}\n";
        let long = format!("{head}{}\n", " ".repeat(5000));
        let cases = [
            (String::new(), "line 1"),
            (good.to_owned(), "line 1"),
            (head.replace('1', "2"), "line 1"),
            (format!("{head}{good}{{}}\n"), "line 3"),
            (format!("{head}{}", good.replace("read", "raed")), "line 2"),
            (format!("{head}{}", good.replace("process", "proces")), "line 2"),
            (format!("{head}{}", &good[..40]), "line 2"),
            (long, "line 2"),
        ];
        for (text, wanted) in cases {
            let error = History::read_json_lines(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?} gave {error:?}");
        }
        assert_eq!(History::read_json_lines(format!("{head}{good}\n{good}").as_bytes()).unwrap().len(), 2);
    }
}
