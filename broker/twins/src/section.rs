//! A section of a twin: desired or reported properties with their metadata and version.
//!
//! Owned by the device row of `broker/devices`, changed in `apply` only. Both sides see the same
//! document; the device sees the version beside it, the service the metadata too.
//!
//! Invariants:
//! 1. Every accepted change adds exactly one to the version, also one that changes nothing: who
//!    sent it learns the number, and numbers are never used twice.
//! 2. A refused change leaves everything as it was.
//! 3. The metadata has the shape of the document.
//!
//! Stored form (version 1), read on every change and written after it:
//!
//! ```text
//! u8 format = 1 | varint version | varint length, document | varint length, metadata
//! ```
//!
//! Both are JSON without spaces and with sorted keys. The metadata of a node is `[ms]`,
//! `[ms,version]` or `[ms,version or null,{members}]`. How a number is spelt isn't checked when a
//! section is read, so that rows of another release of the JSON library stay readable.

use fleetline_codec::{DecodeError, Reader, Writer};
use serde_json::{Map, Value};

use crate::merge::merge_into;
use crate::metadata::Stamp;
use crate::{DocumentLimits, Metadata, TwinError};

/// The stored form that is written.
const FORMAT: u8 = 1;

/// Bound of the document and of the metadata in the stored form. Far above what the limits of a
/// document let through: at most 32 Ki nodes of some 40 bytes, and the keys.
pub const SECTION_BYTES_MAX: usize = 8 << 20;

/// Desired or reported properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The properties.
    pub document: Map<String, Value>,
    /// When each of them was last changed.
    pub metadata: Metadata,
    /// Counts the accepted changes; 1 for a new twin.
    pub version: u64,
}

impl Section {
    /// The section of a twin that was made at `now_ms` (milliseconds since 1970).
    pub fn new(now_ms: u64) -> Section {
        let metadata = Metadata::new(Stamp { ms: now_ms, version: None });
        Section { document: Map::new(), metadata, version: 1 }
    }

    /// Merges a patch that [`parse_patch`](crate::parse_patch) took: objects deeply, null deletes,
    /// arrays whole, `$version` and `$metadata` at the top are passed over. Fails if the document
    /// would become too large; on error nothing changes. `with_versions` keeps
    /// `$lastUpdatedVersion` in the metadata, as desired does.
    pub fn merge(
        &mut self,
        patch: &Map<String, Value>,
        now_ms: u64,
        limits: &DocumentLimits,
        with_versions: bool,
    ) -> Result<(), TwinError> {
        let mut merged = self.document.clone();
        merge_into(&mut merged, patch);
        limits.check_size(&merged)?;
        self.document = merged;
        self.version = self.version.saturating_add(1);
        self.metadata.merge(patch, self.stamp(now_ms, with_versions));
        Ok(())
    }

    /// Puts a document that [`parse_patch`](crate::parse_patch) took in the place of this one.
    /// Members that are null are left out. Otherwise as [`Section::merge`].
    pub fn replace(
        &mut self,
        document: &Map<String, Value>,
        now_ms: u64,
        limits: &DocumentLimits,
        with_versions: bool,
    ) -> Result<(), TwinError> {
        let mut replaced = Section { version: self.version, ..Section::default() };
        replaced.merge(document, now_ms, limits, with_versions)?;
        *self = replaced;
        Ok(())
    }

    fn stamp(&self, ms: u64, with_versions: bool) -> Stamp {
        Stamp { ms, version: with_versions.then_some(self.version) }
    }

    /// The document with `$version`, as the device reads it.
    pub fn device_json(&self) -> Map<String, Value> {
        let mut out = self.document.clone();
        out.insert("$version".to_owned(), self.version.into());
        out
    }

    /// The document with `$version` and `$metadata`, as the service reads it.
    pub fn service_json(&self) -> Map<String, Value> {
        let mut out = self.device_json();
        out.insert("$metadata".to_owned(), self.metadata.to_json());
        out
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        // Maps with string keys always have a text, and `Value` writes it through `Display`.
        let document = Value::Object(self.document.clone()).to_string();
        let metadata = self.metadata.to_stored().to_string();
        let mut out = Vec::with_capacity(document.len() + metadata.len() + 16);
        Writer::new(&mut out).u8(FORMAT).varint(self.version).text(&document).text(&metadata);
        out
    }

