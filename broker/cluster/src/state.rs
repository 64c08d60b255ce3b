//! The control group's state, its rows and its commands.
//!
//! Small by design: nodes, one placement a partition, a few settings. So readers get a whole copy
//! (an `Arc` of it) after each round instead of a structure that is shared with apply.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_state::{KeyKind, StateBatch, StateError, StateStore};
use fleetline_types::{GroupId, NodeId, PartitionId, TimestampMs};

use crate::command::{ControlCommand, HUB_SETTING_BYTES_MAX, NODES_MAX, node, pem, text};
use crate::reply::{ControlError, ControlReply};

/// Partitions that a hub may have.
const PARTITIONS_MAX: u32 = 4096;
/// Join tokens that may be valid at a time.
const TOKENS_MAX: usize = 100;
/// Rows of a kind that are read.
const ROWS_MAX: usize = 1 << 16;
/// Hub settings at the most.
const HUB_SETTINGS_MAX: usize = 256;
/// What the keys of hub settings begin with, among the rows of settings.
const HUB_PREFIX: &[u8] = b"hub/";

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Random id of its data folder.
    pub disk_id: String,
    /// `host:port` of its native front.
    pub client_address: String,
    /// `host:port` for other nodes.
    pub peer_address: String,
    /// Failure zone, or empty.
    pub zone: String,
    /// The highest feature level that it knows.
    pub feature_level: u32,
    /// It shall be empty.
    pub draining: bool,
}

/// Where a partition's replicas shall lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The nodes; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Nodes of earlier epochs that may still hold the only copies; empty once this one is reached.
    /// Invariant: none of them is in `replicas`.
    pub leaving: Vec<NodeId>,
    /// One more with every change.
    pub epoch: u64,
    /// The last epoch whose nodes the group was seen to consist of; 0 before it was made.
    /// Invariant: at most `epoch`.
    pub reached: u64,
}

impl Placement {
    /// Whether the group may not yet consist of the nodes that it shall.
    pub fn in_motion(&self) -> bool {
        self.reached < self.epoch
    }

    /// Whether the partition's group exists. Until then its first placement stands: the node that it names
    /// first makes the group, and must not miss that.
    pub fn is_made(&self) -> bool {
        self.reached > 0
    }

    /// Whether these are the nodes of this placement, whoever is preferred.
    pub fn same_nodes(&self, replicas: &[NodeId]) -> bool {
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        set(&self.replicas) == set(replicas)
    }

    /// Whether a node holds, or may still hold, a replica that counts.
    pub fn holds(&self, node: NodeId) -> bool {
        self.replicas.contains(&node) || self.leaving.contains(&node)
    }

    /// This placement with other nodes.
    fn with(&self, replicas: Vec<NodeId>) -> Placement {
        let epoch = self.epoch + 1;
        // Another order of the same nodes moves nothing.
        let still = self.is_made() && !self.in_motion() && self.same_nodes(&replicas);
        let reached = if still { epoch } else { self.reached };
        let all: BTreeSet<NodeId> = self.replicas.iter().chain(&self.leaving).copied().collect();
        let leaving = all.into_iter().filter(|node| !replicas.contains(node)).collect();
        Placement { replicas, leaving, epoch, reached }
    }
}

/// A join token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Hash of its secret.
    pub secret_hash: Bytes,
    /// When it ends.
    pub expires: TimestampMs,
}

/// What holds for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's id; empty before it was made.
    pub cluster: String,
    /// How many partitions the hub has.
    pub partitions: u32,
    /// How many replicas a partition should have.
    pub replicas: u32,
    /// The authority's certificate.
    pub authority_pem: String,
    /// The authority's key; empty when certificates come from elsewhere. Kept here so that any
    /// control leader can admit a node: whoever reads a node's data folder can sign.
    pub authority_key_pem: String,
    /// The next node id.
    pub next_node: u64,
    /// What is switched on.
    pub feature_level: u32,
    /// How long streams are kept, in milliseconds.
    pub retention_ms: u64,
    /// How much of each partition's stream is kept, in bytes.
    pub retention_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster: String::new(),
            partitions: 0,
            replicas: 0,
            authority_pem: String::new(),
            authority_key_pem: String::new(),
            next_node: 1,
            feature_level: 1,
            retention_ms: 24 * 60 * 60 * 1000,
            retention_bytes: 10 << 30,
        }
    }
}

/// The state of the control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlState {
    /// Settings.
    pub settings: Settings,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Placements.
    pub placements: BTreeMap<PartitionId, Placement>,
    /// Valid join tokens by id.
    pub tokens: BTreeMap<String, Token>,
    /// Settings of the hub by name.
    pub hub: BTreeMap<String, HubSetting>,
}

