//! What a component can't do: run for ever, take all memory, flood the log, hand over more than it may;
//! and state, with its bounds.

use std::time::Duration;

use fleetline_wasm::{STATE, WasmHost, WasmOptions, apply_changes, limits};
use fleetline_worker::{LogLevel, Outcome, Value};
use fleetline_workers::WorkerError;
use serde_json::json;

use crate::app::{App, LIMIT, all_outputs, event, failure, invocation, output};
use crate::guest::{Constants, NOTHING, component};

const FOR_EVER: &str = "(loop $again (br $again)) (unreachable)";

fn options() -> WasmOptions {
    WasmOptions { time_max: Duration::from_millis(50), ..WasmOptions::default() }
}

#[tokio::test]
async fn an_endless_loop_times_out() {
    let host = WasmHost::new(options()).unwrap();
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], FOR_EVER)).await;
    let timed_out = WorkerError::TimedOut { limit: Duration::from_millis(50) };
    assert_eq!(app.invoke(event("")).await, Err(timed_out));
    // The engine's limit is shorter than the host's.
    let limit = Duration::from_millis(1);
    let call = invocation(vec![("input".into(), event(""))]);
    assert_eq!(app.worker.invoke(call, limit).await, Err(WorkerError::TimedOut { limit }));
}

/// A dropped invocation gives its thread back: with one thread, the next one runs.
#[tokio::test]
async fn a_dropped_invocation_stops() {
    let options = WasmOptions { running_max: 1, waiting_max: 1, time_max: LIMIT, ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    // Logs, so that the test sees it run, then loops for ever when its first event has a body.
    let body = format!(
        "(if (i32.load offset=80 (i32.load offset=36 (local.get $batch))) (then
           (call $log (i32.const 2) (i32.const 0) (i32.const 0)) (loop $again (br $again)))) {NOTHING}"
    );
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], &body)).await;
    let hangs = app.invoke(event("x"));
    tokio::select! {
        result = hangs => panic!("{result:?}"),
        () = until(|| !app.messages().is_empty()) => {}
    }
    assert_eq!(app.invoke(event("")).await.unwrap().outcome, Outcome::Success);
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn more_than_can_wait_is_not_sent() {
    let options = WasmOptions { running_max: 1, waiting_max: 0, time_max: LIMIT, ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    let body = format!("(call $log (i32.const 2) (i32.const 0) (i32.const 0)) {FOR_EVER}");
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], &body)).await;
    let runs = app.invoke(event(""));
    let refused = async {
        until(|| !app.messages().is_empty()).await;
        app.invoke(event("")).await
    };
    tokio::select! {
        result = runs => panic!("{result:?}"),
        refused = refused => assert!(matches!(refused, Err(WorkerError::NotSent { .. })), "{refused:?}"),
    }
}

#[tokio::test]
async fn stop_ends_what_runs() {
    let options = WasmOptions { time_max: LIMIT, ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    let body = format!("(call $log (i32.const 2) (i32.const 0) (i32.const 0)) {FOR_EVER}");
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], &body)).await;
    assert_eq!(*app.worker.exited().borrow(), None);
    let stops = async {
        until(|| !app.messages().is_empty()).await;
        app.worker.stop(Duration::ZERO).await;
    };
    let (result, ()) = tokio::join!(app.invoke(event("")), stops);
    assert!(matches!(result, Err(WorkerError::Exited { .. })), "{result:?}");
    assert!(app.worker.exited().borrow().is_some());
    assert!(matches!(app.invoke(event("")).await, Err(WorkerError::NotSent { .. })));
    app.worker.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn stop_lets_what_runs_end() {
    // Takes a while: counts down from a large number.
    let body = format!(
        "(local $left i32) (local.set $left (i32.const 100000000))
         (call $log (i32.const 2) (i32.const 0) (i32.const 0))
         (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {NOTHING}"
    );
    let options = WasmOptions { time_max: LIMIT, ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], &body)).await;
    let stops = async {
        until(|| !app.messages().is_empty()).await;
        app.worker.stop(LIMIT).await;
    };
    let (result, ()) = tokio::join!(app.invoke(event("")), stops);
    assert_eq!(result.unwrap().outcome, Outcome::Success);
}

#[tokio::test]
async fn a_memory_hog_is_told_its_limit() {
    let options = WasmOptions { memory_bytes_max: 1 << 20, ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    let body = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), &component(&[], body)).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!(error.kind, "OutOfMemory");
    assert_eq!(error.message, "the component wanted 1114112 bytes of memory, more than 1048576");
    // A batch that doesn't fit is the component's trouble too, and ends the same way.
    let error = failure(app.invoke(Value::Bytes(vec![0; 2 << 20].into())).await);
    assert_eq!(error.kind, "OutOfMemory");
}

#[tokio::test]
async fn a_trap_says_what_and_where() {
    let body = "(call $broken) (unreachable)) (func $broken (drop (i32.div_u (i32.const 1) (i32.const 0)))";
    let app = App::start("eventHubTrigger", &component(&[], body)).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("Trap", "wasm trap: integer divide by zero"));
    assert!(error.stack.contains("broken"), "{}", error.stack);
    let deep = "(call $deep) (unreachable)) (func $deep (call $deep) (call $deep)";
    let app = App::start("eventHubTrigger", &component(&[], deep)).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!(error.message, "wasm trap: call stack exhausted");
    assert!(error.stack.len() <= limits::MESSAGE_BYTES_MAX + '…'.len_utf8());
}

