//! Options of the WASM host.

use std::path::PathBuf;
use std::time::Duration;

/// What the node's owner may choose.
#[derive(Debug, Clone)]
pub struct WasmOptions {
    /// Longest run of an invocation; a shorter limit of the engine's wins. Default 5 s: a batch takes
    /// milliseconds, and a partition waits for it. Too low fails honest batches on a busy machine.
    pub time_max: Duration,
    /// Most memory that an instance may have. Default 64 MiB: a JavaScript component starts with about
    /// 12 MiB. Memory in use is at most this times `running_max`. Rounded up to 64 KiB.
    pub memory_bytes_max: usize,
    /// Invocations that run at once, each on a thread of its own. Default 16.
    pub running_max: usize,
    /// Invocations that wait for a thread; more are given back as not sent. Default 256: one for each
    /// partition of a large node.
    pub waiting_max: usize,
    /// Folder for compiled components, of this node alone. Without one they are compiled anew at each
    /// start of an app, which takes seconds for large ones.
    pub cache: Option<PathBuf>,
}

impl Default for WasmOptions {
    fn default() -> Self {
        Self {
            time_max: Duration::from_secs(5),
            memory_bytes_max: 64 << 20,
            running_max: 16,
            waiting_max: 256,
            cache: None,
        }
    }
}