/// A setting of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSetting {
    /// Grows by one with each change, from 1 on; kept when a setting is removed.
    pub version: u64,
    /// What its reader makes of it; empty when it was removed.
    pub value: Bytes,
}

type Applied = Result<ControlReply, ControlError>;

fn refused(text: impl Into<String>) -> ControlError {
    ControlError::Refused(text.into())
}

impl ControlState {
    /// Reads the state from its rows.
    ///
    /// # Errors
    /// When a row can't be read.
    pub fn load(store: &dyn StateStore) -> Result<ControlState, StateError> {
        let mut state = ControlState::default();
        let rows = |kind| store.scan(GroupId::CONTROL, kind, b"", ROWS_MAX);
        let bad = |kind: KeyKind| {
            move |error: DecodeError| StateError::Malformed { kind: kind as u8, reason: error.to_string() }
        };
        if let Some(row) = store.get(GroupId::CONTROL, KeyKind::Setting, b"settings")? {
            state.settings = decode_settings(&row).map_err(bad(KeyKind::Setting))?;
        }
        for (key, row) in rows(KeyKind::Node)? {
            let id = key_u64(&key).map(NodeId).map_err(bad(KeyKind::Node))?;
            state.nodes.insert(id, decode_member(&row).map_err(bad(KeyKind::Node))?);
        }
        for (key, row) in rows(KeyKind::Placement)? {
            let id = key_u64(&key).map_err(bad(KeyKind::Placement))? as u32;
            let placement = decode_placement(&row).map_err(bad(KeyKind::Placement))?;
            state.placements.insert(PartitionId(id), placement);
        }
        for (key, row) in rows(KeyKind::JoinToken)? {
            let id = String::from_utf8_lossy(&key).into_owned();
            state.tokens.insert(id, decode_token(&row).map_err(bad(KeyKind::JoinToken))?);
        }
        for (key, row) in rows(KeyKind::Setting)? {
            if let Some(name) = key.strip_prefix(HUB_PREFIX) {
                let name = String::from_utf8_lossy(name).into_owned();
                state.hub.insert(name, decode_hub_setting(&row).map_err(bad(KeyKind::Setting))?);
            }
        }
        Ok(state)
    }

    /// Applies one command; changed rows go to `out`.
    pub fn apply(&mut self, command: &ControlCommand, out: &mut StateBatch) -> ControlReply {
        let applied = match command {
            ControlCommand::Bootstrap { cluster, partitions, replicas, authority_pem, authority_key_pem } => {
                let settings = Settings {
                    cluster: cluster.clone(),
                    partitions: *partitions,
                    replicas: *replicas,
                    authority_pem: authority_pem.clone(),
                    authority_key_pem: authority_key_pem.clone(),
                    ..Settings::default()
                };
                self.bootstrap(settings, out)
            }
            ControlCommand::AddNode { disk_id, client_address, peer_address, zone, feature_level } => {
                let member = Member {
                    disk_id: disk_id.clone(),
                    client_address: client_address.clone(),
                    peer_address: peer_address.clone(),
                    zone: zone.clone(),
                    feature_level: *feature_level,
                    draining: false,
                };
                self.add_node(member, out)
            }
            ControlCommand::SetDraining { node, draining } => self.member(*node).map(|mut member| {
                member.draining = *draining;
                self.put_node(*node, member, out);
                ControlReply::Done
            }),
            ControlCommand::RemoveNode { node, force } => self.remove_node(*node, *force, out),
            ControlCommand::ReplaceNode { old, new } => self.replace_node(*old, *new, out),
            ControlCommand::SetPlacement { partition, replicas, expected_epoch } => {
                self.set_placement(*partition, replicas, *expected_epoch, out)
            }
            ControlCommand::PlacementReached { partition, epoch } => {
                self.placement_reached(*partition, *epoch, out)
            }
            ControlCommand::CreateToken { id, secret_hash, expires, now } => {
                let token = Token { secret_hash: secret_hash.clone(), expires: *expires };
                self.create_token(id, token, *now, out)
            }
            ControlCommand::RaiseFeatureLevel { to } => self.raise_feature_level(*to, out),
            ControlCommand::SetRetention { time_ms, bytes } => self.set_retention(*time_ms, *bytes, out),
            ControlCommand::PutHubSetting { name, value, expected_version } => {
                self.put_hub_setting(name, value, *expected_version, out)
            }
        };
        applied.unwrap_or_else(ControlReply::Refused)
    }

