//! Every bound of the protocol, and where it comes from.
//!
//! [`Limits`] holds those that a cluster may configure; the constants are fixed.

/// Bytes of a message from a client unless configured: the default of ASP.NET Core.
pub const MESSAGE_BYTES_DEFAULT: usize = 32 * 1_024;
/// Bytes of the largest message that the length prefix of MessagePack can announce.
pub const FRAME_BYTES_MAX: usize = 0x7fff_ffff;
/// Bytes of the longest length prefix: 5 × 7 bits hold 31.
pub(crate) const PREFIX_BYTES_MAX: usize = 5;
/// Levels of arrays and objects in a value, both ways. Real arguments have a handful; walking a value
/// takes stack for each level, and the JSON parser that we use ends at 128.
pub const DEPTH_MAX: usize = 64;
/// Arguments of an invocation from a client unless configured; real methods have a handful.
pub const ARGUMENTS_DEFAULT: usize = 256;
/// Streams that a client opens with one invocation unless configured.
pub const STREAM_IDS_DEFAULT: usize = 16;
/// Headers of a message. They are read and dropped; the Python client sends one.
pub const HEADERS_MAX: usize = 64;

/// Bytes of a handshake request with its separator; real ones have about 40.
pub const HANDSHAKE_BYTES_MAX: usize = 1_024;
/// The highest version of the hub protocol that we speak.
pub const HUB_PROTOCOL_VERSION_MAX: i64 = 2;
/// The version of the hub protocol from which on a connection can be resumed.
pub const STATEFUL_VERSION_MIN: i64 = 2;
/// The highest version of negotiation that we speak.
pub const NEGOTIATE_VERSION_MAX: u32 = 1;

/// Milliseconds that a client has for its handshake unless its token says otherwise.
pub const HANDSHAKE_TIMEOUT_MS_DEFAULT: u64 = 15_000;
/// Milliseconds without a message of ours after which we ping. Clients ping at most as often as we do.
pub const KEEP_ALIVE_MS_DEFAULT: u64 = 15_000;
/// Milliseconds without a byte of the client after which it counts as gone.
pub const CLIENT_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Milliseconds that a connection waits for its client to come back on a new socket.
pub const RESUME_GRACE_MS_DEFAULT: u64 = 15_000;
/// Bytes that a connection keeps until its client acknowledges them; the default of both sides.
pub const REPLAY_BYTES_DEFAULT: usize = 100_000;
/// Messages that a connection keeps until they are acknowledged: small ones cost more than their bytes.
pub const REPLAY_MESSAGES_MAX: usize = 4_096;
/// Milliseconds between two acknowledgements of ours: at most one a second, as the clients do.
pub const ACK_INTERVAL_MS: u64 = 1_000;
/// Invocations of one client that wait for their completion.
pub const OPEN_INVOCATIONS_DEFAULT: usize = 100;
/// Bytes of an invocation's id. Clients count in decimal digits; a bound keeps open ids small.
pub const INVOCATION_ID_BYTES_MAX: usize = 256;

/// Bytes of a JSON web token. The public service takes 4 KiB in a URL; headers may hold more claims.
pub const TOKEN_BYTES_MAX: usize = 16 * 1_024;
/// Seconds by which the clock of a token's maker may be ahead of ours.
pub const CLOCK_SKEW_SECS: u64 = 300;
/// Claims of a token that are looked at.
pub const CLAIMS_MAX: usize = 256;
/// Bytes of a connection string; ours.
pub const CONNECTION_STRING_BYTES_MAX: usize = 4_096;

/// Bytes of the body of a REST request.
pub const REST_BODY_BYTES_MAX: usize = 1_024 * 1_024;
/// Bytes of path and query of a REST request: the public service takes 16 KB of headers.
pub const REST_TARGET_BYTES_MAX: usize = 16 * 1_024;
/// Characters of a hub's or application's name.
pub const HUB_CHARS_MAX: usize = 128;
/// Characters of a group's name.
pub const GROUP_CHARS_MAX: usize = 1_024;
/// Characters of a user's id; ours.
pub const USER_CHARS_MAX: usize = 1_024;
/// Characters of a connection's id; ours, about three times what we mint.
pub const CONNECTION_CHARS_MAX: usize = 128;
/// Connections that a REST request may exclude; about as many as its target has room for.
pub const EXCLUDED_MAX: usize = 512;
/// Seconds that a user stays in a group when the request doesn't say: a year.
pub const USER_GROUP_TTL_SECS_DEFAULT: u64 = 365 * 24 * 3_600;
/// Groups that are kept of a user whose memberships have no `ttl`: the newest.
pub const USER_GROUPS_MAX: usize = 100;

/// Templates of upstreams in the settings; ours.
pub const UPSTREAMS_MAX: usize = 128;
/// Bytes of an upstream's answer.
pub const UPSTREAM_REPLY_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Milliseconds that a long poll hangs when there is nothing to say: clients give up after 100 s.
pub const POLL_TIMEOUT_MS_DEFAULT: u64 = 90_000;
/// Milliseconds without a poll after which a connection over long polling is gone.
pub const POLL_GRACE_MS_DEFAULT: u64 = 15_000;
/// Bytes of the answer to a poll, unless a single message is longer.
pub const POLL_BYTES_DEFAULT: usize = 64 * 1_024;

/// What a decoder lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message without its frame. At least 1, at most [`FRAME_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// Levels of arrays and objects in a message's values. At most [`DEPTH_MAX`].
    pub depth_max: usize,
    /// Arguments of an invocation.
    pub arguments_max: usize,
    /// Streams that an invocation opens.
    pub stream_ids_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            depth_max: DEPTH_MAX,
            arguments_max: ARGUMENTS_DEFAULT,
            stream_ids_max: STREAM_IDS_DEFAULT,
        }
    }
}
