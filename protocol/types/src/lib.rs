//! Ids and small values that all layers share.
//!
//! Everything here is a plain value: no I/O, no clock, no wire format. A place in the Raft log
//! ([`LogIndex`]) and a place in a stream as readers see it ([`Offset`]) are two types and are
//! never mixed; the index of a partition (`fleetline-streams`) is what maps one to the other.
#![deny(missing_docs)]

mod ids;
mod time;

pub use ids::{GroupId, LogId, LogIndex, MemberId, NodeId, Offset, PartitionId, ProducerId, Term};
pub use time::TimestampMs;

/// Picks the partition of a device (or any other key): a stable hash of its id (FNV-1a, 64 bit,
/// finished with a multiply-xorshift so that low bits depend on all input).
///
/// Stable for ever: it decides where a device's history lives, so a changed result would split
/// the history of a device over two partitions. A test pins known values.
///
/// `partitions` is the count the cluster was made with; zero is treated as one.
pub fn partition_of_key(key: &[u8], partitions: u32) -> PartitionId {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    PartitionId((hash % u64::from(partitions.max(1))) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash decides where a device's data lives: these values may never change.
    #[test]
    fn partition_of_key_is_pinned() {
        let found: Vec<u32> = ["", "a", "device-1", "device-2", "thermostat/7"]
            .iter()
            .map(|k| partition_of_key(k.as_bytes(), 16).0)
            .collect();
        assert_eq!(found, PINNED);
    }

    const PINNED: [u32; 5] = [2, 13, 14, 9, 1];

    #[test]
    fn keys_spread_over_partitions() {
        let mut counts = [0u32; 16];
        for i in 0..16_000 {
            counts[partition_of_key(format!("device-{i}").as_bytes(), 16).0 as usize] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }
}