    /// A section from its stored form.
    pub fn decode(bytes: &[u8]) -> Result<Section, DecodeError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("section format")?;
        if format != FORMAT {
            let (what, found, highest) = ("section", u32::from(format), u32::from(FORMAT));
            return Err(if format == 0 {
                DecodeError::Invalid { what, reason: "its format is 0" }
            } else {
                DecodeError::UnknownVersion { what, found, highest }
            });
        }
        let version = reader.varint("section version")?;
        let document = json(reader.text("section document", SECTION_BYTES_MAX)?, "section document")?;
        let metadata = json(reader.text("section metadata", SECTION_BYTES_MAX)?, "section metadata")?;
        reader.finish("section")?;
        let Value::Object(document) = document else {
            return Err(DecodeError::Invalid { what: "section document", reason: "it is not an object" });
        };
        let metadata = Metadata::from_stored(&metadata, &document).ok_or(DecodeError::Invalid {
            what: "section metadata",
            reason: "it does not have the shape of the document",
        })?;
        Ok(Section { document, metadata, version })
    }
}

/// The JSON parser bounds its own recursion.
fn json(text: &str, what: &'static str) -> Result<Value, DecodeError> {
    serde_json::from_str(text).map_err(|_| DecodeError::Invalid { what, reason: "it is not JSON" })
}

#[cfg(test)]
mod tests {
    use fleetline_codec::kit;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{document, map};

    const LIMITS: DocumentLimits = DocumentLimits::DESIRED;

    fn merged(section: &Section, patch: &Value, now_ms: u64, with_versions: bool) -> Section {
        let mut section = section.clone();
        section.merge(&map(patch), now_ms, &LIMITS, with_versions).unwrap();
        section
    }

    #[test]
    fn a_new_section_is_empty_with_version_1() {
        let section = Section::new(1_795_500_938_123);
        assert_eq!(section.device_json(), map(&json!({"$version": 1})));
        let metadata = json!({"$lastUpdated": "2026-11-24T06:15:38.1230000Z"});
        assert_eq!(section.service_json(), map(&json!({"$metadata": metadata, "$version": 1})));
    }

    /// "Each change of desired bumps `desired.$version`", and so does one that changes nothing.
    #[test]
    fn every_accepted_change_adds_one() {
        let mut section = Section::new(1);
        let table =
            [json!({"a": 1}), json!({"a": 1}), json!({}), json!({"b": null}), json!({"$version": 70})];
        for (number, patch) in (2..).zip(table) {
            section = merged(&section, &patch, 5, false);
            assert_eq!((section.version, &section.document), (number, &map(&json!({"a": 1}))), "{patch}");
        }
        section.replace(&Map::new(), 6, &LIMITS, false).unwrap();
        assert_eq!((section.version, section.document.len()), (7, 0));
    }

    /// "On error nothing changes": 32 KiB are taken, one more is not, by merge and replace.
    #[test]
    fn the_result_is_bounded_and_a_refusal_changes_nothing() {
        let chunk = "x".repeat(4095);
        let seven =
            json!({"0": chunk, "1": chunk, "2": chunk, "3": chunk, "4": chunk, "5": chunk, "6": chunk});
        let mut section = merged(&Section::new(1), &seven, 2, true);
        section.merge(&map(&json!({"7": "x".repeat(4094), "8": ""})), 3, &LIMITS, true).unwrap();
        assert_eq!(crate::counted_size(&section.document), 32 << 10);
        let before = section.clone();
        let expected = Err(TwinError::TooLarge { what: "the document", found: 32_769, limit: 32_768 });
        assert_eq!(section.merge(&map(&json!({"8": "x"})), 4, &LIMITS, true), expected);
        let mut larger = before.document.clone();
        larger.insert("8".to_owned(), json!("x"));
        assert_eq!(section.replace(&larger, 4, &LIMITS, true), expected);
        assert_eq!(section, before);
        // Room is made in the same change that needs it.
        section.merge(&map(&json!({"0": null, "9": chunk})), 5, &LIMITS, true).unwrap();
        assert_eq!(section.version, 4);
    }

