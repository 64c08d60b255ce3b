//! Every bound of the engine, with its default and its reason.

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a frame that is taken, as `open` tells the peer. What SDKs expect of the public hubs.
    pub frame_bytes_max: u32,
    /// Bytes of a frame that is sent, whatever the peer takes: one delivery shall not fill the output.
    pub sent_frame_bytes_max: u32,
    /// Bytes of a frame until [`crate::Engine::authenticated`]: before that a peer may cost 8 KiB. A
    /// token of a few hundred bytes fits well.
    pub unknown_frame_bytes_max: u32,
    /// Sessions until [`crate::Engine::authenticated`]; clients use one or two for their tokens.
    pub unknown_sessions_max: usize,
    /// Links until [`crate::Engine::authenticated`]; clients use the two of `$cbs`, and some attach their
    /// own before the token is answered.
    pub unknown_links_max: usize,
    /// The highest channel; one SDK pools 995 devices, each in a session of its own.
    pub channel_max: u16,
    /// Links of a connection. A device has up to six.
    pub links_max: usize,
    /// The highest handle of a session; one SDK keeps all devices of a connection in one session.
    pub handle_max: u32,
    /// Transfers that a session takes before it hears of more room.
    pub incoming_window: u32,
    /// Bytes of deliveries that came in parts and aren't whole, of the connection.
    pub partial_bytes_max: usize,
    /// Deliveries to the peer without an outcome, of the connection.
    pub unsettled_max: usize,
    /// Bytes of a link's name. SDKs make names of two ids and a uuid.
    pub link_name_bytes_max: usize,
    /// Bytes of source and target together, which are kept until the link is accepted.
    pub terminus_bytes_max: usize,
    /// Silence that the peer is told to avoid, in milliseconds. At twice that the connection is closed
    /// (2.4.5).
    pub idle_time_out_ms: u32,
    /// The smallest silence that a peer may ask us to avoid: below, frames that say nothing would be most
    /// of the traffic.
    pub peer_idle_time_out_min_ms: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame_bytes_max: 64 << 10,
            sent_frame_bytes_max: 64 << 10,
            unknown_frame_bytes_max: 8 << 10,
            unknown_sessions_max: 4,
            unknown_links_max: 16,
            channel_max: 4095,
            links_max: 24 << 10,
            handle_max: (16 << 10) - 1,
            incoming_window: 2048,
            partial_bytes_max: 8 << 20,
            unsettled_max: 16 << 10,
            link_name_bytes_max: 1024,
            terminus_bytes_max: 4 << 10,
            idle_time_out_ms: 240_000,
            peer_idle_time_out_min_ms: 5_000,
        }
    }
}
