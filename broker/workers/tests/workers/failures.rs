//! What goes wrong, and that it stays where it belongs.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use fleetline_worker::{LogLevel, Outcome, Value};
use fleetline_workers::{RunAs, WorkerError};

use crate::kit::{
    LONG, Node, act, acted, acted_json, acted_when_up, app, invocation, is_alive, read_json, with_settings,
};

const APPS: [&str; 2] = ["python_v2", "node_v4"];

/// A process that is killed while it has an invocation: the result is unknown, and the next one runs in
/// a new process.
#[tokio::test]
async fn a_killed_worker_is_replaced() {
    for name in APPS {
        let node = Node::start().await;
        let worker = node.app(name).await;
        let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
        let hanging = Arc::clone(&worker);
        let call = tokio::spawn(async move { hanging.invoke(act("hang"), LONG).await });
        // Sent before the process is killed: the table of calls is filled in the first poll.
        tokio::task::yield_now().await;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(&error, WorkerError::Exited { reason } if reason.contains("signal 9")), "{error}");
        assert!(error.may_have_run());
        let answer = acted_when_up(&*worker, "about").await;
        assert_ne!(read_json(&answer)["pid"].as_i64().unwrap(), i64::from(pid.as_raw_nonzero().get()));
        assert_eq!(*worker.exited().borrow(), None);
        node.sink.line_with("a worker is started again").await;
    }
}

/// A function that ends its process.
#[tokio::test]
async fn an_exit_is_reported_with_its_code() {
    for name in APPS {
        let node = Node::start().await;
        let worker = node.app(name).await;
        let error = worker.invoke(act("die"), LONG).await.unwrap_err();
        assert!(matches!(&error, WorkerError::Exited { reason } if reason.contains("code 3")), "{error}");
    }
}

/// A function that never ends: `TimedOut`, and its process is gone. What runs beside it may finish.
#[tokio::test]
async fn a_hanging_function_is_ended_with_its_process() {
    for (name, command) in [("python_v2", "hang"), ("node_v4", "hang"), ("node_v4", "wait")] {
        let node = Node::start().await;
        let worker = node.app(name).await;
        let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
        let limit = Duration::from_millis(300);
        let error = worker.invoke(act(command), limit).await.unwrap_err();
        assert_eq!(error, WorkerError::TimedOut { limit });
        let answer = acted_when_up(&*worker, "about").await;
        assert_ne!(read_json(&answer)["pid"].as_i64().unwrap(), pid);
        assert!(!is_alive(pid), "{name}");
    }
}

#[tokio::test]
async fn others_may_finish_when_one_runs_out_of_time() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    // No limit at all is allowed too.
    worker.invoke(act("number"), Duration::MAX).await.unwrap();
    let beside = Arc::clone(&worker);
    let other = tokio::spawn(async move { beside.invoke(act("slow"), LONG).await });
    let error = worker.invoke(act("hang"), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, WorkerError::TimedOut { .. }));
    let result = other.await.unwrap().unwrap();
    assert_eq!(result.returned, Some(Value::Text("slow but done".to_owned())));
}

/// A caller that goes away doesn't keep a hanging function alive.
#[tokio::test]
async fn a_given_up_invocation_still_has_its_limit() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
    let call = worker.invoke(act("hang"), Duration::from_millis(300));
    let _ = tokio::time::timeout(Duration::from_millis(20), call).await.expect_err("it hangs");
    while is_alive(pid) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// §5: exit code 200 asks for a new process and is no failure.
