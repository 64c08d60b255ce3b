//! What is known of apps, as people read it.

use std::time::{SystemTime, UNIX_EPOCH};

use fleetline_iothub::time::format_time;
use serde_json::Value;

/// The table of all apps.
pub(super) fn list(answer: &Value) -> Option<String> {
    let apps = answer["apps"].as_array().filter(|apps| !apps.is_empty())?;
    let mut lines = vec![row(&["app", "version", "worker", "functions", "deployed"])];
    for app in apps {
        let deployed = time(&app["deployedMs"]);
        let cells = [&app["name"], &app["activeVersion"], &app["worker"], &app["functions"]].map(cell);
        lines.push(row(&[&cells[0], &cells[1], &cells[2], &cells[3], &deployed]));
    }
    Some(lines.join("\n"))
}

fn row(cells: &[&str; 5]) -> String {
    format!("{:<24} {:>7}  {:<8} {:>9}  {}", cells[0], cells[1], cells[2], cells[3], cells[4])
}

/// One app: its functions, its versions, where it runs.
pub(super) fn status(app: &Value) -> String {
    let mut lines =
        vec![format!("{}, version {}", cell(&app["name"]), cell(&app["activeVersion"])), String::new()];
    lines.push(function_row(&[
        "function",
        "trigger",
        "state",
        "calls",
        "failed",
        "p50 ms",
        "p99 ms",
        "lag",
        "instances",
    ]));
    for function in app["functions"].as_array().into_iter().flatten() {
        let of = |name: &str| cell(&function[name]);
        let instances = format!("{}/{}", of("instances"), of("desiredInstances"));
        let cells = [
            &of("name"),
            &of("trigger"),
            &of("state"),
            &of("invocations"),
            &of("failures"),
            &of("p50Ms"),
            &of("p99Ms"),
            &of("lag"),
            &instances,
        ];
        lines.push(function_row(&cells.map(|cell| cell.as_str())));
        lines.extend(remarks(function));
    }
    lines.push(String::new());
    for version in app["versions"].as_array().into_iter().flatten().rev() {
        let is_active = version["version"] == app["activeVersion"];
        lines.push(format!(
            "version {:<4} {}  {:>9} bytes  {}{}",
            cell(&version["version"]),
            time(&version["deployedMs"]),
            cell(&version["bytes"]),
            cell(&version["worker"]),
            if is_active { "  (active)" } else { "" }
        ));
    }
    for node in app["nodes"].as_array().into_iter().flatten() {
        let (worker, starts) = (cell(&node["worker"]), cell(&node["coldStarts"]));
        lines.push(format!("node {:<7} worker {worker}, started {starts} times", cell(&node["node"])));
    }
    lines.join("\n")
}

fn function_row(cells: &[&str; 9]) -> String {
    let [name, trigger, state, calls, failed, p50, p99, lag, instances] = cells;
    format!(
        "{name:<24} {trigger:<16} {state:<9} {calls:>9} {failed:>7} {p50:>8} {p99:>8} {lag:>7} {instances:>9}"
    )
}

/// What is worth a line of its own: where to call it, why it can't run, what went wrong.
fn remarks(function: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut remark = |title: &str, name: &str| {
        if let Some(text) = function[name].as_str() {
            lines.push(format!("  {title}: {}", printable(text).replace('\n', "\n    ")));
        }
    };
    remark("path", "url");
    remark("can't run", "reason");
    remark("last error", "lastError");
    if function["poison"].as_u64().is_some_and(|count| count > 0) {
        lines.push(format!("  gave up {} records (they are in the stream as poison)", function["poison"]));
    }
    lines
}

/// Reasons of functions that can't run.
pub(super) fn broken(app: &Value) -> Vec<String> {
    let functions = app["functions"].as_array().into_iter().flatten();
    functions
        .filter(|function| function["state"] == "broken")
        .map(|function| format!("{}: {}", cell(&function["name"]), cell(&function["reason"])))
        .collect()
}

