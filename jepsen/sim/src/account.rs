//! What was sent, acknowledged and read, and whether that can be.

use std::collections::{BTreeMap, BTreeSet};

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) device: String,
    pub(crate) body: String,
}

/// Whether a device is of the device workload.
pub(crate) fn is_thing(device: &str) -> bool {
    device.starts_with("thing-")
}

/// Keeps account of every record, by its body.
#[derive(Debug, Default)]
pub(crate) struct Account {
    sent: BTreeSet<String>,
    acknowledged: BTreeMap<String, u64>,
}

impl Account {
    pub(crate) fn sent(&mut self, body: &str) {
        self.sent.insert(body.to_owned());
    }

    pub(crate) fn acknowledged(&mut self, body: &str, offset: u64) {
        self.acknowledged.insert(body.to_owned(), offset);
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Checks what one replica holds: promises P1 to P5.
    /// Records of the device workload only count for the offsets.
    pub(crate) fn check(&self, records: &[Stored]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for (place, Stored { offset, device, body }) in records.iter().enumerate() {
            if *offset != place as u64 {
                return Err(format!("P3: offset {offset} stands at place {place}"));
            }
            if is_thing(device) {
                continue;
            }
            if !self.sent.contains(body) {
                return Err(format!("P2: {body} at {offset} was never sent"));
            }
            if !seen.insert(body) {
                return Err(format!("P5: {body} is stored twice, again at {offset}"));
            }
            let device = body.split('/').next().unwrap_or_default().to_owned();
            if let Some(before) = last.insert(device, body.clone())
                && before >= *body
            {
                return Err(format!("P4: {body} stands behind {before}"));
            }
        }
        for (body, offset) in &self.acknowledged {
            match records.get(*offset as usize) {
                Some(found) if found.body == *body => {}
                found => return Err(format!("P1: {body} was acknowledged at {offset}, there is {found:?}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let mut account = Account::default();
        for (offset, body) in ["a/1", "a/2", "b/1"].iter().enumerate() {
            account.sent(body);
            account.acknowledged(body, offset as u64);
        }
        account.sent("a/3");
        account
    }

    fn records(bodies: &[&str]) -> Vec<Stored> {
        let stored =
            |(body, offset): (&&str, u64)| Stored { offset, device: "a".into(), body: (*body).to_owned() };
        bodies.iter().zip(0..).map(stored).collect()
    }

    /// What is sound passes, and each planted violation is found under its name.
    #[test]
    fn violations_are_named() {
        let account = account();
        account.check(&records(&["a/1", "a/2", "b/1"])).unwrap();
        account.check(&records(&["a/1", "a/2", "b/1", "a/3"])).unwrap();
        for (bodies, name) in [
            (vec!["a/1", "a/2"], "P1"),
            (vec!["a/1", "b/1", "a/2"], "P1"),
            (vec!["a/1", "a/2", "b/1", "x/1"], "P2"),
            (vec!["a/2", "a/1", "b/1"], "P4"),
            (vec!["a/1", "a/2", "b/1", "b/1"], "P5"),
        ] {
            let found = account.check(&records(&bodies)).unwrap_err();
            assert!(found.starts_with(name), "{bodies:?}: {found}");
        }
        let mut hole = records(&["a/1", "a/2", "b/1"]);
        hole[2].offset = 7;
        assert!(account.check(&hole).unwrap_err().starts_with("P3"));
    }
}
