//! Groups of users that outlive their connections: one document per user, beside the devices of a partition.
//!
//! The document lies in the partition of the key `hub/user`; changes compare and set its version. As in the
//! public service only the newest groups of a user are kept ([`USER_GROUPS_MAX`]), and fewer when their
//! names are long, since a document has a bound.

use std::sync::Arc;

use bytes::Bytes;
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_signalr::limits::USER_GROUPS_MAX;
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::key::Key;

/// Attempts to change a document that others change too.
const ATTEMPTS: u32 = 10;
/// Bytes of a document's name, as the devices' crate has it.
const NAME_MAX: usize = fleetline_devices::limits::DOCUMENT_NAME_MAX;
/// Bytes that a user's groups take at most: a little less than a document may have.
const BYTES_MAX: usize = fleetline_devices::limits::DOCUMENT_BYTES_MAX - 1_024;

/// The groups of a user, the newest last.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Memberships {
    #[prost(message, repeated, tag = "1")]
    pub(crate) groups: Vec<Membership>,
}

/// One group.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Membership {
    #[prost(string, tag = "1")]
    pub(crate) group: String,
    /// Wall time in milliseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) until_ms: u64,
}

impl Memberships {
    fn put(&mut self, group: &str, until_ms: u64) {
        self.groups.retain(|membership| membership.group != group);
        self.groups.push(Membership { group: group.to_owned(), until_ms });
        while self.groups.len() > USER_GROUPS_MAX || self.encoded_len() > BYTES_MAX {
            self.groups.remove(0);
        }
    }

    fn drop_ended(&mut self, now_ms: u64) {
        self.groups.retain(|membership| membership.until_ms > now_ms);
    }

    /// Whether the user is in the group.
    pub(crate) fn has(&self, group: &str) -> bool {
        self.groups.iter().any(|membership| membership.group == group)
    }
}

/// A change of a user's groups.
#[derive(Clone, Debug)]
pub(crate) enum MembershipChange<'a> {
    Put { group: &'a str, until_ms: u64 },
    Remove { group: &'a str },
    RemoveAll,
}

/// Reads and changes users' groups.
pub(crate) struct Store {
    devices: Arc<dyn DeviceHub>,
}

impl Store {
    pub(crate) fn new(devices: Arc<dyn DeviceHub>) -> Store {
        Store { devices }
    }

    /// The groups of a user that haven't ended.
    pub(crate) async fn read(&self, hub: &str, user: &str) -> Result<Memberships, AskError> {
        self.read_versioned(hub, user).await.map(|(_, memberships)| memberships)
    }

    async fn read_versioned(&self, hub: &str, user: &str) -> Result<(u64, Memberships), AskError> {
        let partition = Key::user(hub, user).partition(self.devices.partitions());
        let ask = AskDocuments { name: name(hub, user), all: false, from: String::new(), limit: 1 };
        let answer = answered(self.devices.ask(partition, Request::Documents(ask)).await?)?;
        let Some(document) = answer.documents.into_iter().next() else {
            return Ok((0, Memberships::default()));
        };
        let mut memberships = Memberships::decode(&document.row.value[..]).unwrap_or_else(|error| {
            tracing::warn!(hub, user, %error, "groups of a user can't be read, they count as none");
            Memberships::default()
        });
        memberships.drop_ended(self.devices.now_ms());
        Ok((document.row.version, memberships))
    }

    /// Changes a user's groups; answers what they were before.
    pub(crate) async fn change(
        &self,
        hub: &str,
        user: &str,
        change: MembershipChange<'_>,
    ) -> Result<Memberships, AskError> {
        let partition = Key::user(hub, user).partition(self.devices.partitions());
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (version, before) = self.read_versioned(hub, user).await?;
            let mut after = before.clone();
            match &change {
                MembershipChange::Put { group, until_ms } => after.put(group, *until_ms),
                MembershipChange::Remove { group } => after.groups.retain(|one| one.group != *group),
                MembershipChange::RemoveAll => after.groups.clear(),
            }
            if after == before {
                return Ok(before);
            }
            let put = PutDocument {
                name: name(hub, user),
                value: Bytes::from(after.encode_to_vec()),
                condition: if version == 0 { Condition::absent() } else { Condition::tag(version) },
                delete: after.groups.is_empty(),
            };
            match self.devices.change(partition, Op::PutDocument(put)).await {
                Ok(_) => return Ok(before),
                // Most likely another one was faster.
                Err(AskError::Refused(_)) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The document's name. A user's id may be longer than names are: then a digest stands for it.
fn name(hub: &str, user: &str) -> String {
    let plain = format!("rt/u/{hub}/{user}");
    if plain.len() <= NAME_MAX {
        return plain;
    }
    let digest = digest(&SHA256, user.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("rt/h/{hub}/{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut memberships = Memberships::default();
        for number in 0..USER_GROUPS_MAX + 3 {
            memberships.put(&number.to_string(), 10);
        }
        assert_eq!(memberships.groups.len(), USER_GROUPS_MAX);
        assert!(!memberships.has("2") && memberships.has("3"));
        memberships.put("3", 20);
        memberships.put("new", 20);
        assert!(memberships.has("3") && !memberships.has("4"));
        memberships.drop_ended(10);
        assert_eq!(memberships.groups.len(), 2);
    }

    #[test]
    fn long_names_fit() {
        let mut memberships = Memberships::default();
        for number in 0..90 {
            memberships.put(&format!("{number}{}", "é".repeat(1_000)), 10);
        }
        assert!(memberships.encoded_len() <= BYTES_MAX && memberships.groups.len() > 20);
        assert!(name("chat", &"é".repeat(1_024)).len() <= NAME_MAX);
        assert_eq!(name("chat", "alice"), "rt/u/chat/alice");
    }
}
