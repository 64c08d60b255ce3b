//! What is printed.

use std::io::Write;

use serde::Serialize;

use crate::Outcome;
use crate::load::Measured;
use crate::mqtt::hold::Held;

/// One line of output. `skipped` says why there is no result; all figures are zero then.
#[derive(Default, Serialize)]
pub struct Line {
    /// Which case.
    pub case: String,
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
    kib_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_processes: Option<usize>,
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

    /// Of a case of idling: server CPU seconds per second, and MiB.
    pub fn idle(case: &str, cpu: Outcome<(f64, u64)>) -> Line {
        let (idle_cpu, measured) = match cpu {
            Ok((cpu, rss_mib)) => (Some(round(cpu)), Ok(Measured { rss_mib, ..Measured::default() })),
            Err(error) => (None, Err(error)),
        };
        Line { idle_cpu, ..Line::of(case, "fleetline", "quorum-fsync", measured) }
    }

    /// Of a case of MQTT that has a rate.
    pub fn ingest(case: &str, system: &str, durability: &'static str, measured: Outcome<Measured>) -> Line {
        Line::of(case, system, durability, measured)
    }

    /// Of a case of idle connections; the rate is that of opening them.
    pub fn connections(case: &str, system: &str, durability: &'static str, held: Outcome<Held>) -> Line {
        let held = match held {
            Ok(held) => held,
            Err(error) => return Line::of(case, system, durability, Err(error)),
        };
        let measured = Measured { per_s: held.connects_per_s, rss_mib: held.rss_mib, ..Measured::default() };
        Line {
            idle_cpu: Some(round(held.idle_cpu)),
            kib_per_connection: Some(round(held.kib_per_connection)),
            connections: Some(held.connections),
            client_processes: Some(held.processes),
            ..Line::of(case, system, durability, Ok(measured))
        }
    }

    /// Whether our own system gave no result.
    pub fn is_our_failure(&self) -> bool {
        self.system == "fleetline" && self.skipped.is_some()
    }

    /// Prints it at once.
    ///
    /// # Errors
    /// When nobody reads standard output any more.
    pub fn print(&self) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(self)?)?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: Line, expected: &str) {
        assert_eq!(serde_json::to_string(&line).unwrap(), expected);
    }

    /// The form that readers of the output rely on: of a result, of none, of an idle case.
    #[test]
    fn lines_have_their_form() {
        let measured = Measured {
            per_s: 1234.9,
            p50_ms: 0.12345,
            p99_ms: 7.0,
            cpu_s_per_million: 2.5,
            rss_mib: 64,
            errors: 3,
            disk_syncs_per_s: Some(900),
        };
        check(
            Line::append("append-100B-r3", "nats", 3, Ok(measured.clone())),
            "{\"case\":\"append-100B-r3\",\"system\":\"nats\",\"durability\":\"quorum-fsync\",\"per_s\":1234,\
             \"p50_ms\":0.123,\"p99_ms\":7.0,\"server_cpu_s_per_million\":2.5,\"server_rss_mib\":64,\
             \"errors\":3,\"disk_syncs_per_s\":900}",
        );
        check(
            Line::append("append-100B-r1", "etcd", 1, Err("no registry".into())),
            "{\"case\":\"append-100B-r1\",\"system\":\"etcd\",\"durability\":\"fsync\",\"per_s\":0,\
             \"p50_ms\":0.0,\"p99_ms\":0.0,\"server_cpu_s_per_million\":0.0,\"server_rss_mib\":0,\
             \"errors\":0,\"skipped\":\"no registry\"}",
        );
        check(
            Line::idle("idle-256-groups", Ok((0.0204, 300))),
            "{\"case\":\"idle-256-groups\",\"system\":\"fleetline\",\"durability\":\"quorum-fsync\",\
             \"per_s\":0,\"p50_ms\":0.0,\"p99_ms\":0.0,\"server_cpu_s_per_million\":0.0,\
             \"server_rss_mib\":300,\"errors\":0,\"idle_cpu\":0.02}",
        );
        let held = Held {
            connections: 19_000,
            processes: 3,
            kib_per_connection: 12.3456,
            idle_cpu: 0.01,
            rss_mib: 400,
            connects_per_s: 1500.7,
        };
        check(
            Line::connections("idle-tls", "mosquitto", "memory", Ok(held)),
            "{\"case\":\"idle-tls\",\"system\":\"mosquitto\",\"durability\":\"memory\",\"per_s\":1500,\
             \"p50_ms\":0.0,\"p99_ms\":0.0,\"server_cpu_s_per_million\":0.0,\"server_rss_mib\":400,\
             \"errors\":0,\"idle_cpu\":0.01,\"kib_per_connection\":12.346,\"connections\":19000,\
             \"client_processes\":3}",
        );
    }

    /// A peer that is missing is no failure; our own is.
    #[test]
    fn only_our_own_failures_count() {
        let missing = || Err("missing".into());
        assert!(!Line::append("a", "nats", 3, missing()).is_our_failure());
        assert!(Line::append("a", "fleetline", 3, missing()).is_our_failure());
        assert!(Line::idle("a", Err("missing".into())).is_our_failure());
        assert!(!Line::read("a", Ok(Measured::default())).is_our_failure());
    }
}