    fn bootstrap(&mut self, settings: Settings, out: &mut StateBatch) -> Applied {
        if !self.settings.cluster.is_empty() {
            return Err(refused(format!("cluster {} exists already", self.settings.cluster)));
        }
        if settings.partitions == 0 || settings.partitions > PARTITIONS_MAX {
            let text = format!("a hub has 1 to {PARTITIONS_MAX} partitions, not {}", settings.partitions);
            return Err(refused(text));
        }
        if !matches!(settings.replicas, 1 | 3 | 5) || settings.cluster.is_empty() {
            return Err(refused(format!("a partition has 1, 3 or 5 replicas, not {}", settings.replicas)));
        }
        self.settings = settings;
        self.put_settings(out);
        Ok(ControlReply::Done)
    }

    fn add_node(&mut self, member: Member, out: &mut StateBatch) -> Applied {
        let level = self.settings.feature_level;
        if member.feature_level < level {
            let text = format!(
                "the node knows feature level {}, the cluster is at {level}: upgrade it",
                member.feature_level
            );
            return Err(refused(text));
        }
        let known = self.nodes.iter().find(|(_, m)| m.disk_id == member.disk_id);
        if let Some((id, before)) = known.map(|(id, before)| (*id, before.clone())) {
            self.put_node(id, Member { draining: before.draining, ..member }, out);
            return Ok(ControlReply::Node(id));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(refused(format!("a cluster has at most {NODES_MAX} nodes")));
        }
        let id = NodeId(self.settings.next_node);
        self.settings.next_node += 1;
        self.put_settings(out);
        self.put_node(id, member, out);
        Ok(ControlReply::Node(id))
    }

    fn remove_node(&mut self, id: NodeId, force: bool, out: &mut StateBatch) -> Applied {
        self.member(id)?;
        let held = self.placements.values().filter(|placement| placement.holds(id)).count();
        if held > 0 && !force {
            let text = format!(
                "node {} still holds replicas of {held} partitions: drain it first and wait until it is empty, or \
                 force the removal of a lost node",
                id.0
            );
            return Err(refused(text));
        }
        if self.nodes.len() == 1 {
            return Err(refused("the last node can't be removed"));
        }
        self.check_other_copies(id)?;
        self.forget_node(id, None, out);
        Ok(ControlReply::Done)
    }

    fn replace_node(&mut self, old: NodeId, new: NodeId, out: &mut StateBatch) -> Applied {
        self.member(old)?;
        if self.member(new)?.draining {
            return Err(refused(format!("node {} is being drained and takes no replicas", new.0)));
        }
        if old == new {
            return Err(refused("a node can't replace itself"));
        }
        self.check_other_copies(old)?;
        self.forget_node(old, Some(new), out);
        Ok(ControlReply::Done)
    }

    /// Without this node every partition still has a copy of its records somewhere.
    fn check_other_copies(&self, id: NodeId) -> Result<(), ControlError> {
        let only = self.placements.iter().find(|(_, placement)| {
            let mut all = placement.replicas.iter().chain(&placement.leaving);
            placement.holds(id) && all.all(|node| *node == id)
        });
        match only {
            None => Ok(()),
            Some((partition, _)) => Err(refused(format!(
                "node {} holds the only replica of partition {}: start it again, nobody else has those records",
                id.0, partition.0
            ))),
        }
    }

    /// Takes a node out of the members and of all placements; `heir` gets its replicas.
    fn forget_node(&mut self, id: NodeId, heir: Option<NodeId>, out: &mut StateBatch) {
        let held = self.placements.iter().filter(|(_, placement)| placement.holds(id));
        let held: Vec<(PartitionId, Placement)> =
            held.map(|(id, placement)| (*id, placement.clone())).collect();
        for (partition, before) in held {
            let mut replicas = before.replicas.clone();
            match (replicas.iter().position(|node| *node == id), heir) {
                (Some(at), Some(heir)) if !replicas.contains(&heir) => replicas[at] = heir,
                (Some(at), _) => drop(replicas.remove(at)),
                (None, _) => {}
            }
            if replicas.is_empty() {
                // What is left of the earlier epoch has the records: the placement goes back to it.
                replicas = before.leaving.iter().copied().filter(|node| *node != id).collect();
            }
            let mut placement = before.with(replicas);
            placement.leaving.retain(|node| *node != id);
            self.put_placement(partition, placement, out);
        }
        self.nodes.remove(&id);
        out.delete(GroupId::CONTROL, KeyKind::Node, id.0.to_be_bytes().to_vec());
    }

