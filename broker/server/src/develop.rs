//! `fleetline functions start`: a function app under development, on a node of its own.
//!
//! The node is one like any other, in its data folder; the app in the folder runs on it as if it were deployed,
//! and is loaded again when a file changes. What functions and workers say goes to standard output.

use std::sync::Arc;

use fleetline_cli::{CliError, StartArgs, app_name_of};
use fleetline_config::FrontListen;
use fleetline_functions::KeptLine;
use fleetline_node::Node;
use fleetline_telemetry::{LogFormat, Metrics, init_logs};

use crate::serve::ServeArgs;

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

/// Runs the app until Ctrl-C.
pub async fn run(args: &StartArgs) -> Result<(), CliError> {
    if !args.folder.join("host.json").is_file() {
        return Err(CliError::Failed(format!(
            "{} is no function app: it has no host.json\nhint: name the app's folder; the smallest host.json is \
             {{\"version\": \"2.0\"}}",
            args.folder.display()
        )));
    }
    let app = match &args.app {
        Some(app) => app.clone(),
        None => app_name_of(&args.folder)?,
    };
    init_logs("warn,openraft=error", LogFormat::Text).map_err(failed)?;
    let metrics = Metrics::install().map_err(failed)?;
    let serve = ServeArgs {
        data: Some(args.data.clone()),
        http_plain_listen: Some(FrontListen::At(args.listen)),
        workers: args.workers.clone(),
        ..ServeArgs::default()
    };
    let mut node = Node::start(serve.to_config()?, metrics).await.map_err(failed)?;
    let Some(functions) = node.functions() else {
        node.shutdown().await;
        return Err(CliError::Usage(
            "functions are off in this node's configuration (`functions = false`)".to_owned(),
        ));
    };
    println!("{app} runs from {}; Ctrl-C ends", args.folder.display());
    println!("functions with HTTP triggers: http://{}/apps/{app}/api/…", args.listen);
    if args.workers.is_none() {
        println!(
            "only WebAssembly runs: for Python and Node name a folder with --workers (broker/workers/setup.sh)"
        );
    }
    let running = functions.run_local(&app, args.folder.clone(), Arc::new(print));
    let outcome = tokio::select! {
        ended = running => ended.map_err(failed),
        error = node.wait() => Err(failed(error)),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    node.shutdown().await;
    outcome
}

/// `12:31:45 warning alarm: text`, with what a terminal would obey left out.
fn print(line: &KeptLine) {
    println!("{}", shown(line));
}

fn shown(line: &KeptLine) -> String {
    let seconds = line.at_ms / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let function = if line.function.is_empty() { "host" } else { line.function.as_str() };
    let keep = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    let text: String = line.message.chars().map(keep).collect();
    format!("{hour:02}:{minute:02}:{second:02} {:<11} {function}: {text}", line.level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = KeptLine {
            number: 1,
            at_ms: 1_533_099_600_000,
            node: 1,
            function: String::new(),
            level: "warning".to_owned(),
            invocation: None,
            message: "a\u{1b}[2Jb".to_owned(),
        };
        assert_eq!(shown(&line), "05:00:00 warning     host: a\u{fffd}[2Jb");
        assert!(shown(&KeptLine { function: "alarm".to_owned(), ..line }).contains(" alarm: "));
    }
}
