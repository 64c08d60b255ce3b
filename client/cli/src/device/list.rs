//! Lists of devices: a query over twins, page by page.
//!
//! The registry's own list ends at 1000 devices without saying so; a query has continuations.

use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::ListArgs;
use crate::CliError;
use crate::rest::{Call, Rest};

/// Rows of a page: the hub's maximum.
const PAGE: &str = "1000";
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// How the hub writes a moment that never was.
const NEVER: &str = "0001-01-01T00:00:00";

/// Gives the lines of the list to `out`, as pages arrive.
pub(super) async fn run(
    rest: &mut Rest,
    args: &ListArgs,
    out: &mut impl FnMut(String),
) -> Result<(), CliError> {
    let mut continuation: Option<String> = None;
    let mut rows = 0;
    loop {
        let mut call = Call::new(Method::POST, &["devices", "query"])
            .reads()
            .json(&json!({"query": args.query}))
            .header(PAGE_SIZE, PAGE)?;
        if let Some(token) = &continuation {
            call = call.header(CONTINUATION, token)?;
        }
        let page = rest.call(call).await?;
        for row in page.json()?.as_array().into_iter().flatten() {
            // A query may choose fields of its own: then a row is shown as it is.
            let is_twin = !args.json && row["deviceId"].is_string() && row["status"].is_string();
            if is_twin && rows == 0 {
                out(heads());
            }
            out(if is_twin { line(row) } else { row.to_string() });
            rows += 1;
        }
        continuation =
            page.header(CONTINUATION.as_str()).filter(|token| !token.is_empty()).map(str::to_owned);
        if continuation.is_none() {
            break;
        }
    }
    if rows == 0 {
        eprintln!("no device is like that; `fleetline device create ID` makes one");
    }
    Ok(())
}

fn heads() -> String {
    format!(
        "{:<32} {:<9} {:<13} {:<21} {:>8}  {}",
        "device", "status", "state", "authentication", "messages", "last activity"
    )
}

fn line(twin: &Value) -> String {
    let text = |name: &str| cell(&twin[name]);
    let id = match twin["moduleId"].as_str() {
        Some(module) => format!("{}/{module}", text("deviceId")),
        None => text("deviceId"),
    };
    format!(
        "{id:<32} {:<9} {:<13} {:<21} {:>8}  {}",
        text("status"),
        text("connectionState"),
        text("authenticationType"),
        text("cloudToDeviceMessageCount"),
        text("lastActivityTime")
    )
}

/// A value as people read it.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.starts_with(NEVER) => "never".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHub, said};

    async fn lines(rest: &mut Rest, query: &str, json: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let args = ListArgs { query: query.to_owned(), json };
        run(rest, &args, &mut |line| lines.push(line)).await.unwrap();
        lines
    }

    /// All pages are read, also behind an empty one; the heads stand there once.
    #[tokio::test]
    async fn pages() {
        let twin = r#"[{"deviceId":"d","status":"enabled","connectionState":"Connected","authenticationType":"sas",
            "cloudToDeviceMessageCount":3,"lastActivityTime":"0001-01-01T00:00:00Z"}]"#;
        let mut hub = FakeHub::start(vec![
            said(200, twin).with("x-ms-continuation", "one"),
            said(200, "[]").with("x-ms-continuation", "two"),
            said(200, &twin.replace("\"d\"", "\"e\",\"moduleId\":\"m\"")),
        ])
        .await;
        let lines = lines(&mut hub.rest(), "SELECT * FROM devices", false).await;
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..2], ["device", "status"]);
        assert_eq!(words[1], ["d", "enabled", "Connected", "sas", "3", "never"]);
        assert_eq!((words[2][0], words.len()), ("e/m", 3));
        let first = hub.asked().await;
        assert_eq!(first.line, "POST /devices/query?api-version=2021-04-12");
        assert_eq!(first.json(), json!({"query": "SELECT * FROM devices"}));
        assert_eq!((first.header("x-ms-continuation"), first.header("x-ms-max-item-count")), ("", "1000"));
        assert_eq!(hub.asked().await.header("x-ms-continuation"), "one");
        assert_eq!(hub.asked().await.header("x-ms-continuation"), "two");
    }

    /// Rows that are no twins are printed as JSON, and so is everything on request.
    #[tokio::test]
    async fn other_rows() {
        let hub = FakeHub::start(vec![
            said(200, r#"[{"n":7}]"#),
            said(200, r#"[{"deviceId":"d","status":"enabled"}]"#),
        ])
        .await;
        let mut rest = hub.rest();
        assert_eq!(lines(&mut rest, "SELECT COUNT() AS n FROM devices", false).await, [r#"{"n":7}"#]);
        let all = lines(&mut rest, "SELECT * FROM devices", true).await;
        assert_eq!(all, [r#"{"deviceId":"d","status":"enabled"}"#]);
    }

    /// A query changes nothing: without an answer it has failed, not "perhaps happened".
    #[tokio::test]
    async fn a_lost_answer_is_a_failure() {
        let hub = FakeHub::start(vec![said(0, "")]).await;
        let args = ListArgs { query: "x".to_owned(), json: false };
        assert_eq!(run(&mut hub.rest(), &args, &mut drop).await.unwrap_err().exit_code(), 1);
    }
}