    fn set_placement(
        &mut self,
        partition: PartitionId,
        replicas: &[NodeId],
        expected: u64,
        out: &mut StateBatch,
    ) -> Applied {
        if partition.0 >= self.settings.partitions {
            return Err(ControlError::NotFound(format!("partition {}", partition.0)));
        }
        let before = self.placements.get(&partition).cloned().unwrap_or_default();
        if before.epoch != expected {
            return Err(ControlError::Stale { current: before.epoch, expected });
        }
        if before.epoch > 0 && !before.is_made() {
            return Err(refused(format!("partition {} is still being made, try again", partition.0)));
        }
        let distinct: BTreeSet<NodeId> = replicas.iter().copied().collect();
        if replicas.is_empty() || distinct.len() != replicas.len() {
            return Err(refused("replicas lie on one node at least, and on each node once"));
        }
        for node in replicas {
            self.member(*node)?;
        }
        self.put_placement(partition, before.with(replicas.to_vec()), out);
        Ok(ControlReply::Done)
    }

    fn placement_reached(&mut self, partition: PartitionId, epoch: u64, out: &mut StateBatch) -> Applied {
        let before = self.placements.get(&partition).cloned();
        let before = before.ok_or_else(|| ControlError::NotFound(format!("partition {}", partition.0)))?;
        if before.epoch != epoch {
            return Err(ControlError::Stale { current: before.epoch, expected: epoch });
        }
        let placement = Placement { reached: epoch, leaving: Vec::new(), ..before };
        self.put_placement(partition, placement, out);
        Ok(ControlReply::Done)
    }

    fn create_token(&mut self, id: &str, token: Token, now: TimestampMs, out: &mut StateBatch) -> Applied {
        let ended: Vec<String> =
            self.tokens.iter().filter(|(_, t)| t.expires < now).map(|(id, _)| id.clone()).collect();
        for id in ended {
            self.tokens.remove(&id);
            out.delete(GroupId::CONTROL, KeyKind::JoinToken, id.into_bytes());
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(refused(format!("{TOKENS_MAX} join tokens are valid already")));
        }
        out.put(GroupId::CONTROL, KeyKind::JoinToken, id.as_bytes().to_vec(), encode_token(&token));
        self.tokens.insert(id.to_owned(), token);
        Ok(ControlReply::Done)
    }

    fn raise_feature_level(&mut self, to: u32, out: &mut StateBatch) -> Applied {
        if to < self.settings.feature_level {
            return Err(refused(format!(
                "the feature level is {} and never falls",
                self.settings.feature_level
            )));
        }
        if let Some((id, _)) = self.nodes.iter().find(|(_, member)| member.feature_level < to) {
            return Err(refused(format!("node {} doesn't know feature level {to}: upgrade it first", id.0)));
        }
        self.settings.feature_level = to;
        self.put_settings(out);
        Ok(ControlReply::Done)
    }

    fn set_retention(&mut self, time_ms: u64, bytes: u64, out: &mut StateBatch) -> Applied {
        if time_ms < 1000 || bytes < 1 << 20 {
            let text = format!("a retention of {time_ms} ms and {bytes} bytes: keep at least 1 s and 1 MiB");
            return Err(refused(text));
        }
        (self.settings.retention_ms, self.settings.retention_bytes) = (time_ms, bytes);
        self.put_settings(out);
        Ok(ControlReply::Done)
    }

    fn put_hub_setting(&mut self, name: &str, value: &Bytes, expected: u64, out: &mut StateBatch) -> Applied {
        let current = self.hub.get(name).map_or(0, |setting| setting.version);
        if current != expected {
            return Err(ControlError::Stale { current, expected });
        }
        if name.is_empty() || value.len() > HUB_SETTING_BYTES_MAX || self.hub.len() >= HUB_SETTINGS_MAX {
            return Err(refused(format!("hub setting {name:?} of {} bytes", value.len())));
        }
        let setting = HubSetting { version: current + 1, value: value.clone() };
        let key = [HUB_PREFIX, name.as_bytes()].concat();
        out.put(GroupId::CONTROL, KeyKind::Setting, key, encode_hub_setting(&setting));
        self.hub.insert(name.to_owned(), setting);
        Ok(ControlReply::Done)
    }

    fn member(&self, id: NodeId) -> Result<Member, ControlError> {
        self.nodes.get(&id).cloned().ok_or_else(|| ControlError::NotFound(format!("node {}", id.0)))
    }

    fn put_settings(&self, out: &mut StateBatch) {
        out.put(GroupId::CONTROL, KeyKind::Setting, b"settings".to_vec(), encode_settings(&self.settings));
    }

