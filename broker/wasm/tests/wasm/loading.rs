//! What an app's owner hears about functions that can't be loaded; the others run.

use std::sync::Arc;

use fleetline_wasm::{WasmHost, WasmKind, WasmOptions};
use fleetline_workers::{WorkerError, WorkerKind};
use serde_json::json;

use crate::app::{LIMIT, Lines, all_outputs, event, folder, invocation, start, write_function};
use crate::guest::echo;

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
