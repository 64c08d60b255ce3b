//! Every bound of the console, with its reason.

use std::time::Duration;

/// Bytes of a token. One that the page signs has some 200.
pub const TOKEN_BYTES_MAX: usize = 4 << 10;

/// How long a token may be valid: a working day and a night. The page keeps it in the browser's session
/// only, so a longer one would outlive its use.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How far the clock of whoever signed may be ahead.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Failed sign-ins of one address (an IPv6 network of 64 bits counts as one) before it has to wait.
pub const FAILURES_MAX: u32 = 10;

/// How long failures count.
pub const FAILURES_WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered for that. Beyond, the oldest are forgotten: some 100 bytes each.
pub const FAILURES_ADDRESSES_MAX: usize = 10_000;

/// Bytes of a request's body. A change of desired properties has 32 KiB at the most.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a body may take.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// Devices of one page of the list.
pub const PAGE_MAX: usize = 200;

/// Devices of a page when the caller says nothing.
pub const PAGE_DEFAULT: usize = 50;

/// Identities that one request for a list looks at before it answers with what it has and a place to go
/// on from. A search over more devices takes more requests.
pub const LIST_SCAN_MAX: usize = 4_000;

/// Identities that the leader is asked for at a time; with full twins they are some megabytes.
pub const LIST_ASK: u32 = 200;

/// Bytes of a search text.
pub const SEARCH_BYTES_MAX: usize = 128;

/// Modules of a device that are shown.
pub const MODULES_MAX: u32 = 50;

/// Records of one answer with telemetry.
pub const TELEMETRY_MAX: usize = 500;

/// Records of an answer when the caller says nothing.
pub const TELEMETRY_DEFAULT: usize = 100;

/// Records that a search for a device's telemetry steps back at a time.
pub const SCAN_STEP_RECORDS: u64 = 4_096;

/// Records that such a search looks at.
pub const SCAN_RECORDS_MAX: u64 = 65_536;

/// Bytes that such a search reads.
pub const SCAN_BYTES_MAX: u64 = 16 << 20;

/// Searches for telemetry at the same time: memory of `SCAN_BYTES_MAX` each at the worst.
pub const SCANS_MAX: usize = 2;

/// Bytes of a record's body that are shown whole; a longer one is cut and marked.
pub const BODY_SHOWN_MAX: usize = 16 << 10;

/// Properties of a record that are shown.
pub const PROPERTIES_SHOWN_MAX: usize = 32;

/// Consumer groups whose lag is shown.
pub const GROUPS_MAX: usize = 20;

/// How long the counts of all partitions are good for. They cost a question to every leader.
pub const COUNTS_TTL: Duration = Duration::from_secs(2);

/// How long leaders may take to tell their counts. What is missing then is missing in the answer.
pub const COUNTS_WAIT: Duration = Duration::from_secs(2);

/// Questions to leaders at the same time, for counts.
pub const COUNTS_AT_ONCE: usize = 16;

/// How often the feed says what is new. Twice a second looks alive; four times is the most.
pub const TICK: Duration = Duration::from_millis(500);

/// Bytes that a tick reads over all partitions. What comes faster is counted, not looked at.
pub const TICK_BYTES_MAX: u64 = 2 << 20;

/// The least that a tick asks of one partition.
pub const TICK_PARTITION_BYTES_MIN: u64 = 64 << 10;

/// Records that a reader of the feed may be behind; beyond, it leaps to the end.
pub const FEED_LAG_MAX: u64 = 8_192;

/// Records before the end of each partition that a feed begins with, so that a page isn't empty.
pub const FEED_TAIL_RECORDS: u64 = 2_048;

/// Positions of one tick.
pub const POSITIONS_MAX: usize = 500;

/// Devices whose last position is remembered for pages that open later.
pub const POSITIONS_KEPT_MAX: usize = 5_000;

/// Bytes of a body in which a position is looked for.
pub const POSITION_BODY_MAX: usize = 8 << 10;

/// Records of one tick that are shown.
pub const SAMPLE_MAX: usize = 20;

/// Characters of a sampled record's body.
pub const SAMPLE_TEXT_MAX: usize = 400;

/// Partitions that a tick speaks of.
pub const TICK_PARTITIONS_MAX: usize = 256;
