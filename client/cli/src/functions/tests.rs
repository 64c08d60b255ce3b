//! Commands on function apps against a hub that says what it was told to say.

use clap::Parser;

use super::*;
use crate::fake::{FakeHub, said};

#[derive(Parser, Debug)]
struct Tool {
    #[command(flatten)]
    functions: FunctionsArgs,
}

fn parse(line: &str) -> Result<FunctionsCommand, String> {
    let words = std::iter::once("functions").chain(line.split_whitespace());
    Tool::try_parse_from(words).map(|tool| tool.functions.command).map_err(|error| error.to_string())
}

async fn done(rest: &mut Rest, line: &str) -> Result<String, CliError> {
    let mut lines = Vec::new();
    execute(rest, parse(line).unwrap(), &mut |line| lines.push(line)).await?;
    Ok(lines.join("\n"))
}

const RUNS: &str = r#"{"name":"a","activeVersion":7,"functions":[{"name":"f","state":"enabled"}],
    "versions":[{"version":7,"sha256":"SUM"}]}"#;

/// An app that isn't there yet is packed, sent, and waited for.
#[tokio::test]
async fn deploys() {
    let app = pack::tests::folder(&[("host.json", "{}"), ("f.py", "x")]);
    let (gone, made) = (said(404, "{}"), said(201, r#"{"name":"a","version":7}"#));
    let old = said(200, &RUNS.replace("\"activeVersion\":7", "\"activeVersion\":6"));
    let starting = said(200, r#"{"activeVersion":7,"functions":[]}"#);
    let mut hub = FakeHub::start(vec![gone, made, old, starting, said(200, RUNS), said(200, RUNS)]).await;
    let line = format!("deploy {} --app a --setting LIMIT=7", app.path().display());
    let shown = done(&mut hub.rest(), &line).await.unwrap();
    assert!(shown.starts_with("a is deployed as version 7\na, version 7\n"), "{shown}");
    assert_eq!(hub.asked().await.line, "GET /functions/apps/a?api-version=2021-04-12");
    let sent = hub.asked().await;
    assert_eq!(sent.line, "POST /functions/apps/a?api-version=2021-04-12");
    assert_eq!(sent.header("x-fleetline-settings"), "eyJMSU1JVCI6IjcifQ==");
    let names: Vec<String> = pack::tests::unpacked(&sent.body).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["f.py", "host.json"]);
}

/// What is deployed already isn't sent again, unless it is asked for.
#[tokio::test]
async fn deploys_once() {
    let app = pack::tests::folder(&[("host.json", "{}")]);
    let same = RUNS.replace("SUM", &pack::pack(app.path()).unwrap().sha256);
    let said = |status, text: &str| said(status, text);
    let mut hub = FakeHub::start(vec![
        said(200, &same),
        said(200, &same),
        said(201, r#"{"version":8}"#),
        said(200, &same.replace('7', "8")),
        said(200, &same.replace('7', "8")),
    ])
    .await;
    let mut rest = hub.rest();
    let line = format!("deploy {} --app a", app.path().display());
    assert!(done(&mut rest, &line).await.unwrap().starts_with("a is unchanged: version 7"));
    hub.asked().await;
    hub.asked().await;
    let forced = done(&mut rest, &format!("{line} --force")).await.unwrap();
    assert!(forced.starts_with("a is deployed as version 8"), "{forced}");
    assert_eq!(hub.asked().await.line, "POST /functions/apps/a?api-version=2021-04-12");
}

/// An older version with the same archive isn't the active one: it is deployed anew.
#[tokio::test]
async fn an_older_version_is_not_active() {
    let text = r#"{"activeVersion":2,"versions":[{"version":1,"sha256":"s"},{"version":2,"sha256":"t"}]}"#;
    let hub = FakeHub::start(vec![said(200, text), said(200, text), said(404, "{}")]).await;
    let mut rest = hub.rest();
    assert_eq!(active(&mut rest, "a", "s").await.unwrap(), None);
    assert_eq!(active(&mut rest, "a", "t").await.unwrap(), Some(2));
    assert_eq!(active(&mut rest, "a", "t").await.unwrap(), None);
}

/// The hub's reason comes through, and a function that can't run is a failure.
#[tokio::test]
async fn refused_and_broken_apps() {
    let app = pack::tests::folder(&[("host.json", "{}")]);
    let line = format!("deploy {} --app a", app.path().display());
    let broken = RUNS.replace("\"enabled\"", "\"broken\",\"reason\":\"no such binding\"");
    let refusal = r#"{"error":"no worker takes this app"}"#;
    let hub = FakeHub::start(vec![
        said(404, "{}"),
        said(400, refusal),
        said(404, "{}"),
        said(201, r#"{"version":7}"#),
        said(200, &broken),
        said(200, &broken),
    ])
    .await;
    let mut rest = hub.rest();
    let refused = done(&mut rest, &line).await.unwrap_err().to_string();
    assert!(refused.starts_with("no worker takes this app (status 400)"), "{refused}");
    let failed = done(&mut rest, &line).await.unwrap_err().to_string();
    assert!(failed.contains("f: no such binding") && failed.contains("rollback a"), "{failed}");
}

/// An answer to a deployment that is lost says so: the version may be there.
#[tokio::test]
async fn a_lost_deployment_is_unknown() {
    let app = pack::tests::folder(&[("host.json", "{}")]);
    let hub = FakeHub::start(vec![said(404, "{}"), said(0, "")]).await;
    let line = format!("deploy {} --app a", app.path().display());
    assert_eq!(done(&mut hub.rest(), &line).await.unwrap_err().exit_code(), 3);
}

/// Looks and changes: the requests that they make.
#[tokio::test]
async fn requests() {
    for (line, answer, asked, shown) in [
        ("list", r#"{"apps":[{"name":"a","activeVersion":7}]}"#, "GET /functions/apps", "a "),
        ("status a", RUNS, "GET /functions/apps/a", "a, version 7"),
        ("rollback a", r#"{"version":6}"#, "POST /functions/apps/a/rollback", "a is at version 6"),
        ("rollback a 5", r#"{"version":5}"#, "POST /functions/apps/a/rollback", "a is at version 5"),
        ("delete a", "", "DELETE /functions/apps/a", "a is removed"),
        ("settings a", r#"{"K":"v"}"#, "GET /functions/apps/a/settings", "K=v"),
        ("keys a", r#"{"master":"m"}"#, "GET /functions/apps/a/keys", "_master  m"),
        ("keys a --new n", r#"{"value":"secret"}"#, "POST /functions/apps/a/keys", "secret"),
        ("disable a f", "", "POST /functions/apps/a/functions/f/disable", "f of a is disabled"),
        ("enable a f", "", "POST /functions/apps/a/functions/f/enable", "f of a is enabled"),
    ] {
        let mut hub = FakeHub::start(vec![said(200, answer)]).await;
        let found = done(&mut hub.rest(), line).await.unwrap();
        assert!(found.contains(shown), "{line}: {found}");
        let request = hub.asked().await;
        assert_eq!(request.line, format!("{asked}?api-version=2021-04-12"), "{line}");
        match line {
            "rollback a" => assert_eq!(request.json(), json!({})),
            "rollback a 5" => assert_eq!(request.json(), json!({"version": 5})),
            "keys a --new n" => assert_eq!(request.json(), json!({"name": "n", "function": null})),
            _ => {}
        }
    }
}

/// Settings are changed one by one: what isn't named stays.
#[tokio::test]
async fn settings_are_merged() {
    let there = r#"{"A":"1","B":"2"}"#;
    let mut hub = FakeHub::start(vec![said(200, there), said(204, ""), said(200, there)]).await;
    let mut rest = hub.rest();
    let shown = done(&mut rest, "settings a B=3 C=x=y --remove A").await.unwrap();
    assert_eq!(shown, "B=3\nC=x=y");
    hub.asked().await;
    let put = hub.asked().await;
    assert_eq!(put.line, "PUT /functions/apps/a/settings?api-version=2021-04-12");
    assert_eq!(put.json(), json!({"B": "3", "C": "x=y"}));
    let error = done(&mut rest, "settings a --remove X").await.unwrap_err();
    assert!(error.to_string().contains("no setting X"), "{error}");
}

/// Lines are shown whole, and with nothing that a terminal would obey.
#[tokio::test]
async fn lines_of_logs() {
    let lines = r#"{"lines":[{"atMs":0,"node":1,"level":"error","function":"f","message":"x"}]}"#;
    let mut hub = FakeHub::start(vec![said(200, lines), said(200, "one\ntw\u{1b}o\nrest")]).await;
    let mut rest = hub.rest();
    let shown = done(&mut rest, "logs a --function f --tail 5").await.unwrap();
    assert_eq!(shown, "1970-01-01T00:00:00Z n1 error       f: x");
    let asked = hub.asked().await.line;
    assert_eq!(asked, "GET /functions/apps/a/logs?api-version=2021-04-12&tail=5&function=f");
    assert_eq!(done(&mut rest, "logs a --follow").await.unwrap(), "one\ntw\u{fffd}o");
    assert!(hub.asked().await.line.ends_with("tail=100&follow=true"));
}

/// What makes no sense is refused here, with a word on why.
#[test]
fn bad_lines() {
    for (line, part) in [
        ("deploy . --app A", "small letters"),
        ("deploy . --app a-", "small letters"),
        ("deploy . --setting x", "NAME=VALUE"),
        ("logs a --tail 0", "1..=1000"),
        ("keys a --function f", "--new"),
        ("settings a =x", "NAME=VALUE"),
        ("rollback", "<APP>"),
    ] {
        let error = parse(line).map(|command| format!("{command:?}")).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
    assert_eq!(name_of(Path::new("/x/My_App")).unwrap(), "my-app");
    assert!(name_of(Path::new("/x/1")).unwrap_err().to_string().contains("--app"));
    assert!(matches!(parse("start"), Ok(FunctionsCommand::Start(_))));
}
