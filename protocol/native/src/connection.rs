//! Names and numbers of the connection itself: ALPN, versions, close codes, reset codes.
//!
//! Numbers are never reused: old clients and captures of traffic refer to them.

use std::fmt;

/// The ALPN name that client and server agree on in TLS. A change that old peers could not even
/// say hello to gets a new name; everything else is negotiated by [`negotiate`].
pub const ALPN: &[u8] = b"fleetline/1";

/// The lowest protocol version that this crate speaks.
pub const VERSION_MIN: u32 = 1;

/// The highest protocol version that this crate speaks.
pub const VERSION_MAX: u32 = 1;

/// Picks the highest version that both sides know; `None` when there is none.
pub fn negotiate(client: (u32, u32), server: (u32, u32)) -> Option<u32> {
    let version = client.1.min(server.1);
    (version >= client.0 && version >= server.0 && client.0 <= client.1).then_some(version)
}

macro_rules! codes {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The number on the wire.
            pub fn code(self) -> u32 {
                self as u32
            }

            /// The code with this number; `None` for one that this version doesn't know.
            pub fn from_code(code: u64) -> Option<$name> {
                $name::ALL.iter().copied().find(|c| u64::from(c.code()) == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:?} ({})", self.code())
            }
        }
    };
}

codes! {
    /// Why a side closed the connection (QUIC application close).
    CloseCode {
        /// The side has no more use for the connection.
        Done = 0,
        /// The other side broke the protocol; the reason text says how.
        Protocol = 1,
        /// No common protocol version.
        Version = 2,
        /// The node is shutting down: connect to another node, this one comes back later.
        ShuttingDown = 3,
        /// The node has as many connections as it may: connect to another node.
        TooMany = 4,
        /// Hello did not come in time.
        HelloTimeout = 5,
        /// The client means another cluster.
        WrongCluster = 6,
        /// The front failed; connect again.
        Internal = 7,
    }
}

codes! {
    /// Why a side reset a stream or stopped reading it.
    ResetCode {
        /// The side has no more use for the stream.
        Cancelled = 0,
        /// A frame on this stream broke the protocol.
        Protocol = 1,
        /// The node is shutting down.
        ShuttingDown = 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest common version wins; disjoint or upside-down ranges have none.
    #[test]
    fn negotiation_table() {
        let table = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 3), (1, 2), Some(2)),
            ((1, 2), (2, 5), Some(2)),
            ((1, 1), (2, 3), None),
            ((4, 9), (1, 3), None),
            ((3, 1), (1, 3), None),
        ];
        for (client, server, expected) in table {
            assert_eq!(negotiate(client, server), expected, "client {client:?}, server {server:?}");
        }
    }

    /// Every code comes back from its number, and unknown numbers are told apart.
    #[test]
    fn codes_round_trip() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code().into()), Some(*code));
        }
        for code in ResetCode::ALL {
            assert_eq!(ResetCode::from_code(code.code().into()), Some(*code));
        }
        assert_eq!(CloseCode::from_code(999), None);
    }
}
