//! What an app's owner hears about functions that can't be loaded; the others run.

use std::sync::Arc;
use std::time::Duration;

use fleetline_wasm::{WasmHost, WasmKind, WasmOptions};
use fleetline_workers::{WorkerError, WorkerKind};
use serde_json::json;

use crate::app::{LIMIT, Lines, all_outputs, event, folder, invocation, start, write_function};
use crate::guest::{echo, module};

#[tokio::test]
async fn functions_that_do_not_load_leave_the_others() {
    let root = tempfile::tempdir().unwrap();
    let write = |name, trigger, outputs: &serde_json::Value, bytes: &[u8]| {
        write_function(root.path(), name, trigger, outputs, bytes);
    };
    let none = json!([]);
    let state = json!([{ "type": "twin", "name": "$state", "direction": "out" }]);
    let input = json!([{ "type": "blob", "name": "b", "direction": "in" }]);
    write("f", "eventHubTrigger", &all_outputs(), &echo());
    write("bytes", "eventHubTrigger", &none, b"not wasm");
    write("module", "eventHubTrigger", &none, &wat::parse_str("(module)").unwrap());
    write("world", "eventHubTrigger", &none, b"\0asm\x0d\0\x01\0");
    write("queue", "queueTrigger", &none, &echo());
    write("blob", "eventHubTrigger", &input, &echo());
    write("out", "eventHubTrigger", &json!([{ "type": "queue", "name": "q", "direction": "out" }]), &echo());
    write("reserved", "eventHubTrigger", &state, &echo());
    let host = WasmHost::new(WasmOptions::default()).unwrap();
    let worker = start(&host, root.path(), &Arc::new(Lines::default())).await.unwrap();
    let expected = [
        ("blob", "no inputs of type blob"),
        ("bytes", "did not compile"),
        ("f", ""),
        ("module", "did not compile"),
        ("out", "no outputs of type queue"),
        ("queue", "can't have a queueTrigger"),
        ("reserved", "$state is reserved"),
        ("world", "is not a function"),
    ];
    assert_eq!(worker.functions().len(), expected.len());
    for (function, (name, reason)) in worker.functions().iter().zip(expected) {
        assert_eq!(function.metadata.name, name);
        let error = function.load_error.clone().unwrap_or_default();
        assert!(error.contains(reason) && error.is_empty() == reason.is_empty(), "{name}: {error}");
    }
    let call = |name: &str| {
        let inputs = vec![("input".into(), event("x"))];
        worker.invoke(fleetline_worker::Invocation { function: name.into(), ..invocation(inputs) }, LIMIT)
    };
    assert!(call("f").await.is_ok());
    for name in ["queue", "nowhere"] {
        assert!(matches!(call(name).await, Err(WorkerError::Refused(_))), "{name}");
    }
}

/// Code of a component runs before its first batch; then, too, it is bounded.
#[tokio::test]
async fn a_component_that_does_not_start_does_not_load() {
    let starting = |start: &str| {
        module(&format!(
            r#"(module
              (memory (export "memory") 1)
              (func $start {start})
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (unreachable))
              (func (export "handle-batch") (param i32) (result i32) (unreachable))
              (start $start))"#
        ))
    };
    let bodies = [
        ("(drop (memory.grow (i32.const 100)))", LIMIT, "wanted 6619136 bytes of memory"),
        ("(loop $again (br $again))", Duration::from_millis(50), "interrupt"),
        ("(unreachable)", LIMIT, "unreachable"),
    ];
    for (body, time_max, reason) in bodies {
        let root = tempfile::tempdir().unwrap();
        write_function(root.path(), "f", "timerTrigger", &json!([]), &starting(body));
        let options = WasmOptions { time_max, memory_bytes_max: 1 << 20, ..WasmOptions::default() };
        let host = WasmHost::new(options).unwrap();
        let worker = start(&host, root.path(), &Arc::new(Lines::default())).await.unwrap();
        let error = worker.functions()[0].load_error.clone().unwrap_or_default();
        assert!(error.contains("does not start") && error.contains(reason), "{body}: {error}");
    }
}

#[tokio::test]
async fn other_apps_are_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let kind = WasmKind::new(WasmHost::new(WasmOptions::default()).unwrap());
    assert!(!kind.fits(&folder(root.path())));
    let started = kind.start(folder(root.path()), Arc::new(Lines::default())).await;
    assert!(matches!(started.map(|_| ()), Err(WorkerError::NotStarted { kind: "wasm", .. })));
    write_function(root.path(), "f", "eventHubTrigger", &json!([]), &echo());
    assert!(kind.fits(&folder(root.path())));
    let mut python = folder(root.path());
    python.settings.insert("FUNCTIONS_WORKER_RUNTIME".into(), "python".into());
    assert!(!kind.fits(&python));
}

#[test]
fn options_out_of_range_are_refused() {
    let wrong = [
        WasmOptions { running_max: 0, ..WasmOptions::default() },
        WasmOptions { memory_bytes_max: 0, ..WasmOptions::default() },
        WasmOptions { memory_bytes_max: 8 << 30, ..WasmOptions::default() },
    ];
    for options in wrong {
        assert!(WasmHost::new(options.clone()).is_err(), "{options:?}");
    }
}