#[tokio::test]
async fn a_worker_may_ask_to_be_started_again() {
    let node = Node::with(|options| options.restarts.failures = 1).await;
    let worker = node.app("python_v2").await;
    for _ in 0..3 {
        while worker.invoke(act("restart"), LONG).await.is_err_and(|error| !error.may_have_run()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(acted_when_up(&*worker, "number").await, Value::Int(7));
    assert_eq!(*worker.exited().borrow(), None);
}

/// §5, crash policy: after so many failures the app is given up, and says so.
#[tokio::test]
async fn an_app_that_keeps_failing_is_given_up() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let mut exited = worker.exited();
    for _ in 0..3 {
        while worker.invoke(act("die"), LONG).await.is_err_and(|error| !error.may_have_run()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let reason = exited.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.contains("too many failures") && reason.contains("code 3"), "{reason}");
    let error = worker.invoke(act("number"), LONG).await.unwrap_err();
    assert!(matches!(error, WorkerError::NotSent { .. }));
}

/// Output without end costs neither memory nor time: it is cut, dropped and counted, and the function
/// still answers.
#[tokio::test]
async fn floods_are_bounded() {
    for (name, command) in [("python_v2", "flood"), ("python_v2", "log_flood"), ("node_v4", "flood")] {
        let node = Node::with(|options| options.lines_per_second = 100).await;
        let worker = node.app(name).await;
        assert_eq!(acted(&*worker, command).await, Value::Text("flooded".to_owned()));
        acted(&*worker, "number").await;
        let lines = node.sink.lines();
        assert!(lines.iter().all(|line| line.message.len() <= (16 << 10) + 10));
        assert!(lines.len() < 20_000, "{name} {command}: {}", lines.len());
    }
}

/// Lines that were dropped are counted in the next one that passes.
#[tokio::test]
async fn dropped_lines_are_counted() {
    let node = Node::with(|options| options.lines_per_second = 100).await;
    let worker = node.app("python_v2").await;
    acted(&*worker, "flood").await;
    loop {
        acted(&*worker, "log").await;
        let lines = node.sink.lines();
        if lines.iter().any(|line| line.message.contains("log lines were dropped") && line.is_system) {
            break;
        }
    }
}

/// A process that takes more memory than it may is ended, before it is the node's turn. One that is
/// quicker than the watch is refused more by the system, which its function may see as an error.
#[tokio::test]
async fn memory_is_bounded() {
    for name in APPS {
        let node = Node::with(|options| options.memory = 300 << 20).await;
        let worker = node.app(name).await;
        match worker.invoke(act("eat"), LONG).await {
            Err(WorkerError::Exited { .. }) => {}
            Ok(result) => assert!(matches!(result.outcome, Outcome::Failure(_)), "{name}: {result:?}"),
            Err(error) => panic!("{name}: {error}"),
        }
        acted_when_up(&*worker, "number").await;
    }
}

/// What throws outside of a function ends the Node process, with the reason in the log.
#[tokio::test]
async fn an_uncaught_exception_ends_the_process() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let error = worker.invoke(act("later"), LONG).await.unwrap_err();
    assert!(matches!(&error, WorkerError::Exited { reason } if reason.contains("thrown later")), "{error}");
    let line = node.sink.line_with("uncaught exception: Error: thrown later").await;
    assert_eq!((line.level, line.is_system), (LogLevel::Error, true));
}

/// An app that can't be imported at all doesn't start, and says why.
#[tokio::test]
async fn an_import_error_is_reported() {
    for (name, text) in
        [("python_broken", "a_module_that_is_not_there"), ("node_broken", "a-module-that-is-not-there")]
    {
        let node = Node::start().await;
        let error = node.try_app(app(name)).await.err().unwrap();
        let WorkerError::NotStarted { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(text), "{reason}");
    }
}

#[tokio::test]
async fn a_missing_interpreter_is_reported() {
    let node = Node::with(|options| options.python = "/nowhere/python".into()).await;
    let error = node.try_app(app("python_v2")).await.err().unwrap();
    assert!(error.to_string().contains("/nowhere/python can't be run"), "{error}");
    let node = Node::start().await;
    let mut missing = with_settings("python_v2", &[("FUNCTIONS_WORKER_RUNTIME", "python")]);
    missing.root = "/nowhere/app".into();
    let error = node.try_app(missing).await.err().unwrap();
    assert!(error.to_string().contains("/nowhere/app"), "{error}");
}

/// Packages that are missing: the interpreter's own words are in the reason.
#[tokio::test]
async fn missing_packages_are_reported() {
    let node = Node::with(|options| options.python = "/usr/bin/python3".into()).await;
    let error = node.try_app(app("python_v2")).await.err().unwrap();
    assert!(error.to_string().contains("No module named"), "{error}");
}

/// Unknown functions, those that didn't load, ids that run, values that are too large: refused, not sent.
#[tokio::test]
async fn what_can_not_run_is_refused() {
    let node = Node::with(|options| options.message_bytes = 1 << 20).await;
    let worker = node.app("python_v2").await;
    let refused = |error: WorkerError| matches!(error, WorkerError::Refused(_)) && !error.may_have_run();
    for function in ["nobody", "wrong"] {
        let call = invocation("x", function, vec![("value", Value::Null)]);
        assert!(refused(worker.invoke(call, LONG).await.unwrap_err()), "{function}");
    }
    let large = Value::Text("x".repeat(2 << 20));
    let call = invocation("y", "act", vec![("command", large)]);
    assert!(refused(worker.invoke(call, LONG).await.unwrap_err()));
    let (first, beside) = (act("slow"), Arc::clone(&worker));
    let second = first.clone();
    let running = tokio::spawn(async move { beside.invoke(first, LONG).await });
    tokio::task::yield_now().await;
    assert!(refused(worker.invoke(second, LONG).await.unwrap_err()));
    running.await.unwrap().unwrap();
}

/// A result that is larger than a message may be is a failure of its invocation alone.
#[tokio::test]
async fn a_result_that_is_too_large_is_a_failure() {
    for name in APPS {
        let node = Node::with(|options| options.message_bytes = 1 << 20).await;
        let worker = node.app(name).await;
        let result = worker.invoke(act("large"), LONG).await.unwrap();
        let Outcome::Failure(error) = result.outcome else { panic!("{name}") };
        assert!(error.message.contains("the result has"), "{error:?}");
        acted(&*worker, "number").await;
    }
}

/// No more invocations than allowed are with a process; the next one isn't sent, and can be sent again.
#[tokio::test]
async fn invocations_in_flight_are_bounded() {
    let node = Node::with(|options| options.in_flight = 2).await;
    let worker = node.app("python_v2").await;
    let start = |command: &'static str| {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.invoke(act(command), LONG).await })
    };
    let running = [start("slow"), start("slow")];
    tokio::task::yield_now().await;
    let error = worker.invoke(act("number"), LONG).await.unwrap_err();
    assert!(matches!(error, WorkerError::NotSent { .. }) && error.is_retryable());
    for call in running {
        call.await.unwrap().unwrap();
    }
    acted(&*worker, "number").await;
}

