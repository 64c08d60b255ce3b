//! Real `fleetline` processes on one machine, under faults.
//!
//! Used by the tests in `tests/` and by later campaigns. A [`LocalCluster`] starts nodes of the
//! real binary with folders under one temporary directory, waits until they are ready, and can
//! kill, pause, resume and restart them. The tests account for what clients saw (`account.rs`) and
//! record it as a history, which `fleetline-checker` judges (`journal.rs`).
//!
//! Not here: what to do with a cluster (the tests).

mod binary;
mod http;
mod process;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use binary::fleetline_binary;
pub use http::http_get;
pub use process::{NodeAddresses, NodeProcess};

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// How many partitions the hub has.
    pub partitions: u32,
}

/// A cluster of processes. Dropping it kills them and removes their folders.
#[derive(Debug)]
pub struct LocalCluster {
    root: tempfile::TempDir,
    nodes: Vec<NodeProcess>,
    /// How many nodes were ever started.
    started: usize,
}

impl LocalCluster {
    /// Starts a cluster and waits until every node is ready and every partition has its replicas.
    ///
    /// # Errors
    /// When a process doesn't start or ends; its last output is in the error.
    pub fn start(options: &ClusterOptions) -> io::Result<LocalCluster> {
        let root = tempfile::tempdir()?;
        let mut cluster = LocalCluster { root, nodes: Vec::new(), started: 1 };
        let partitions = options.partitions.to_string();
        let mut first = cluster.new_node(1)?;
        first.start(&["--partitions", &partitions])?;
        first.wait_ready()?;
        cluster.nodes.push(first);
        for _ in 2..=options.nodes {
            cluster.add_node()?;
        }
        cluster.wait_replicated(options.nodes.min(3))?;
        Ok(cluster)
    }

    /// Starts another node, which joins. Gives its place.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn add_node(&mut self) -> io::Result<usize> {
        let token = self.join_token()?;
        self.started += 1;
        let mut node = self.new_node(self.started)?;
        node.start(&["--join", &token])?;
        node.wait_ready()?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The place of the node with this id, by what it has written into its folder.
    pub fn place_of(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| {
            let text = std::fs::read_to_string(node.folder().join("node.json")).unwrap_or_default();
            let identity: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            identity["node"] == id
        })
    }

    /// Takes a node out of the account: it was killed and never comes back.
    pub fn forget(&mut self, place: usize) {
        drop(self.nodes.remove(place));
    }

    fn new_node(&self, number: usize) -> io::Result<NodeProcess> {
        NodeProcess::new(number, &self.root.path().join(format!("n{number}")))
    }

    /// Makes a token by which a node may join.
    ///
    /// # Errors
    /// When the command fails; its output is in the error.
    pub fn join_token(&self) -> io::Result<String> {
        let output = self.fleetline(&["cluster", "token"])?;
        let token = output.split_whitespace().find(|word| word.starts_with("flt1."));
        token.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no token in: {output}")))
    }

    /// Runs the command-line tool against the cluster and gives its standard output.
    ///
    /// # Errors
    /// When it fails; its output is in the error.
    pub fn fleetline(&self, arguments: &[&str]) -> io::Result<String> {
        let output = std::process::Command::new(fleetline_binary()?)
            .args(arguments)
            .env("FLEETLINE_CONTEXT", self.context())
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(io::Error::other(format!(
                "fleetline {arguments:?} failed: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }

    /// The folder with what a client needs. Its endpoints name all nodes.
    pub fn context(&self) -> PathBuf {
        self.root.path().join("n1/client")
    }

    /// Writes the endpoints of all nodes into the client's folder, so that a client can start while
    /// any one of them is down.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_endpoints(&self) -> io::Result<()> {
        let lines: Vec<String> = self.nodes.iter().map(|node| node.addresses().client.to_string()).collect();
        std::fs::write(self.context().join("endpoints"), lines.join("\n") + "\n")
    }

    /// The folder that holds everything.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A node by its place, from 0.
    pub fn node(&mut self, place: usize) -> &mut NodeProcess {
        &mut self.nodes[place]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Waits until every partition has `replicas` voters and a leader, as the first node that
    /// answers tells it.
    ///
    /// # Errors
    /// When a process has ended.
    pub fn wait_replicated(&mut self, replicas: usize) -> io::Result<()> {
        self.wait_status(|status| {
            let partitions = status["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
            !partitions.is_empty()
                && partitions.iter().all(|partition| {
                    partition["voters"].as_array().is_some_and(|voters| voters.len() == replicas)
                        && !partition["leader"].is_null()
                })
        })
    }

    /// Waits until `fleetline cluster status --json` satisfies `check`.
    ///
    /// # Errors
    /// When a process that should run has ended.
    pub fn wait_status(&mut self, check: impl Fn(&serde_json::Value) -> bool) -> io::Result<()> {
        loop {
            for node in &mut self.nodes {
                node.check_alive()?;
            }
            if let Ok(text) = self.fleetline(&["cluster", "status", "--json"])
                && let Ok(status) = serde_json::from_str(&text)
                && check(&status)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