    /// A change touches the section, the objects on its way and what it sets, and nothing else.
    #[test]
    fn metadata_follows_each_change() {
        let first =
            merged(&Section::new(1), &json!({"a": {"b": 1, "c": {"d": 2}}, "e": [1, {"f": 2}]}), 10, true);
        let ten = json!([10, 2]);
        assert_eq!(
            first.metadata.to_stored(),
            json!([10, 2, {"a": [10, 2, {"b": ten, "c": [10, 2, {"d": ten}]}], "e": ten}])
        );
        let table = [
            // The same value counts as a change.
            (
                json!({"a": {"b": 1}}),
                json!([20, 3, {"a": [20, 3, {"b": [20, 3], "c": [10, 2, {"d": ten}]}], "e": ten}]),
            ),
            // Deleting touches what is above.
            (json!({"a": {"c": null}}), json!([20, 3, {"a": [20, 3, {"b": ten}], "e": ten}])),
            // An object in the place of a value, and the other way round.
            (json!({"e": {"g": {}}, "a": 3}), json!([20, 3, {"a": [20, 3], "e": [20, 3, {"g": [20, 3]}]}])),
            // Nothing was named: only the section.
            (json!({}), json!([20, 3, {"a": [10, 2, {"b": ten, "c": [10, 2, {"d": ten}]}], "e": ten}])),
        ];
        for (patch, expected) in table {
            assert_eq!(merged(&first, &patch, 20, true).metadata.to_stored(), expected, "{patch}");
        }
        let mut replaced = first;
        replaced.replace(&map(&json!({"e": {"x": null, "y": 1}})), 30, &LIMITS, true).unwrap();
        assert_eq!(replaced.document, map(&json!({"e": {"y": 1}})));
        assert_eq!(replaced.metadata.to_stored(), json!([30, 3, {"e": [30, 3, {"y": [30, 3]}]}]));
    }

    /// The service sees `$lastUpdatedVersion` where versions are kept, the device no metadata.
    #[test]
    fn both_sides_see_their_part() {
        let patch = json!({"a": {"b": 1}});
        let time = "1970-01-01T00:00:00.0070000Z";
        let desired = merged(&Section::new(1), &patch, 7, true);
        let node = json!({"$lastUpdated": time, "$lastUpdatedVersion": 2});
        let mut a = node.clone();
        a["b"] = node.clone();
        let mut root = node;
        root["a"] = a;
        let expected = json!({"a": {"b": 1}, "$version": 2, "$metadata": root});
        assert_eq!(Value::Object(desired.service_json()), expected);
        assert_eq!(Value::Object(desired.device_json()), json!({"a": {"b": 1}, "$version": 2}));
        let reported = merged(&Section::new(1), &patch, 7, false);
        let node = json!({"$lastUpdated": time, "a": {"$lastUpdated": time, "b": {"$lastUpdated": time}}});
        assert_eq!(reported.service_json().get("$metadata"), Some(&node));
        let b = desired.metadata.child("a").and_then(|a| a.child("b")).unwrap();
        assert_eq!((b.last_updated_ms(), b.last_updated_version()), (7, Some(2)));
    }

