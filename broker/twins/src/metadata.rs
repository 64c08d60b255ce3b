//! Metadata of a section: when each node was last changed, and by which version.
//!
//! A tree beside the document, kept by [`Section`](crate::Section). A change touches the section
//! itself, every object that the patch names on its way down, and every value it sets.
//!
//! Invariant: a node has a child for each member of the object it stands for, and none for
//! anything else. Arrays are values: what is in them has no metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::limits::is_reserved;
use crate::time::format_time;

/// When one node of a document was last changed, and the same for what is below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    updated: Stamp,
    children: BTreeMap<String, Metadata>,
}

/// One change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stamp {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// The version that the change made, where versions are kept (in desired).
    pub version: Option<u64>,
}

impl Metadata {
    /// A node without children, changed by `stamp`.
    pub(crate) fn new(stamp: Stamp) -> Metadata {
        Metadata { updated: stamp, children: BTreeMap::new() }
    }

    /// Follows a merge of `patch` into the document.
    pub(crate) fn merge(&mut self, patch: &Map<String, Value>, stamp: Stamp) {
        self.updated = stamp;
        for (key, value) in patch.iter().filter(|(key, _)| !is_reserved(key)) {
            self.merge_member(key, value, stamp);
        }
    }

    fn merge_member(&mut self, key: &str, value: &Value, stamp: Stamp) {
        match value {
            Value::Null => {
                self.children.remove(key);
            }
            Value::Object(patch) => {
                // If a plain value was here, it has no children, as the new object at first.
                let child = self.children.entry(key.to_owned()).or_default();
                child.updated = stamp;
                for (key, value) in patch {
                    child.merge_member(key, value, stamp);
                }
            }
            _ => {
                self.children.insert(key.to_owned(), Metadata::new(stamp));
            }
        }
    }

    /// Milliseconds since 1970 of the last change at or below this node.
    pub fn last_updated_ms(&self) -> u64 {
        self.updated.ms
    }

    /// The version that this change made; in desired only.
    pub fn last_updated_version(&self) -> Option<u64> {
        self.updated.version
    }

    /// The metadata of a member.
    pub fn child(&self, key: &str) -> Option<&Metadata> {
        self.children.get(key)
    }

    /// As the service sees it: `$lastUpdated`, perhaps `$lastUpdatedVersion`, and the members.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("$lastUpdated".to_owned(), format_time(self.updated.ms).into());
        if let Some(version) = self.updated.version {
            out.insert("$lastUpdatedVersion".to_owned(), version.into());
        }
        out.extend(self.children.iter().map(|(key, child)| (key.clone(), child.to_json())));
        Value::Object(out)
    }

    /// The stored form: `[ms]`, `[ms,version]` or `[ms,version or null,{children}]`.
    pub(crate) fn to_stored(&self) -> Value {
        let mut out = vec![self.updated.ms.into()];
        if self.updated.version.is_some() || !self.children.is_empty() {
            out.push(self.updated.version.into());
        }
        if !self.children.is_empty() {
            let children = self.children.iter().map(|(key, child)| (key.clone(), child.to_stored()));
            out.push(Value::Object(children.collect()));
        }
        Value::Array(out)
    }

    /// From the stored form, if it is one and fits the object that it stands beside.
    pub(crate) fn from_stored(stored: &Value, document: &Map<String, Value>) -> Option<Metadata> {
        let (updated, children) = match stored.as_array()?.as_slice() {
            [ms] => (Stamp { ms: ms.as_u64()?, version: None }, None),
            [ms, version] => (Stamp { ms: ms.as_u64()?, version: Some(version.as_u64()?) }, None),
            [ms, version, Value::Object(children)] if !children.is_empty() => {
                let version = if version.is_null() { None } else { Some(version.as_u64()?) };
                (Stamp { ms: ms.as_u64()?, version }, Some(children))
            }
            _ => return None,
        };
        if children.map_or(0, Map::len) != document.len() {
            return None;
        }
        let none = Map::new();
        let child = |(key, stored)| {
            let members = document.get(key)?.as_object().unwrap_or(&none);
            Some((String::clone(key), Metadata::from_stored(stored, members)?))
        };
        let children = children.into_iter().flatten().map(child).collect::<Option<_>>()?;
        Some(Metadata { updated, children })
    }
}