#[tokio::test]
async fn what_is_handed_over_is_bounded() {
    // 1,000 effects, each with the same 60,000 bytes as its body: 60 MB out of 60 kB.
    let body = r#"
      (local $list i32) (local $index i32) (local $to i32)
      (local.set $list (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 56000)))
      (loop $next
        (local.set $to (i32.add (local.get $list) (i32.mul (local.get $index) (i32.const 56))))
        (i32.store8 (local.get $to) (i32.const 4))
        (i32.store offset=48 (local.get $to) (i32.const 1024))
        (i32.store offset=52 (local.get $to) (i32.const 60000))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $index) (i32.const 1000))))
      (call $ok (local.get $list) (i32.const 1000))"#;
    let app = App::start("eventHubTrigger", &component(&[], body)).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!(error.kind, "Trap");
    assert!(error.message.contains("fuel"), "{}", error.message);
}

#[tokio::test]
async fn the_log_is_bounded() {
    let mut constants = Constants::default();
    let [at, size] = constants.text(&"é".repeat(limits::LOG_LINE_BYTES_MAX));
    let lines = limits::LOG_LINES_MAX + 7;
    let body = format!(
        "(local $left i32) (local.set $left (i32.const {lines}))
         (loop $again
           (call $log (i32.const 3) (i32.const {at}) (i32.const {size}))
           (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {NOTHING}"
    );
    let app = App::start("eventHubTrigger", &component(&constants.0, &body)).await;
    app.invoke(event("")).await.unwrap();
    let lines = app.lines.0.lock();
    assert_eq!(lines.len(), limits::LOG_LINES_MAX + 1);
    let (first, last) = (&lines[0], &lines[limits::LOG_LINES_MAX]);
    assert_eq!(first.message.len(), limits::LOG_LINE_BYTES_MAX + '…'.len_utf8());
    assert_eq!((first.level, first.category.as_str()), (LogLevel::Warning, "Function.f.User"));
    assert_eq!((first.invocation.as_deref(), first.is_system), (Some("i-1"), false));
    assert_eq!(last.message, "7 more lines of this invocation were dropped");
    assert!(last.is_system);
}

/// Counts the batches in state: one byte under the key `n`. Traps when the body of the first event isn't
/// empty, after it has counted.
fn counter() -> Vec<u8> {
    let mut constants = Constants::default();
    let [at, size] = constants.text("n");
    let body = format!(
        "(local $count i32)
         (call $get (i32.const {at}) (i32.const {size}) (i32.const 16))
         (if (i32.load8_u (i32.const 16)) (then (local.set $count (i32.load8_u (i32.load (i32.const 20))))))
         (i32.store8 (i32.const 32) (i32.add (local.get $count) (i32.const 1)))
         (call $set (i32.const {at}) (i32.const {size}) (i32.const 32) (i32.const 1) (i32.const 40))
         (if (i32.load8_u (i32.const 40)) (then (unreachable)))
         (if (i32.load offset=80 (i32.load offset=36 (local.get $batch))) (then (unreachable)))
         {NOTHING}"
    );
    component(&constants.0, &body)
}

#[tokio::test]
async fn state_goes_in_and_comes_out() {
    let app = App::start("eventHubTrigger", &counter()).await;
    let call =
        |state: &Value, body| invocation(vec![(STATE.into(), state.clone()), ("input".into(), event(body))]);
    let mut state = Value::json(&json!({ "other": "AAA=" }));
    for expected in ["AQ==", "Ag==", "Aw=="] {
        let result = app.worker.invoke(call(&state, ""), LIMIT).await.unwrap();
        assert_eq!(output(&result, STATE), json!({ "n": expected }));
        let (_, changes) = &result.outputs[0];
        state = apply_changes(&state, changes).unwrap();
    }
    assert_eq!(state, Value::json(&json!({ "n": "Aw==", "other": "AAA=" })));
    // A batch that fails changes nothing.
    failure(app.worker.invoke(call(&state, "x"), LIMIT).await);
    // A state that isn't one is refused.
    let refused = app.worker.invoke(call(&Value::json(&json!([])), ""), LIMIT).await;
    assert!(matches!(refused, Err(WorkerError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn state_has_room_for_so_many_keys() {
    // Sets the keys "A", "B", … until it is refused; then the number of keys is the length of the message.
    let body = r#"
      (local $count i32)
      (loop $next
        (i32.store8 (i32.const 32) (i32.add (i32.const 33) (local.get $count)))
        (call $set (i32.const 32) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 40))
        (if (i32.eqz (i32.load8_u (i32.const 40))) (then
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br $next))))
      (if (i32.load8_u (i32.const 41)) (then (unreachable)))
      (memory.fill (i32.const 2048) (i32.const 46) (local.get $count))
      (call $failed (i32.const 2048) (local.get $count))"#;
    let app = App::start("eventHubTrigger", &component(&[], body)).await;
    assert_eq!(failure(app.invoke(event("")).await).message.len(), limits::STATE_KEYS_MAX);
}

#[tokio::test]
async fn settings_can_be_read() {
    let mut constants = Constants::default();
    let [at, size] = constants.text("COLOUR");
    let body = format!(
        "(call $setting (i32.const {at}) (i32.const {size}) (i32.const 16))
         (call $failed (i32.load (i32.const 20)) (i32.load (i32.const 24)))"
    );
    let app = App::start("eventHubTrigger", &component(&constants.0, &body)).await;
    assert_eq!(failure(app.invoke(event("")).await).message, "blue");
}
