//! The sample, built by `samples/build.sh`: a real toolchain's component.

use std::path::PathBuf;
use std::sync::Arc;

use fleetline_wasm::{STATE, WasmHost, WasmOptions, apply_changes};
use fleetline_worker::{Invocation, Value};
use fleetline_workers::Worker;
use serde_json::{Value as Json, json};

use crate::app::{LIMIT, Lines, output, start};

/// Where the built samples are.
fn samples() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm-samples");
    let folder = std::env::var_os("FLEETLINE_WASM_SAMPLES").map_or_else(|| default.into(), PathBuf::from);
    assert!(
        folder.join("averages/function.wasm").is_file(),
        "the samples aren't in {}: build them with broker/wasm/samples/build.sh {}",
        folder.display(),
        folder.display()
    );
    folder
}

async fn invoke(worker: &dyn Worker, state: &Value, events: &[(&str, Json)]) -> (Json, Value) {
    let bodies = events.iter().map(|(_, body)| body.to_string()).collect();
    let system = events.iter().map(|(device, _)| json!({ "iothub-connection-device-id": device }));
    let sequences: Vec<usize> = (0..events.len()).collect();
    let call = Invocation {
        id: "i".into(),
        function: "averages".into(),
        inputs: vec![("events".into(), Value::TextList(bodies)), (STATE.into(), state.clone())],
        metadata: vec![
            ("SystemPropertiesArray".into(), Value::json(&system.collect())),
            ("SequenceNumberArray".into(), Value::json(&json!(sequences))),
        ],
        ..Invocation::default()
    };
    let result = worker.invoke(call, LIMIT).await.unwrap();
    let changes = result.outputs.iter().find(|(name, _)| name == STATE).unwrap();
    (output(&result, "screen"), apply_changes(state, &changes.1).unwrap())
}

#[tokio::test]
async fn averages_move_over_batches() {
    let root = samples();
    let cache = Some(root.join(".cache"));
    let host = WasmHost::new(WasmOptions { cache, ..WasmOptions::default() }).unwrap();
    let lines = Arc::new(Lines::default());
    let worker = start(&host, &root, &lines).await.unwrap();
    assert_eq!(worker.functions()[0].load_error, None);
    let sample = |altitude: i32, speed: i32| json!({ "altitude": altitude, "groundSpeed": speed });
    let first = [("a", sample(100, 10)), ("b", sample(500, 50)), ("a", sample(200, 30)), ("a", json!("?"))];
    let (shown, state) = invoke(&*worker, &Value::Null, &first).await;
    let averages = |device: &str, samples: i32, altitude: [f64; 2], speed: [f64; 2]| {
        let pair = |[mean, max]: [f64; 2]| json!({ "mean": mean, "max": max });
        let (altitude, speed) = (pair(altitude), pair(speed));
        let argument =
            json!({ "deviceId": device, "samples": samples, "altitude": altitude, "groundSpeed": speed });
        json!({ "target": "averages", "arguments": [argument] })
    };
    let numbers = |shown: &Json| shown.to_string().replace(".0", "");
    let expected =
        json!([averages("a", 2, [150., 200.], [20., 30.]), averages("b", 1, [500., 500.], [50., 50.])]);
    assert_eq!(numbers(&sorted(&shown)), numbers(&sorted(&expected)));
    assert!(lines.0.lock()[0].message.starts_with("1 events"), "{:?}", lines.0.lock());
    // Twenty more: the first two have left the window.
    let more: Vec<_> = (0..20).map(|_| ("a", sample(300, 40))).collect();
    let (shown, _) = invoke(&*worker, &state, &more).await;
    let expected = json!([averages("a", 20, [300., 300.], [40., 40.])]);
    assert_eq!(numbers(&sorted(&shown)), numbers(&sorted(&expected)));
}

/// With members in one order: the component's JSON has its own.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Array(list) => list.iter().map(sorted).collect(),
        Json::Object(map) => {
            let mut members: Vec<_> = map.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Json::Object(members.into_iter().collect())
        }
        other => other.clone(),
    }
}
