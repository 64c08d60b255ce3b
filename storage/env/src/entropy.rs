//! The entropy door.

use std::fmt::Debug;

/// A source of random bytes. Ids, jitter and keys come from here, never from a thread-local
/// generator.
pub trait Entropy: Send + Sync + Debug + 'static {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);

    /// A random number over the whole range.
    fn next_u64(&self) -> u64 {
        let mut buf = [0u8; 8];
        self.fill(&mut buf);
        u64::from_le_bytes(buf)
    }
}