/// §5: what a process gets of its surroundings, and nothing of the node's.
#[tokio::test]
async fn a_worker_sees_its_settings_and_nothing_of_the_node() {
    for name in APPS {
        let node = Node::start().await;
        let settings =
            [("Connection__hub", "x=y"), ("PATH", "/usr/bin:/bin"), ("bad=name", "1"), ("HOME", "/root")];
        let app = with_settings(name, &settings);
        let worker = node.try_app(app.clone()).await.unwrap();
        let about = acted_json(&*worker, "about").await;
        let environment = about["environment"].as_object().unwrap();
        let text = |name: &str| environment.get(name).and_then(|value| value.as_str());
        assert_eq!(text("Connection__hub"), Some("x=y"));
        assert_eq!(text("PATH"), Some("/usr/bin:/bin"));
        let kind = if name.starts_with("python") { "python" } else { "node" };
        assert_eq!(text("FUNCTIONS_WORKER_RUNTIME"), Some(kind));
        assert!(text("FUNCTIONS_WORKER_RUNTIME_VERSION").unwrap().contains('.'));
        assert!(
            text("HOME").unwrap().starts_with(node.scratch.path().canonicalize().unwrap().to_str().unwrap())
        );
        assert!(!environment.keys().any(|name| name.starts_with("CARGO")), "{environment:?}");
        let root = app.root.canonicalize().unwrap();
        assert_eq!(about["cwd"].as_str(), root.to_str());
        assert_eq!(about["umask"], 0o077);
        if rustix::process::geteuid().is_root()
            && !node.sink.lines().iter().any(|line| line.message.contains("nobody"))
        {
            assert_eq!(about["uid"], 65534);
            let groups = about["groups"].as_array().unwrap();
            assert!(groups.iter().all(|group| *group == 65534), "{groups:?}");
        }
        node.sink.line_with("\"bad=name\"").await;
    }
}

/// A user that can't reach the app is an error, not a fall back.
#[tokio::test]
async fn a_user_that_can_not_reach_the_app_is_refused() {
    let node = Node::with(|options| options.run_as = RunAs::User { uid: 60_001, gid: 60_001 }).await;
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut app = with_settings("python_v2", &[("FUNCTIONS_WORKER_RUNTIME", "python")]);
    app.root = closed.path().to_owned();
    let error = node.try_app(app).await.err().unwrap();
    assert!(error.to_string().contains("user 60001 can't reach"), "{error}");
}