    fn put_node(&mut self, id: NodeId, member: Member, out: &mut StateBatch) {
        out.put(GroupId::CONTROL, KeyKind::Node, id.0.to_be_bytes().to_vec(), encode_member(&member));
        self.nodes.insert(id, member);
    }

    fn put_placement(&mut self, id: PartitionId, placement: Placement, out: &mut StateBatch) {
        let key = u64::from(id.0).to_be_bytes().to_vec();
        out.put(GroupId::CONTROL, KeyKind::Placement, key, encode_placement(&placement));
        self.placements.insert(id, placement);
    }
}

fn key_u64(key: &[u8]) -> Result<u64, DecodeError> {
    let mut r = Reader::new(key);
    let value = r.u64_be("row key")?;
    r.finish("row key")?;
    Ok(value)
}

fn version(r: &mut Reader<'_>, what: &'static str) -> Result<(), DecodeError> {
    match r.u8(what)? {
        1 => Ok(()),
        found => Err(DecodeError::UnknownVersion { what, found: u32::from(found), highest: 1 }),
    }
}

fn encode_settings(settings: &Settings) -> Bytes {
    let mut out = vec![1];
    let mut w = Writer::new(&mut out);
    w.text(&settings.cluster).varint(u64::from(settings.partitions)).varint(u64::from(settings.replicas));
    w.text(&settings.authority_pem).text(&settings.authority_key_pem).varint(settings.next_node);
    w.varint(u64::from(settings.feature_level))
        .varint(settings.retention_ms)
        .varint(settings.retention_bytes);
    out.into()
}

fn decode_settings(row: &[u8]) -> Result<Settings, DecodeError> {
    let mut r = Reader::new(row);
    version(&mut r, "settings row")?;
    let settings = Settings {
        cluster: text(&mut r)?,
        partitions: r.varint_u32("partitions")?,
        replicas: r.varint_u32("replicas")?,
        authority_pem: pem(&mut r)?,
        authority_key_pem: pem(&mut r)?,
        next_node: r.varint("next node")?,
        feature_level: r.varint_u32("feature level")?,
        retention_ms: r.varint("retention")?,
        retention_bytes: r.varint("retention bytes")?,
    };
    r.finish("settings row")?;
    Ok(settings)
}

fn encode_hub_setting(setting: &HubSetting) -> Bytes {
    let mut out = vec![1];
    Writer::new(&mut out).varint(setting.version).prefixed(&setting.value);
    out.into()
}

fn decode_hub_setting(row: &[u8]) -> Result<HubSetting, DecodeError> {
    let mut r = Reader::new(row);
    version(&mut r, "hub setting row")?;
    let setting = HubSetting {
        version: r.varint("version")?,
        value: Bytes::copy_from_slice(r.prefixed("hub setting", HUB_SETTING_BYTES_MAX)?),
    };
    r.finish("hub setting row")?;
    Ok(setting)
}

fn encode_member(member: &Member) -> Bytes {
    let mut out = vec![1];
    let mut w = Writer::new(&mut out);
    w.text(&member.disk_id).text(&member.client_address).text(&member.peer_address).text(&member.zone);
    w.varint(u64::from(member.feature_level)).flag(member.draining);
    out.into()
}

fn decode_member(row: &[u8]) -> Result<Member, DecodeError> {
    let mut r = Reader::new(row);
    version(&mut r, "node row")?;
    let member = Member {
        disk_id: text(&mut r)?,
        client_address: text(&mut r)?,
        peer_address: text(&mut r)?,
        zone: text(&mut r)?,
        feature_level: r.varint_u32("feature level")?,
        draining: r.flag("draining")?,
    };
    r.finish("node row")?;
    Ok(member)
}

fn encode_placement(placement: &Placement) -> Bytes {
    let mut out = vec![2];
    let mut w = Writer::new(&mut out);
    w.varint(placement.epoch).varint(placement.reached);
    for nodes in [&placement.replicas, &placement.leaving] {
        w.varint(nodes.len() as u64);
        for node in nodes {
            w.varint(node.0);
        }
    }
    out.into()
}

/// Version 1 had neither `reached` nor `leaving`: what it placed counts as reached.
fn decode_placement(row: &[u8]) -> Result<Placement, DecodeError> {
    let mut r = Reader::new(row);
    let version = r.u8("placement row")?;
    let epoch = r.varint("epoch")?;
    let placement = match version {
        1 => Placement { replicas: nodes(&mut r, "replicas")?, leaving: Vec::new(), epoch, reached: epoch },
        2 => {
            let reached = r.varint("reached epoch")?;
            let (replicas, leaving) = (nodes(&mut r, "replicas")?, nodes(&mut r, "leaving nodes")?);
            Placement { replicas, leaving, epoch, reached }
        }
        found => {
            let found = u32::from(found);
            return Err(DecodeError::UnknownVersion { what: "placement row", found, highest: 2 });
        }
    };
    r.finish("placement row")?;
    Ok(placement)
}

