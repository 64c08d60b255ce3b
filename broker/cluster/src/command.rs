//! Commands of the control group, and their stored form.
//!
//! ```text
//! version u8 = 1 | kind u8 | fields in order (integers as varints, text length-prefixed)
//! ```
//!
//! Kinds are never reused. A version or kind that this release doesn't know stops the replica.

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{NodeId, PartitionId, TimestampMs};

/// Bytes of a name or address.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of a certificate or key.
const PEM_BYTES_MAX: usize = 16 << 10;
/// Bytes of a hub setting; it is part of a log entry's head.
pub const HUB_SETTING_BYTES_MAX: usize = 48 << 10;
/// Nodes in one list.
pub(crate) const NODES_MAX: usize = 1024;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Makes the cluster; only the first one counts.
    Bootstrap {
        /// The cluster's id.
        cluster: String,
        /// How many partitions the hub has.
        partitions: u32,
        /// How many replicas a partition should have.
        replicas: u32,
        /// The authority's certificate.
        authority_pem: String,
        /// The authority's key; empty when certificates come from elsewhere.
        authority_key_pem: String,
    },
    /// Takes a node in, or renews what is known of it. The disk id makes it the same node again.
    AddNode {
        /// Random id of its data folder.
        disk_id: String,
        /// `host:port` of its native front.
        client_address: String,
        /// `host:port` for other nodes.
        peer_address: String,
        /// Failure zone, or empty.
        zone: String,
        /// The highest feature level that it knows.
        feature_level: u32,
    },
    /// Begins or ends to empty a node.
    SetDraining {
        /// Which.
        node: NodeId,
        /// Whether it shall be empty.
        draining: bool,
    },
    /// Forgets a node.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// Although it still holds replicas.
        force: bool,
    },
    /// Gives all replicas of a lost node to another one, and forgets it.
    ReplaceNode {
        /// The lost one.
        old: NodeId,
        /// The one that takes its place.
        new: NodeId,
    },
    /// Says where a partition's replicas shall lie.
    SetPlacement {
        /// Which partition.
        partition: PartitionId,
        /// The nodes; the first is the preferred leader.
        replicas: Vec<NodeId>,
        /// The placement's epoch that this was computed from.
        expected_epoch: u64,
    },
    /// The partition's group has the members that its placement asks for: nodes that left hold nothing
    /// that counts any more. Proposed by the partition's leader.
    PlacementReached {
        /// Which partition.
        partition: PartitionId,
        /// The placement's epoch that is reached.
        epoch: u64,
    },
    /// Lets nodes join by a secret.
    CreateToken {
        /// Public id of the token.
        id: String,
        /// Hash of its secret.
        secret_hash: Bytes,
        /// When it ends.
        expires: TimestampMs,
        /// Now, to forget those that have ended.
        now: TimestampMs,
    },
    /// Switches on what all nodes know.
    RaiseFeatureLevel {
        /// To this level.
        to: u32,
    },
    /// Sets how long and how much of each partition's stream is kept.
    SetRetention {
        /// Milliseconds.
        time_ms: u64,
        /// Bytes per partition.
        bytes: u64,
    },
    /// Stores a setting of the hub under a name: policies, address rules. What it means is its reader's.
    PutHubSetting {
        /// Which.
        name: String,
        /// The value; empty removes it.
        value: Bytes,
        /// The setting's version that this was computed from; 0 for one that must not exist yet.
        expected_version: u64,
    },
}

