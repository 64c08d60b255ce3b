//! What a node says about its workers, and every bound with its reason.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How workers run on this node.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for launchers and the workers' homes. Made when missing; its content is this crate's.
    pub scratch: PathBuf,
    /// The Python interpreter; its packages are `azure-functions`, `grpcio` and `protobuf`.
    pub python: PathBuf,
    /// The Node executable: a path, or a name that is looked up in `PATH`.
    pub node: PathBuf,
    /// The `node_modules` with `@azure/functions` and `@grpc/grpc-js`.
    pub node_modules: PathBuf,
    /// User that workers run as.
    pub run_as: RunAs,
    /// Bytes of memory that one worker process, with what it has started, may hold. Default 1.5 GiB, as
    /// in the original's consumption plan. Too low: apps with large libraries are ended; too high: one
    /// app can take the node's memory.
    pub memory: u64,
    /// Invocations that one process has at a time. Default 200. Too low: slow functions leave the node
    /// idle; too high: a process that ends takes more invocations with it. Further ones are `NotSent`.
    pub in_flight: usize,
    /// Bytes of one message between node and worker. Default 64 MiB. A larger invocation is refused, a
    /// larger result is a failure of its invocation.
    pub message_bytes: usize,
    /// Bytes of one log line; the rest is cut. Default 16 KiB.
    pub line_bytes: usize,
    /// Log lines a second that an app's workers together may write, over five seconds; further ones are
    /// dropped and counted. Default 2000.
    pub lines_per_second: u32,
    /// Time limits of starting and ending.
    pub limits: Limits,
    /// What is done when processes end by themselves.
    pub restarts: Restarts,
    /// The version that workers are told the host has. Libraries compare it.
    pub host_version: String,
}

impl Options {
    /// Options for what `broker/workers/setup.sh PREFIX` has made.
    #[must_use]
    pub fn of_prefix(scratch: &Path, prefix: &Path) -> Self {
        Self {
            scratch: scratch.to_owned(),
            python: prefix.join("python/bin/python"),
            node: PathBuf::from("node"),
            node_modules: prefix.join("node/node_modules"),
            run_as: RunAs::Auto,
            memory: 3 << 29,
            in_flight: 200,
            message_bytes: 64 << 20,
            line_bytes: 16 << 10,
            lines_per_second: 2000,
            limits: Limits::default(),
            restarts: Restarts::default(),
            host_version: "4.1037.0".to_owned(),
        }
    }
}

/// User that workers run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// `nobody` when the node is root and `nobody` can reach interpreter and app; else the node's own
    /// user, and a log line says that the app could then read what the node can.
    Auto,
    /// The node's own user.
    Node,
    /// This user and group, or the app doesn't start.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// Time limits of starting and ending a process (§5).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From its start until it says hello. Default 60 s.
    pub start: Duration,
    /// Until it has answered the initialisation, in which Node, and Python's own packages, import the
    /// app. Default 2 min, which the original gives Node; it gives Python 10 s, too short for an app that
    /// imports a large library from a cold disk.
    pub init: Duration,
    /// Until it has answered what functions there are, and again until all are loaded. Default 60 s.
    pub load: Duration,
    /// For the other invocations of a process that is ended because one has run out of time, and for a
    /// process that was told to end. Default 5 s.
    pub terminate: Duration,
    /// Between the starts of an app's processes after the first. Default 10 s.
    pub between: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            init: Duration::from_secs(120),
            load: Duration::from_secs(60),
            terminate: Duration::from_secs(5),
            between: Duration::from_secs(10),
        }
    }
}

/// What is done when processes end by themselves (§5, crash policy).
#[derive(Debug, Clone, Copy)]
pub struct Restarts {
    /// Failures in `window` after which the app is given up, for each of its processes. Default 3.
    pub failures: u32,
    /// How long a failure counts. Default 30 min.
    pub window: Duration,
    /// Wait before the first restart; it doubles with each failure in the window. Default 500 ms.
    pub first_wait: Duration,
    /// Longest wait. Default 1 min.
    pub longest_wait: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            failures: 3,
            window: Duration::from_secs(30 * 60),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// Processes of one app (§5: "`FUNCTIONS_WORKER_PROCESS_COUNT` 1 (max 10)").
pub(crate) const MOST_PROCESSES: usize = 10;
/// Functions of one app. The original has no limit; an app of this size is a mistake.
pub(crate) const MOST_FUNCTIONS: usize = 1000;
/// Bytes of one `function.json`.
pub(crate) const LONGEST_FUNCTION_JSON: u64 = 1 << 20;
/// Processes and threads of the user that workers run as, all of them together: room for ten processes
/// with a thousand threads each, and an end for one that forks without end.
pub(crate) const MOST_THREADS: u64 = 12_000;
/// Connections to the gate. Only workers come here, one each; whoever else does is held off.
pub(crate) const MOST_CONNECTIONS: usize = 256;
/// Room that a message's frame takes beside the values in it.
pub(crate) const MESSAGE_MARGIN: usize = 4096;
