//! The data folder: one process at a time, and a restart that finds everything.

use std::process::Command;

use fleetline_local_cluster::{ClusterOptions, LocalCluster, fleetline_binary};

/// A second process on the folder of a running node refuses, and says why; the first isn't disturbed.
#[test]
fn two_processes_on_one_folder() {
    let mut cluster = LocalCluster::start(&ClusterOptions { nodes: 1, partitions: 1 }).unwrap();
    let folder = cluster.node(0).folder().to_owned();
    let second = Command::new(fleetline_binary().unwrap())
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--peer-listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ])
        .arg("--data")
        .arg(&folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains("in use") || text.contains("another process"), "{text}");
    cluster.wait_replicated(1).unwrap();
}

/// What the command line wrote before a clean stop it reads after the restart; wrong usage is told apart.
#[test]
fn a_restart_finds_everything() {
    let mut cluster = LocalCluster::start(&ClusterOptions { nodes: 1, partitions: 2 }).unwrap();
    let summary = cluster.fleetline(&["stream", "produce", "--count", "500", "--size", "50"]).unwrap();
    assert!(summary.starts_with("ok 500  failed 0  unknown 0"), "{summary}");
    cluster.node(0).stop().unwrap();
    cluster.node(0).start(&[]).unwrap();
    cluster.node(0).wait_ready().unwrap();
    let read = cluster.fleetline(&["stream", "consume", "--json", "--max", "500"]).unwrap();
    assert_eq!(read.lines().count(), 500);
    let error = cluster.fleetline(&["stream", "consume", "--from", "yesterday"]).unwrap_err();
    assert!(error.to_string().contains("use earliest, latest"), "{error}");
}
