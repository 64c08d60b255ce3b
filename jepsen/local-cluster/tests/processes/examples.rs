//! The examples of the client crate, each run as a newcomer would.

use std::path::Path;
use std::process::Command;

use fleetline_local_cluster::{ClusterOptions, LocalCluster, fleetline_binary};

fn run(name: &str, arguments: &[&str]) -> String {
    let binary = fleetline_binary().unwrap();
    let example = binary.parent().unwrap_or(Path::new(".")).join("examples").join(name);
    let output = Command::new(&example).args(arguments).output().unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo build -p fleetline-client --examples` makes it", example.display())
    });
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `produce` writes, `consume` and `group` read.
#[test]
fn examples_work_together() {
    let cluster = LocalCluster::start(&ClusterOptions { nodes: 1, partitions: 1 }).unwrap();
    let context = cluster.context().display().to_string();
    run("produce", &[&context]);
    let read = run("consume", &[&context, "0", "3"]);
    assert_eq!(read.lines().count(), 3, "{read}");
    let grouped = run("group", &[&context, "readers", "3"]);
    assert!(grouped.lines().count() >= 3, "{grouped}");
}
