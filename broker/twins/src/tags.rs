//! Tags: the document that only services see. No version or metadata of its own; the twin's
//! version and etag, which cover it, are kept in `broker/devices`.

use serde_json::{Map, Value};

use crate::merge::merge_into;
use crate::{DocumentLimits, TwinError};

/// Merges a checked patch into the tags: objects deeply, null deletes, arrays whole. On error
/// nothing changes.
pub fn merge_tags(
    tags: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    limits: &DocumentLimits,
) -> Result<(), TwinError> {
    let mut merged = tags.clone();
    merge_into(&mut merged, patch);
    limits.check_size(&merged)?;
    *tags = merged;
    Ok(())
}

/// Puts a checked document in the place of the tags; nulls in it are left out. On error nothing
/// changes.
pub fn replace_tags(
    tags: &mut Map<String, Value>,
    document: &Map<String, Value>,
    limits: &DocumentLimits,
) -> Result<(), TwinError> {
    let mut replaced = Map::new();
    merge_tags(&mut replaced, document, limits)?;
    *tags = replaced;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::map;

    const LIMITS: DocumentLimits = DocumentLimits::TAGS;

    #[test]
    fn merge_and_replace() {
        let mut tags = map(&json!({"site": {"floor": 1, "room": "a"}, "old": true}));
        merge_tags(&mut tags, &map(&json!({"site": {"floor": 2}, "old": null})), &LIMITS).unwrap();
        assert_eq!(tags, map(&json!({"site": {"floor": 2, "room": "a"}})));
        replace_tags(&mut tags, &map(&json!({"new": {"x": null}, "gone": null})), &LIMITS).unwrap();
        assert_eq!(tags, map(&json!({"new": {}})));
    }

    /// 8 KiB of tags are taken, one more is not, and then the tags stay as they were.
    #[test]
    fn size_of_the_result_is_bounded() {
        let text =
            |chars: usize| map(&json!({"a": "x".repeat(4000), "b": "x".repeat(chars - 4003), "c": ""}));
        let mut tags = Map::new();
        replace_tags(&mut tags, &text(8192), &LIMITS).unwrap();
        let before = tags.clone();
        let expected = Err(TwinError::TooLarge { what: "the document", found: 8193, limit: 8192 });
        assert_eq!(replace_tags(&mut tags, &text(8193), &LIMITS), expected);
        assert_eq!(merge_tags(&mut tags, &map(&json!({"c": "x"})), &LIMITS), expected);
        assert_eq!(tags, before);
        // What goes makes room for what comes.
        merge_tags(&mut tags, &map(&json!({"a": null, "d": "x".repeat(4000)})), &LIMITS).unwrap();
    }
}
