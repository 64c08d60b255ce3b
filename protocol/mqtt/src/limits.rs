//! What a packet may cost, beyond what the standard bounds.

/// Bounds that decoding holds a peer to. They are checked before anything is walked or copied.
///
/// A listener may pass smaller limits until the peer has proved who it is: CONNECT needs a few KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole packet with its header. Default: 320 KiB, a message of 256 KiB (the largest
    /// an IoT hub takes) and room for topic and properties. Too low refuses big messages, too high
    /// lets each connection buffer that much.
    pub packet_bytes_max: usize,
    /// Bytes of a topic name or filter. Default: 16 KiB, a property bag of 8 KiB with most characters
    /// percent-encoded. The standard's own bound of 65,535 holds anyway.
    pub topic_bytes_max: usize,
    /// User properties in one packet (a will's are counted apart). Default: 128.
    pub user_properties_max: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE. Default: 128.
    pub filters_max: usize,
    /// Who sends what is decoded. Default: [`Sender::Client`], so decoding as a broker does; a
    /// client must say [`Sender::Server`].
    pub sender: Sender,
}

impl Limits {
    /// The defaults, for a client that decodes what a server sends.
    pub fn from_server() -> Limits {
        Limits { sender: Sender::Server, ..Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            packet_bytes_max: 320 * 1024,
            topic_bytes_max: 16 * 1024,
            user_properties_max: 128,
            filters_max: 128,
            sender: Sender::Client,
        }
    }
}

/// The side of a connection that sent a packet. Most packets belong to one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A device or service that opened the connection.
    Client,
    /// The broker.
    Server,
}
