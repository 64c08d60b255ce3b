//! Twins: read, merged, replaced.

use http::Method;
use serde_json::{Map, Value, json};

use super::{TwinArgs, json_argument, place};
use crate::CliError;
use crate::rest::{Call, Rest};

/// Changes the twin when there is something to change; gives it as it is then.
pub(super) async fn run(rest: &mut Rest, args: &TwinArgs) -> Result<Value, CliError> {
    let place = place("twins", &args.id, args.module.as_deref());
    let Some(change) = change(args)? else {
        return rest.call(Call::new(Method::GET, &place)).await?.json();
    };
    // PATCH merges, PUT replaces the parts that are there.
    let method = if args.replace { Method::PUT } else { Method::PATCH };
    let call = Call::new(method, &place).json(&change).if_match(args.etag.as_deref().unwrap_or("*"))?;
    rest.call(call).await?.json()
}

fn change(args: &TwinArgs) -> Result<Option<Value>, CliError> {
    let mut change = Map::new();
    if let Some(tags) = &args.tags {
        change.insert("tags".to_owned(), object("--tags", tags)?);
    }
    if let Some(desired) = &args.desired {
        change.insert("properties".to_owned(), json!({"desired": object("--desired", desired)?}));
    }
    Ok((!change.is_empty()).then_some(Value::Object(change)))
}

fn object(what: &str, text: &str) -> Result<Value, CliError> {
    match json_argument(what, text)? {
        value @ Value::Object(_) => Ok(value),
        other => {
            Err(CliError::Usage(format!("{what} is {other}, and has to be an object like '{{\"a\": 1}}'")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;
    use crate::fake::{FakeHub, said};

    /// Nothing to change only reads; else the parts that are given go out, merged or replaced, under the
    /// etag or any.
    #[tokio::test]
    async fn requests() {
        let twin = r#"{"deviceId":"d","version":1}"#;
        let rows: [(&[&str], &str, &str, &str); 4] = [
            (&["d"], "GET /twins/d", "", ""),
            (
                &["d", "--desired", "{\"a\":null}"],
                "PATCH /twins/d",
                "*",
                r#"{"properties":{"desired":{"a":null}}}"#,
            ),
            (
                &["d", "--module", "m", "--tags", "{\"b\":1}", "--etag", "AAA="],
                "PATCH /twins/d/modules/m",
                "\"AAA=\"",
                r#"{"tags":{"b":1}}"#,
            ),
            (
                &["d", "--desired", "{}", "--tags", "{}", "--replace"],
                "PUT /twins/d",
                "*",
                r#"{"properties":{"desired":{}},"tags":{}}"#,
            ),
        ];
        let mut hub = FakeHub::start(rows.iter().map(|_| said(200, twin)).collect()).await;
        let mut rest = hub.rest();
        for (line, request, condition, body) in rows {
            assert_eq!(run(&mut rest, &parsed(line)).await.unwrap()["version"], 1);
            let asked = hub.asked().await;
            assert_eq!(asked.line, format!("{request}?api-version=2021-04-12"));
            assert_eq!(asked.header("if-match"), condition, "{line:?}");
            assert_eq!(String::from_utf8(asked.body).unwrap(), body);
        }
    }

    /// A part that is no object is refused before anything is sent.
    #[test]
    fn parts_are_objects() {
        for text in ["1", "[]", "null", "\"a\""] {
            let error = change(&parsed(&["d", "--tags", text])).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with("--tags is "), "{error}");
        }
    }
}
