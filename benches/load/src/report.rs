//! What is printed.

use serde::Serialize;

use crate::Outcome;
use crate::load::Measured;

/// One line of output.
#[derive(Default, Serialize)]
pub struct Line {
    case: String,
    system: String,
    durability: &'static str,
    per_s: u64,
    p50_ms: f64,
    p99_ms: f64,
    server_cpu_s_per_million: f64,
    server_rss_mib: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_syncs_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Line {
    fn of(case: &str, system: &str, durability: &'static str, measured: Outcome<Measured>) -> Line {
        let mut line =
            Line { case: case.to_owned(), system: system.to_owned(), durability, ..Line::default() };
        match measured {
            Ok(measured) => {
                line.per_s = measured.per_s as u64;
                line.p50_ms = round(measured.p50_ms);
                line.p99_ms = round(measured.p99_ms);
                line.server_cpu_s_per_million = round(measured.cpu_s_per_million);
                line.server_rss_mib = measured.rss_mib;
                line.errors = measured.errors;
                line.disk_syncs_per_s = measured.disk_syncs_per_s;
            }
            Err(error) => line.skipped = Some(error.to_string()),
        }
        line
    }

    /// Of a case of appends.
    pub fn append(case: &str, system: &str, nodes: usize, measured: Outcome<Measured>) -> Line {
        let durability = if nodes == 1 { "fsync" } else { "quorum-fsync" };
        Line::of(case, system, durability, measured)
    }

    /// Of a case of reads.
    pub fn read(case: &str, measured: Outcome<Measured>) -> Line {
        Line::of(case, "fleetline", "quorum-fsync", measured)
    }

    /// Of a case of idling: server CPU seconds per second.
    pub fn idle(case: &str, cpu: Outcome<(f64, u64)>) -> Line {
        let (idle_cpu, measured) = match cpu {
            Ok((cpu, rss_mib)) => (Some(round(cpu)), Ok(Measured { rss_mib, ..Measured::default() })),
            Err(error) => (None, Err(error)),
        };
        Line { idle_cpu, ..Line::of(case, "fleetline", "quorum-fsync", measured) }
    }

    /// Prints it.
    pub fn print(&self) {
        match serde_json::to_string(self) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("a result can't be printed: {error}"),
        }
    }
}