/// The keys of an app: `master`, `host.NAME`, `FUNCTION.NAME`.
pub(super) fn keys(answer: &Value) -> Vec<String> {
    let mut lines = vec![format!("_master  {}", cell(&answer["master"]))];
    let named = |value: &Value, prefix: &str| -> Vec<String> {
        let map = value.as_object().into_iter().flatten();
        map.map(|(name, key)| format!("{prefix}{name}  {}", cell(key))).collect()
    };
    lines.extend(named(&answer["host"], ""));
    for (function, of) in answer["functions"].as_object().into_iter().flatten() {
        lines.extend(named(of, &format!("{function}/")));
    }
    lines
}

/// A line of a log.
pub(super) fn log_line(line: &Value) -> String {
    let function = line["function"].as_str().filter(|name| !name.is_empty()).unwrap_or("host");
    format!(
        "{} n{} {:<11} {function}: {}",
        time(&line["atMs"]),
        cell(&line["node"]),
        cell(&line["level"]),
        printable(line["message"].as_str().unwrap_or_default())
    )
}

/// Functions write what they like; a terminal gets no control characters of theirs.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn time(ms: &Value) -> String {
    match ms.as_u64() {
        // To the second.
        Some(ms) => format!("{}Z", format_time(ms).chars().take(19).collect::<String>()),
        None => "-".to_owned(),
    }
}

/// Seconds since 1970.
pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    /// Apps in a table; none is nothing.
    #[test]
    fn lists() {
        let apps = json!({"apps": [{"name": "alarm", "activeVersion": 3, "worker": "python",
            "deployedMs": 951_827_445_250u64, "functions": 1}, {"name": "b", "worker": null}]});
        let shown = list(&apps).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(words(lines[1]), ["alarm", "3", "python", "1", "2000-02-29T12:30:45Z"]);
        assert_eq!(words(lines[2]), ["b", "-", "-", "-", "-"]);
        assert_eq!(list(&json!({"apps": []})), None);
    }

    /// A status names functions with their numbers, what is wrong with them, and versions, newest first.
    #[test]
    fn statuses() {
        let app = json!({"name": "alarm", "activeVersion": 2,
            "versions": [{"version": 1, "bytes": 10, "worker": "python"}, {"version": 2, "bytes": 12}],
            "nodes": [{"node": 1, "worker": "running", "coldStarts": 4}],
            "functions": [{"name": "f", "trigger": "eventHubTrigger", "state": "enabled", "invocations": 7,
                "failures": 1, "p50Ms": 1.5, "p99Ms": 20.0, "lag": 0, "instances": 1, "desiredInstances": 1,
                "poison": 2, "lastError": "boom\u{1b}[31m"},
                {"name": "g", "state": "broken", "reason": "no such binding", "url": "/apps/alarm/api/g"}]});
        let shown = status(&app);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(words(lines[3]), ["f", "eventHubTrigger", "enabled", "7", "1", "1.5", "20.0", "0", "1/1"]);
        assert_eq!(lines[4], "  last error: boom\u{fffd}[31m");
        assert!(lines[5].contains("gave up 2 records"), "{shown}");
        assert!(shown.contains("  path: /apps/alarm/api/g\n  can't run: no such binding\n"), "{shown}");
        assert!(shown.find("version 2").unwrap() < shown.find("version 1").unwrap(), "{shown}");
        assert!(shown.contains("(active)") && shown.contains("started 4 times"));
        assert_eq!(broken(&app), ["g: no such binding"]);
    }

    #[test]
    fn keys_and_lines() {
        let all = json!({"master": "m", "host": {"default": "h"}, "functions": {"f": {"default": "k"}}});
        assert_eq!(keys(&all), ["_master  m", "default  h", "f/default  k"]);
        let line = json!({"atMs": 951_827_445_250u64, "node": 2, "level": "warning", "function": "",
            "message": "a\u{7}b"});
        assert_eq!(log_line(&line), "2000-02-29T12:30:45Z n2 warning     host: a\u{fffd}b");
    }
}
