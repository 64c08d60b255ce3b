//! What can be set about function apps, and every bound with its reason.

use std::path::PathBuf;
use std::time::Duration;

/// Options of the functions tier of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionsOptions {
    /// Where apps are unpacked, by the hash of their archive. What is in it can be thrown away.
    pub scratch: PathBuf,
    /// Bytes of an archive. Default 32 MiB: an app with its packages; it is held in memory while it is
    /// stored and unpacked.
    pub archive_bytes_max: usize,
    /// Bytes of an app's unpacked files. Default 512 MiB, so that a small archive can't fill the disk.
    pub unpacked_bytes_max: u64,
    /// Files and folders of an app. Default 50,000: a folder of packages of Node has tens of thousands.
    pub unpacked_files_max: usize,
    /// Versions of an app that are kept, the active one included. Default 5.
    pub versions_kept: usize,
    /// Apps of a cluster. Default 64: each is a setting of the hub, which every node holds.
    pub apps_max: usize,
    /// How long an invocation may take when `host.json` doesn't say. Default 5 minutes.
    pub function_timeout: Duration,
    /// How long `host.json` may say at the most, and what "unbounded" there means. Default 30 minutes: a
    /// partition waits for its invocation.
    pub function_timeout_max: Duration,
    /// Records of one invocation when `host.json` doesn't say. Default 100.
    pub event_batch: usize,
    /// Bytes of the records of one invocation; one record always fits. Default 1 MiB.
    pub batch_bytes: usize,
    /// Bytes that are read from a partition at once. Default 1 MiB.
    pub read_bytes: u64,
    /// How long a read waits for a record. Default 20 s.
    pub read_wait: Duration,
    /// Invocations of one app at a time on this node. Default 64: what a worker's threads take.
    pub concurrency: usize,
    /// HTTP requests of one app that run or wait on this node; beyond it they get 429. Default 200.
    pub http_outstanding: usize,
    /// Bytes of an HTTP request's body. Default 8 MiB.
    pub http_body_max: usize,
    /// How long an HTTP body may take. Default 60 s.
    pub http_body_timeout: Duration,
    /// How long a worker lives without an invocation. Default 5 minutes.
    pub idle_stop: Duration,
    /// How long a worker that ends may finish what it runs. Default 5 s.
    pub stop_grace: Duration,
    /// How often a worker may end during one batch until the batch is given up. Default 3.
    pub crashes_max: u32,
    /// The shortest and the longest wait before something that failed is tried again. Default 200 ms, 30 s.
    pub backoff: (Duration, Duration),
    /// How long a member of a consumer group may be silent. Default 10 s.
    pub session_timeout: Duration,
    /// How long a partition that shall go to another node may be kept to finish its batch. Default 30 s.
    pub revoke_grace: Duration,
    /// How often lag is looked at. Default 5 s.
    pub scale_interval: Duration,
    /// Skipped records after which a checkpoint is stored although no function ran. Default 10,000.
    pub skip_checkpoint: u64,
    /// How long a checkpoint may stand before skipped records. Default 5 s: what is skipped looks like lag to
    /// other nodes.
    pub skip_interval: Duration,
    /// Lines of a function's log that a node keeps. Default 1,000.
    pub log_lines: usize,
    /// Bytes of a line. Default 4 KiB.
    pub log_line_bytes: usize,
    /// How long other nodes may take to answer. Default 5 s.
    pub peer_timeout: Duration,
}

impl FunctionsOptions {
    /// The defaults, with apps unpacked in `scratch`.
    pub fn new(scratch: impl Into<PathBuf>) -> FunctionsOptions {
        FunctionsOptions {
            scratch: scratch.into(),
            archive_bytes_max: 32 << 20,
            unpacked_bytes_max: 512 << 20,
            unpacked_files_max: 50_000,
            versions_kept: 5,
            apps_max: 64,
            function_timeout: Duration::from_secs(5 * 60),
            function_timeout_max: Duration::from_secs(30 * 60),
            event_batch: 100,
            batch_bytes: 1 << 20,
            read_bytes: 1 << 20,
            read_wait: Duration::from_secs(20),
            concurrency: 64,
            http_outstanding: 200,
            http_body_max: 8 << 20,
            http_body_timeout: Duration::from_secs(60),
            idle_stop: Duration::from_secs(5 * 60),
            stop_grace: Duration::from_secs(5),
            crashes_max: 3,
            backoff: (Duration::from_millis(200), Duration::from_secs(30)),
            session_timeout: Duration::from_secs(10),
            revoke_grace: Duration::from_secs(30),
            scale_interval: Duration::from_secs(5),
            skip_checkpoint: 10_000,
            skip_interval: Duration::from_secs(5),
            log_lines: 1_000,
            log_line_bytes: 4 << 10,
            peer_timeout: Duration::from_secs(5),
        }
    }
}

/// Records of one invocation at the most, whatever `host.json` says: a batch is held in memory, and its
/// metadata is an object per record.
pub(crate) const EVENT_BATCH_MAX: usize = 5_000;
/// Bytes of a blob's part: a document has at most 64 KiB.
pub(crate) const CHUNK_BYTES: usize = 60 << 10;
/// Parts of a blob that are read or written at a time: an answer between nodes has at most 4 MiB.
pub(crate) const CHUNKS_AT_ONCE: usize = 32;
/// Keys of a function's state in one partition, as components see it (`broker/wasm`).
pub(crate) const STATE_KEYS_MAX: usize = 64;
/// Bytes of such a key.
pub(crate) const STATE_KEY_BYTES_MAX: usize = 256;
/// Bytes of such a value.
pub(crate) const STATE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Effects of one invocation: a function that loops doesn't fill the memory.
pub(crate) const EFFECTS_MAX: usize = 10_000;
/// Settings of an app, and their bytes together: all of an app is one setting of the hub (48 KiB).
pub(crate) const APP_SETTINGS_MAX: usize = 256;
/// See [`APP_SETTINGS_MAX`].
pub(crate) const APP_SETTINGS_BYTES_MAX: usize = 24 << 10;
/// Keys of one app, for the same reason.
pub(crate) const APP_KEYS_MAX: usize = 128;
/// Functions of an app.
pub(crate) const FUNCTIONS_MAX: usize = 200;
/// Bytes of what the hub stores about an app's functions.
pub(crate) const METADATA_BYTES_MAX: usize = 1 << 20;
