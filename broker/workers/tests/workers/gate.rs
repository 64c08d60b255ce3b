//! Who isn't expected doesn't get in.

use std::collections::BTreeMap;

use crate::kit::{LONG, Node, acted, app, with_settings};

/// A stranger with a right id and a wrong secret, from beside a running worker: refused.
#[tokio::test]
async fn a_stranger_is_refused() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<_> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let scratch = node.scratch.path().to_str()?;
        words.iter().any(|word| word.contains(scratch)).then_some(words)
    });
    let words: Vec<String> = processes.flatten().collect();
    let after = |name: &str| words[words.iter().position(|word| word == name).unwrap() + 1].clone();
    let (port, id) = (after("--port"), after("--workerId"));
    // Nothing on the command line lets anyone in.
    let script = format!(
        "import grpc\n\
         channel = grpc.insecure_channel('127.0.0.1:{port}')\n\
         call = channel.stream_stream('/AzureFunctionsRpcMessages.FunctionRpc/EventStream')\n\
         for metadata in ((), (('fleetline-worker', '{id}'), ('fleetline-secret', '0' * 64))):\n\
         \x20   try:\n\
         \x20       next(call(iter([b'']), metadata=metadata))\n\
         \x20       print('let in')\n\
         \x20   except grpc.RpcError as error:\n\
         \x20       print(error.code().name)\n"
    );
    let python = crate::kit::prefix().join("python/bin/python");
    let output = tokio::process::Command::new(python).arg("-c").arg(script).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "UNAUTHENTICATED\nUNAUTHENTICATED\n", "{output:?}");
    acted(&*worker, "number").await;
    worker.stop(LONG).await;
}

/// The setting decides what an app is written in; else its folder does.
#[tokio::test]
async fn kinds_know_their_apps() {
    let node = Node::start().await;
    let name = |app| node.kind_of(&app).name();
    assert_eq!(name(app("python_v2")), "python");
    assert_eq!(name(app("python_v1")), "python");
    assert_eq!(name(app("node_v4")), "node");
    assert_eq!(name(with_settings("node_v4", &[("FUNCTIONS_WORKER_RUNTIME", "Python")])), "python");
    let mut empty = app("python_v2");
    empty.root = node.scratch.path().to_owned();
    empty.settings = BTreeMap::new();
    assert!(!node.workers.python().fits(&empty) && !node.workers.node().fits(&empty));
}