fn nodes(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<NodeId>, DecodeError> {
    let count = r.count(what, NODES_MAX, 1)?;
    (0..count).map(|_| node(r)).collect()
}

fn encode_token(token: &Token) -> Bytes {
    let mut out = vec![1];
    Writer::new(&mut out).prefixed(&token.secret_hash).varint(token.expires.0);
    out.into()
}

fn decode_token(row: &[u8]) -> Result<Token, DecodeError> {
    let mut r = Reader::new(row);
    version(&mut r, "token row")?;
    let secret_hash = Bytes::copy_from_slice(r.prefixed("secret hash", 1024)?);
    let token = Token { secret_hash, expires: TimestampMs(r.varint("expires")?) };
    r.finish("token row")?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use fleetline_state::memory::MemState;
    use proptest::prelude::*;

    use super::*;
    use crate::command::tests::{add, bootstrap};

    struct Control {
        state: ControlState,
        store: MemState,
    }

    impl Control {
        fn new() -> Control {
            Control { state: ControlState::default(), store: MemState::new() }
        }

        /// Applies, and checks that the rows give the same state.
        fn apply(&mut self, command: &ControlCommand) -> ControlReply {
            let mut batch = StateBatch::default();
            let reply = self.state.apply(command, &mut batch);
            self.store.write(batch).unwrap();
            assert_eq!(ControlState::load(&self.store).unwrap(), self.state);
            reply
        }
    }

    fn place(partition: u32, nodes: &[u64], expected_epoch: u64) -> ControlCommand {
        let replicas = nodes.iter().copied().map(NodeId).collect();
        ControlCommand::SetPlacement { partition: PartitionId(partition), replicas, expected_epoch }
    }

    /// A hub setting is changed by who has seen its last version, and survives a restart.
    #[test]
    fn hub_settings() {
        let store = fleetline_state::memory::MemState::new();
        let mut state = ControlState::default();
        let put = |value: &'static [u8], expected_version| ControlCommand::PutHubSetting {
            name: "policies".into(),
            value: Bytes::from_static(value),
            expected_version,
        };
        let mut out = StateBatch::default();
        assert_eq!(state.apply(&put(b"a", 0), &mut out), ControlReply::Done);
        let stale = ControlReply::Refused(ControlError::Stale { current: 1, expected: 0 });
        assert_eq!(state.apply(&put(b"b", 0), &mut out), stale);
        assert_eq!(state.apply(&put(b"b", 1), &mut out), ControlReply::Done);
        fleetline_state::StateStore::write(&store, out).unwrap();
        let back = ControlState::load(&store).unwrap();
        assert_eq!(back.hub, state.hub);
        assert_eq!(back.hub["policies"], HubSetting { version: 2, value: Bytes::from_static(b"b") });
    }

    /// A cluster is made once; nodes keep their id by disk and never get a used one.
    #[test]
    fn members() {
        let mut c = Control::new();
        assert_eq!(c.apply(&bootstrap(4, 3)), ControlReply::Done);
        assert!(matches!(c.apply(&bootstrap(4, 3)), ControlReply::Refused(_)));
        assert_eq!(c.apply(&add("a")), ControlReply::Node(NodeId(1)));
        assert_eq!(c.apply(&add("b")), ControlReply::Node(NodeId(2)));
        assert_eq!(c.apply(&add("a")), ControlReply::Node(NodeId(1)));
        let remove = |node, force| ControlCommand::RemoveNode { node: NodeId(node), force };
        assert_eq!(c.apply(&remove(2, false)), ControlReply::Done);
        assert_eq!(c.apply(&add("b")), ControlReply::Node(NodeId(3)));
        assert!(matches!(c.apply(&remove(2, true)), ControlReply::Refused(ControlError::NotFound(_))));
    }

    fn reached(partition: u32, epoch: u64) -> ControlCommand {
        ControlCommand::PlacementReached { partition: PartitionId(partition), epoch }
    }

    fn remove(node: u64, force: bool) -> ControlCommand {
        ControlCommand::RemoveNode { node: NodeId(node), force }
    }

    fn four_nodes() -> Control {
        let mut c = Control::new();
        c.apply(&bootstrap(4, 3));
        for disk in ["a", "b", "c", "d"] {
            c.apply(&add(disk));
        }
        c
    }

    fn refusal(reply: ControlReply) -> String {
        match reply {
            ControlReply::Refused(error) => error.to_string(),
            other => panic!("was not refused: {other:?}"),
        }
    }

    /// Placements change only against the epoch that was seen; a node with replicas goes only by force
    /// or by replacement.
    #[test]
    fn placements() {
        let mut c = four_nodes();
        assert_eq!(c.apply(&place(0, &[1, 2, 3], 0)), ControlReply::Done);
        let stale = c.apply(&place(0, &[1], 0));
        assert_eq!(stale, ControlReply::Refused(ControlError::Stale { current: 1, expected: 0 }));
        for bad in [place(9, &[1], 0), place(1, &[1, 1], 0), place(1, &[], 0), place(1, &[7], 0)] {
            refusal(c.apply(&bad));
        }
        assert!(refusal(c.apply(&place(0, &[1, 2, 4], 1))).contains("being made"));
        c.apply(&reached(0, 1));
        assert!(refusal(c.apply(&remove(2, false))).contains("drain it first"));
        c.apply(&ControlCommand::ReplaceNode { old: NodeId(2), new: NodeId(4) });
        assert_eq!(c.state.placements[&PartitionId(0)].replicas, [NodeId(1), NodeId(4), NodeId(3)]);
        c.apply(&remove(3, true));
        assert_eq!(c.state.placements[&PartitionId(0)].replicas, [NodeId(1), NodeId(4)]);
        assert_eq!(c.state.placements[&PartitionId(0)].epoch, 3);
    }

    /// A node that was emptied on paper holds the data until the partition's leader says that others do:
    /// it can't be removed before. Another order of the same nodes is no motion.
    #[test]
    fn leaving_nodes_hold() {
        let mut c = four_nodes();
        c.apply(&place(0, &[1], 0));
        c.apply(&reached(0, 1));
        c.apply(&place(0, &[2, 3, 4], 1));
        assert!(refusal(c.apply(&remove(1, false))).contains("still holds"));
        assert_eq!(refusal(c.apply(&reached(0, 1))), "placement has epoch 2, the command expects 1");
        assert!(c.state.placements[&PartitionId(0)].in_motion());
        c.apply(&reached(0, 2));
        c.apply(&place(0, &[3, 2, 4], 2));
        assert!(!c.state.placements[&PartitionId(0)].in_motion());
        assert_eq!(c.apply(&remove(1, false)), ControlReply::Done);
    }

    /// Nobody takes the only copy of a partition away, not even by force; an unfinished move goes back.
    #[test]
    fn the_only_copy_stays() {
        let mut c = four_nodes();
        c.apply(&place(0, &[1], 0));
        c.apply(&reached(0, 1));
        assert!(refusal(c.apply(&remove(1, true))).contains("the only replica of partition 0"));
        let replace = ControlCommand::ReplaceNode { old: NodeId(1), new: NodeId(2) };
        assert!(refusal(c.apply(&replace)).contains("the only replica"));
        c.apply(&place(0, &[2], 1));
        assert_eq!(c.apply(&remove(2, true)), ControlReply::Done);
        assert_eq!(c.state.placements[&PartitionId(0)].replicas, [NodeId(1)]);
    }

    /// A lost node is replaced only by one that is there and stays.
    #[test]
    fn replacements() {
        let mut c = four_nodes();
        let replace = |old, new| ControlCommand::ReplaceNode { old: NodeId(old), new: NodeId(new) };
        for (old, new) in [(1, 1), (1, 9), (9, 1)] {
            refusal(c.apply(&replace(old, new)));
        }
        c.apply(&ControlCommand::SetDraining { node: NodeId(2), draining: true });
        assert!(refusal(c.apply(&replace(1, 2))).contains("drained"));
        assert_eq!(c.apply(&replace(1, 3)), ControlReply::Done);
        assert!(!c.state.nodes.contains_key(&NodeId(1)));
    }

    /// Placement rows of the first form are read: what they place counts as reached.
    #[test]
    fn first_form_of_placement_rows() {
        let found = decode_placement(&[1, 7, 2, 3, 4]).unwrap();
        let replicas = vec![NodeId(3), NodeId(4)];
        assert_eq!(found, Placement { replicas, leaving: vec![], epoch: 7, reached: 7 });
        assert!(decode_placement(&[3, 7, 2, 3, 4]).is_err());
    }

    /// The feature level rises only when every node knows it, and keeps older nodes out.
    #[test]
    fn feature_level() {
        let mut c = Control::new();
        c.apply(&bootstrap(1, 1));
        c.apply(&add("a"));
        assert!(matches!(c.apply(&ControlCommand::RaiseFeatureLevel { to: 2 }), ControlReply::Refused(_)));
        let ControlCommand::AddNode { disk_id, client_address, peer_address, zone, .. } = add("a") else {
            unreachable!()
        };
        let newer = ControlCommand::AddNode { disk_id, client_address, peer_address, zone, feature_level: 2 };
        c.apply(&newer);
        assert_eq!(c.apply(&ControlCommand::RaiseFeatureLevel { to: 2 }), ControlReply::Done);
        assert!(matches!(c.apply(&add("old")), ControlReply::Refused(_)));
    }

    /// Tokens that have ended are forgotten, and there is a bound on those that are valid.
    #[test]
    fn tokens() {
        let mut c = Control::new();
        let token = |n: u64, now| ControlCommand::CreateToken {
            id: format!("t{n}"),
            secret_hash: Bytes::from_static(b"h"),
            expires: TimestampMs(100),
            now: TimestampMs(now),
        };
        for n in 0..TOKENS_MAX as u64 {
            assert_eq!(c.apply(&token(n, 1)), ControlReply::Done);
        }
        assert!(matches!(c.apply(&token(1000, 1)), ControlReply::Refused(_)));
        assert_eq!(c.apply(&token(1001, 101)), ControlReply::Done);
        assert_eq!(c.state.tokens.len(), 1);
    }

    fn any_command() -> impl Strategy<Value = ControlCommand> {
        let node = || 1u64..7;
        prop_oneof![
            4 => (0u8..8).prop_map(|disk| add(&format!("d{disk}"))),
            1 => (node(), any::<bool>()).prop_map(|(node, draining)| {
                ControlCommand::SetDraining { node: NodeId(node), draining }
            }),
            1 => (node(), any::<bool>()).prop_map(|(node, force)| remove(node, force)),
            1 => (node(), node()).prop_map(|(old, new)| {
                ControlCommand::ReplaceNode { old: NodeId(old), new: NodeId(new) }
            }),
            6 => (0u32..3, prop::collection::vec(node(), 0..4), 0u64..6)
                .prop_map(|(partition, nodes, epoch)| place(partition, &nodes, epoch)),
            4 => (0u32..3, 0u64..6).prop_map(|(partition, epoch)| reached(partition, epoch)),
            1 => (1u32..3).prop_map(|to| ControlCommand::RaiseFeatureLevel { to }),
            1 => (0u64..9, 0u64..9).prop_map(|(time_ms, bytes)| ControlCommand::SetRetention { time_ms, bytes }),
            1 => (0u64..5, 0u64..20, 0u64..20).prop_map(|(id, expires, now)| ControlCommand::CreateToken {
                id: format!("t{id}"),
                secret_hash: Bytes::from_static(b"h"),
                expires: TimestampMs(expires),
                now: TimestampMs(now),
            }),
        ]
    }

    proptest! {
        /// Whatever is applied: the rows give the same state at every point, two replicas agree (one of
        /// them reloaded along the way), ids are never reused, and the invariants of placements hold.
        #[test]
        fn replicas_agree(commands in prop::collection::vec((any_command(), any::<bool>()), 1..60)) {
            let (mut one, mut other) = (Control::new(), Control::new());
            one.apply(&bootstrap(3, 3));
            other.apply(&bootstrap(3, 3));
            let mut disks: BTreeMap<NodeId, String> = BTreeMap::new();
            for (command, reload) in commands {
                if reload {
                    other.state = ControlState::load(&other.store).unwrap();
                }
                let decoded = ControlCommand::decode(&command.encode()).unwrap();
                prop_assert_eq!(one.apply(&command), other.apply(&decoded));
                prop_assert_eq!(&one.state, &other.state);
                for (id, member) in &one.state.nodes {
                    let disk = disks.entry(*id).or_insert_with(|| member.disk_id.clone());
                    prop_assert_eq!(&*disk, &member.disk_id);
                }
                for placement in one.state.placements.values() {
                    prop_assert!(!placement.replicas.is_empty());
                    prop_assert!(placement.reached <= placement.epoch);
                    let mut all = placement.replicas.iter().chain(&placement.leaving);
                    prop_assert!(placement.leaving.iter().all(|node| !placement.replicas.contains(node)));
                    prop_assert!(all.all(|node| one.state.nodes.contains_key(node)));
                }
            }
        }
    }
}
