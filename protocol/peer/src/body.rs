//! Entries in a frame: metas in the head, payload bytes behind each other in the body.

use bytes::Bytes;
use thiserror::Error;

use crate::pb::EntryMeta;

/// The lengths in a head don't fit the body that came with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("entries claim {claimed} payload bytes, the frame carries {carried}")]
pub struct BodyError {
    /// What the metas add up to.
    pub claimed: u64,
    /// What the frame has.
    pub carried: u64,
}

/// Cuts a body into the (head, body) payload of each entry, without copying.
///
/// # Errors
/// When the lengths don't add up exactly.
pub fn split_body(metas: &[EntryMeta], mut body: Bytes) -> Result<Vec<(Bytes, Bytes)>, BodyError> {
    let claimed: u64 = metas.iter().map(|m| u64::from(m.head_len) + u64::from(m.body_len)).sum();
    let carried = body.len() as u64;
    if claimed != carried {
        return Err(BodyError { claimed, carried });
    }
    Ok(metas
        .iter()
        .map(|meta| {
            let head = body.split_to(meta.head_len as usize);
            (head, body.split_to(meta.body_len as usize))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(head_len: u32, body_len: u32) -> EntryMeta {
        EntryMeta { head_len, body_len, ..EntryMeta::default() }
    }

    /// Payloads come back as slices in order; lengths that lie are an error, never a panic.
    #[test]
    fn splits_or_refuses() {
        let body = Bytes::from_static(b"aabbbc");
        let parts = split_body(&[meta(2, 3), meta(0, 1)], body.clone()).unwrap();
        assert_eq!(parts[0], (Bytes::from_static(b"aa"), Bytes::from_static(b"bbb")));
        assert_eq!(parts[1], (Bytes::new(), Bytes::from_static(b"c")));
        assert!(split_body(&[meta(2, 3)], body.clone()).is_err());
        assert!(split_body(&[meta(u32::MAX, u32::MAX), meta(u32::MAX, 8)], body).is_err());
    }
}