    /// The bytes of format 1, numbers included: state on disk that must stay readable.
    #[test]
    fn stored_form_is_pinned() {
        let patch = json!({"z": [null, true, "ü\u{1}\""], "a": {"n": -4503599627370496i64, "f": 1e21, "g": 0.1, "h": 1.0, "e": {}}});
        let section = merged(&Section { version: 299, ..Section::new(1) }, &patch, 1_795_500_938_123, true);
        let document = "{\"a\":{\"e\":{},\"f\":1e+21,\"g\":0.1,\"h\":1.0,\"n\":-4503599627370496},\"z\":[null,true,\"ü\\u0001\\\"\"]}";
        let s = "[1795500938123,300";
        let metadata = format!(
            "{s},{{\"a\":{s},{{\"e\":{s}],\"f\":{s}],\"g\":{s}],\"h\":{s}],\"n\":{s}]}}],\"z\":{s}]}}]"
        );
        let mut expected = vec![1, 0xac, 0x02, document.len() as u8];
        expected.extend(document.as_bytes());
        expected.extend([0x80 | (metadata.len() & 0x7f) as u8, (metadata.len() >> 7) as u8]);
        expected.extend(metadata.as_bytes());
        assert_eq!(section.encode().escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(Section::decode(&expected), Ok(section));
        assert_eq!(Section::new(7).encode(), b"\x01\x01\x02{}\x03[7]");
    }

    #[test]
    fn other_bytes_are_refused() {
        let stored = |document: &str, metadata: &str| {
            let mut out = Vec::new();
            Writer::new(&mut out).u8(1).varint(1).text(document).text(metadata);
            out
        };
        assert!(Section::decode(&stored(r#"{"a":{"b":1}}"#, r#"[1,null,{"a":[2,null,{"b":[3]}]}]"#)).is_ok());
        let table = [
            (r#"[]"#, "[1]"),
            (r#"{"#, "[1]"),
            (r#"{}"#, "[1"),
            (r#"{}"#, "1"),
            (r#"{}"#, "[]"),
            (r#"{}"#, "[-1]"),
            (r#"{}"#, "[1,null]"),
            (r#"{}"#, "[1,null,{}]"),
            (r#"{}"#, r#"[1,null,{"a":[1]}]"#),
            (r#"{"a":1}"#, "[1]"),
            (r#"{"a":1}"#, r#"[1,null,{"b":[1]}]"#),
            (r#"{"a":1}"#, r#"[1,"2",{"a":[1]}]"#),
            (r#"{"a":1}"#, r#"[1,null,{"a":[1,null,{"b":[1]}]}]"#),
            (r#"{"a":{"b":1}}"#, r#"[1,null,{"a":[1]}]"#),
            (r#"{"a":1}"#, r#"[1,null,{"a":[1]},0]"#),
        ];
        for (document, metadata) in table {
            let found = Section::decode(&stored(document, metadata));
            assert!(matches!(found, Err(DecodeError::Invalid { .. })), "{found:?} for {document} {metadata}");
        }
        let newer = Section::decode(b"\x02\x01\x02{}\x03[7]");
        assert_eq!(newer, Err(DecodeError::UnknownVersion { what: "section", found: 2, highest: 1 }));
        assert!(matches!(Section::decode(b"\x00\x01\x02{}\x03[7]"), Err(DecodeError::Invalid { .. })));
        let deep = stored(&"[".repeat(10_000), "[1]");
        assert!(matches!(Section::decode(&deep), Err(DecodeError::Invalid { .. })));
    }

    /// The deepest document that the limits let through comes back from its stored form.
    #[test]
    fn the_deepest_document_is_readable() {
        let limits = DocumentLimits { depth_max: 40, ..LIMITS };
        let text = format!("{}{}", r#"{"a":"#.repeat(40) + "{", "}".repeat(41));
        let patch = crate::parse_patch(text.as_bytes(), &limits).unwrap();
        let mut section = Section::new(1);
        section.merge(&patch, 2, &limits, true).unwrap();
        assert_eq!(Section::decode(&section.encode()), Ok(section));
    }

    proptest! {
        /// After any changes a section survives its stored form, numbers to the last bit.
        #[test]
        fn stored_form_round_trips(
            changes in prop::collection::vec((document(true), any::<bool>(), any::<u64>(), any::<bool>()), 0..5)
        ) {
            let mut section = Section::new(0);
            for (change, put, now_ms, with_versions) in changes {
                let outcome = if put {
                    section.replace(&change, now_ms, &LIMITS, with_versions)
                } else {
                    section.merge(&change, now_ms, &LIMITS, with_versions)
                };
                prop_assert_eq!(outcome, Ok(()));
            }
            kit::assert_round_trip(&section, Section::encode, Section::decode);
        }

        /// Any bytes behind a true beginning are answered.
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Section::decode(&bytes);
            let _ = Section::decode(&[b"\x01\x01\x02{}".as_slice(), &bytes].concat());
        }
    }
}