impl ControlCommand {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        let mut w = Writer::new(&mut out);
        w.u8(1);
        match self {
            ControlCommand::Bootstrap { cluster, partitions, replicas, authority_pem, authority_key_pem } => {
                w.u8(1).text(cluster).varint(u64::from(*partitions)).varint(u64::from(*replicas));
                w.text(authority_pem).text(authority_key_pem);
            }
            ControlCommand::AddNode { disk_id, client_address, peer_address, zone, feature_level } => {
                w.u8(2).text(disk_id).text(client_address).text(peer_address).text(zone);
                w.varint(u64::from(*feature_level));
            }
            ControlCommand::SetDraining { node, draining } => {
                w.u8(3).varint(node.0).flag(*draining);
            }
            ControlCommand::RemoveNode { node, force } => {
                w.u8(4).varint(node.0).flag(*force);
            }
            ControlCommand::ReplaceNode { old, new } => {
                w.u8(5).varint(old.0).varint(new.0);
            }
            ControlCommand::SetPlacement { partition, replicas, expected_epoch } => {
                w.u8(6).varint(u64::from(partition.0)).varint(*expected_epoch).varint(replicas.len() as u64);
                for node in replicas {
                    w.varint(node.0);
                }
            }
            ControlCommand::CreateToken { id, secret_hash, expires, now } => {
                w.u8(7).text(id).prefixed(secret_hash).varint(expires.0).varint(now.0);
            }
            ControlCommand::RaiseFeatureLevel { to } => {
                w.u8(8).varint(u64::from(*to));
            }
            ControlCommand::PlacementReached { partition, epoch } => {
                w.u8(10).varint(u64::from(partition.0)).varint(*epoch);
            }
            ControlCommand::SetRetention { time_ms, bytes } => {
                w.u8(9).varint(*time_ms).varint(*bytes);
            }
            ControlCommand::PutHubSetting { name, value, expected_version } => {
                w.u8(11).text(name).prefixed(value).varint(*expected_version);
            }
        }
        out.into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// For a version or kind that this release doesn't know, and for bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<ControlCommand, DecodeError> {
        let mut r = Reader::new(bytes);
        let found = r.u8("command version")?;
        if found != 1 {
            let found = u32::from(found);
            return Err(DecodeError::UnknownVersion { what: "control command", found, highest: 1 });
        }
        let command = match r.u8("command kind")? {
            1 => ControlCommand::Bootstrap {
                cluster: text(&mut r)?,
                partitions: r.varint_u32("partitions")?,
                replicas: r.varint_u32("replicas")?,
                authority_pem: r.text("authority", PEM_BYTES_MAX)?.to_owned(),
                authority_key_pem: r.text("authority key", PEM_BYTES_MAX)?.to_owned(),
            },
            2 => ControlCommand::AddNode {
                disk_id: text(&mut r)?,
                client_address: text(&mut r)?,
                peer_address: text(&mut r)?,
                zone: text(&mut r)?,
                feature_level: r.varint_u32("feature level")?,
            },
            3 => ControlCommand::SetDraining { node: node(&mut r)?, draining: r.flag("draining")? },
            4 => ControlCommand::RemoveNode { node: node(&mut r)?, force: r.flag("force")? },
            5 => ControlCommand::ReplaceNode { old: node(&mut r)?, new: node(&mut r)? },
            6 => {
                let partition = PartitionId(r.varint_u32("partition")?);
                let expected_epoch = r.varint("epoch")?;
                let count = r.count("replicas", NODES_MAX, 1)?;
                let replicas = (0..count).map(|_| node(&mut r)).collect::<Result<_, _>>()?;
                ControlCommand::SetPlacement { partition, replicas, expected_epoch }
            }
            7 => ControlCommand::CreateToken {
                id: text(&mut r)?,
                secret_hash: Bytes::copy_from_slice(r.prefixed("secret hash", TEXT_BYTES_MAX)?),
                expires: TimestampMs(r.varint("expires")?),
                now: TimestampMs(r.varint("now")?),
            },
            8 => ControlCommand::RaiseFeatureLevel { to: r.varint_u32("feature level")? },
            9 => ControlCommand::SetRetention { time_ms: r.varint("time")?, bytes: r.varint("bytes")? },
            10 => ControlCommand::PlacementReached {
                partition: PartitionId(r.varint_u32("partition")?),
                epoch: r.varint("epoch")?,
            },
            11 => ControlCommand::PutHubSetting {
                name: text(&mut r)?,
                value: Bytes::copy_from_slice(r.prefixed("hub setting", HUB_SETTING_BYTES_MAX)?),
                expected_version: r.varint("expected version")?,
            },
            kind => return Err(DecodeError::UnknownKind { what: "control command", found: u32::from(kind) }),
        };
        r.finish("control command")?;
        Ok(command)
    }
}

pub(crate) fn text(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(r.text("text", TEXT_BYTES_MAX)?.to_owned())
}

pub(crate) fn pem(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(r.text("certificate", PEM_BYTES_MAX)?.to_owned())
}

pub(crate) fn node(r: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    Ok(NodeId(r.varint("node")?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn add(disk: &str) -> ControlCommand {
        ControlCommand::AddNode {
            disk_id: disk.into(),
            client_address: format!("{disk}:4433"),
            peer_address: format!("{disk}:4434"),
            zone: String::new(),
            feature_level: 1,
        }
    }

    pub(crate) fn bootstrap(partitions: u32, replicas: u32) -> ControlCommand {
        ControlCommand::Bootstrap {
            cluster: "c".into(),
            partitions,
            replicas,
            authority_pem: "cert".into(),
            authority_key_pem: "key".into(),
        }
    }

    /// Every command comes back as it went; a later version or an unknown kind is refused.
    #[test]
    fn round_trip() {
        let commands = [
            bootstrap(16, 3),
            add("a"),
            ControlCommand::SetDraining { node: NodeId(1), draining: true },
            ControlCommand::RemoveNode { node: NodeId(1), force: false },
            ControlCommand::ReplaceNode { old: NodeId(1), new: NodeId(4) },
            ControlCommand::SetPlacement {
                partition: PartitionId(3),
                replicas: vec![NodeId(1), NodeId(2)],
                expected_epoch: 9,
            },
            ControlCommand::CreateToken {
                id: "id".into(),
                secret_hash: Bytes::from_static(b"hash"),
                expires: TimestampMs(10),
                now: TimestampMs(5),
            },
            ControlCommand::PlacementReached { partition: PartitionId(3), epoch: 10 },
            ControlCommand::RaiseFeatureLevel { to: 2 },
            ControlCommand::SetRetention { time_ms: 1000, bytes: 1 << 40 },
            ControlCommand::PutHubSetting {
                name: "policies".into(),
                value: Bytes::from_static(b"{}"),
                expected_version: 3,
            },
        ];
        for command in commands {
            let bytes = command.encode();
            assert_eq!(ControlCommand::decode(&bytes).unwrap(), command);
            for (at, value) in [(0, 2), (1, 99)] {
                let mut other = bytes.to_vec();
                other[at] = value;
                assert!(ControlCommand::decode(&other).is_err());
            }
            for len in 0..bytes.len() {
                assert!(ControlCommand::decode(&bytes[..len]).is_err());
            }
        }
    }
}
