//! The version ladder of node-to-node messages.

/// A version of the node-to-node protocol. Ordered; a number once given is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum MessageVersion {
    /// The first: append, heartbeats, votes, transfer, snapshots, fetch, forward.
    V1 = 1,
}

impl MessageVersion {
    /// The oldest version that this build still speaks.
    pub const OLDEST: MessageVersion = MessageVersion::V1;
    /// The newest version that this build speaks.
    pub const NEWEST: MessageVersion = MessageVersion::V1;

    /// The highest version that both this build and a peer (which speaks `oldest..=newest`) know.
    pub fn negotiate(oldest: u32, newest: u32) -> Option<u32> {
        let low = oldest.max(Self::OLDEST as u32);
        let high = newest.min(Self::NEWEST as u32);
        (low <= high).then_some(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two builds agree on the highest common version, or on none.
    #[test]
    fn negotiation() {
        assert_eq!(MessageVersion::negotiate(1, 1), Some(1));
        assert_eq!(MessageVersion::negotiate(1, 7), Some(1));
        assert_eq!(MessageVersion::negotiate(2, 7), None);
        assert_eq!(MessageVersion::negotiate(0, 0), None);
    }
}
