//! The applied state of a partition's devices: counters in memory, everything else in rows.
//!
//! A node holds millions of devices, so rows are read when a command needs them. What the current
//! round has changed isn't in the store yet: it is in `overlay`, which is looked at first and
//! forgotten once the round is in the store ([`DeviceState::published`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_state::{KeyKind, StateBatch, StateError, StateStore};
use fleetline_types::{GroupId, PartitionId};
use prost::Message;

use crate::effect::Effect;
use crate::error::DeviceError;
use crate::rows::{DeviceHead, DeviceKey, DeviceRow, QueueRow, SessionRow, TwinRow};

/// Rows read at a time.
const PAGE: usize = 256;

/// A refusal, or a store that can't be read.
#[derive(Debug)]
pub(crate) enum Fail {
    Refused(DeviceError),
    State(StateError),
}

impl From<DeviceError> for Fail {
    fn from(error: DeviceError) -> Fail {
        Fail::Refused(error)
    }
}

impl From<StateError> for Fail {
    fn from(error: StateError) -> Fail {
        Fail::State(error)
    }
}

/// A partition's devices.
pub struct DeviceState {
    pub(crate) group: GroupId,
    store: Arc<dyn StateStore>,
    pub(crate) head: DeviceHead,
    head_changed: bool,
    overlay: BTreeMap<(KeyKind, Vec<u8>), Option<Bytes>>,
    pub(crate) effects: Vec<Effect>,
    /// Number of the change that is being applied: grows, and is the same on every replica.
    pub(crate) at: u64,
    /// The proposer's time.
    pub(crate) now: u64,
}

impl DeviceState {
    /// Reads the counters of `partition`'s devices.
    ///
    /// # Errors
    /// When the row can't be read.
    pub fn load(store: Arc<dyn StateStore>, partition: PartitionId) -> Result<DeviceState, StateError> {
        let group = GroupId::of_partition(partition);
        let head = match store.get(group, KeyKind::DeviceHead, b"")? {
            Some(row) => decode(KeyKind::DeviceHead, &row)?,
            None => DeviceHead::default(),
        };
        Ok(DeviceState {
            group,
            store,
            head,
            head_changed: false,
            overlay: BTreeMap::new(),
            effects: Vec::new(),
            at: 0,
            now: 0,
        })
    }

    /// The counters as of the last applied command.
    pub fn head(&self) -> DeviceHead {
        self.head
    }

    /// Writes what the round has changed and no command wrote itself.
    pub fn end_of_round(&mut self, out: &mut StateBatch) {
        if std::mem::take(&mut self.head_changed) {
            out.put(self.group, KeyKind::DeviceHead, Bytes::new(), self.head.encode_to_vec());
        }
    }

    /// The round is in the store. Gives what its leader has to do now.
    pub fn published(&mut self) -> Vec<Effect> {
        self.overlay.clear();
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn change_head(&mut self, change: impl FnOnce(&mut DeviceHead)) {
        change(&mut self.head);
        self.head_changed = true;
    }

    pub(crate) fn get(&self, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match self.overlay.get(&(kind, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.store.get(self.group, kind, key),
        }
    }

    pub(crate) fn row<M: Message + Default>(
        &self,
        kind: KeyKind,
        key: &[u8],
    ) -> Result<Option<M>, StateError> {
        self.get(kind, key)?.map(|row| decode(kind, &row)).transpose()
    }

    pub(crate) fn put(&mut self, out: &mut StateBatch, kind: KeyKind, key: Vec<u8>, row: &impl Message) {
        let row: Bytes = row.encode_to_vec().into();
        out.put(self.group, kind, key.clone(), row.clone());
        self.overlay.insert((kind, key), Some(row));
    }

    pub(crate) fn delete(&mut self, out: &mut StateBatch, kind: KeyKind, key: Vec<u8>) {
        out.delete(self.group, kind, key.clone());
        self.overlay.insert((kind, key), None);
    }

    /// Rows whose key begins with `prefix`, in order, at most `limit`.
    pub(crate) fn scan<M: Message + Default>(
        &self,
        kind: KeyKind,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, M)>, StateError> {
        let mut rows = BTreeMap::new();
        // Rows that the overlay removes don't count.
        let enough = limit.saturating_add(self.overlay.len());
        let mut from = prefix.to_vec();
        'store: loop {
            let page = self.store.scan(self.group, kind, &from, PAGE)?;
            let full = page.len() == PAGE;
            for (key, row) in page {
                if !key.starts_with(prefix) || rows.len() > enough {
                    break 'store;
                }
                from = [key.as_ref(), &[0]].concat();
                rows.insert(key.to_vec(), row);
            }
            if !full {
                break;
            }
        }
        let changed = self.overlay.range((kind, prefix.to_vec())..);
        for ((found, key), row) in changed {
            if *found != kind || !key.starts_with(prefix) {
                break;
            }
            match row {
                Some(row) => rows.insert(key.clone(), row.clone()),
                None => rows.remove(key),
            };
        }
        let decoded = rows.into_iter().take(limit);
        decoded.map(|(key, row)| Ok((key, decode(kind, &row)?))).collect()
    }

    pub(crate) fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRow>, StateError> {
        self.row(KeyKind::Device, &key.row_key())
    }

    /// The identity, or the refusal that says what is missing.
    pub(crate) fn existing(&self, key: &DeviceKey) -> Result<DeviceRow, Fail> {
        match self.device(key)? {
            Some(row) => Ok(row),
            None => Err(missing(key).into()),
        }
    }

    /// The identity when it may act, checked against the version of its credentials that the proposer
    /// checked the proof with.
    pub(crate) fn entitled(&self, key: &DeviceKey, auth_version: u64) -> Result<DeviceRow, Fail> {
        let row = self.existing(key)?;
        let mut current = row.auth_version;
        let mut disabled = row.spec.disabled;
        if key.is_module() {
            let device = self.existing(&DeviceKey::device(&key.device))?;
            current = current.max(device.auth_version);
            disabled |= device.spec.disabled;
        }
        if disabled {
            return Err(DeviceError::Disabled(key.text()).into());
        }
        match current == auth_version {
            true => Ok(row),
            false => Err(DeviceError::AuthChanged(key.text()).into()),
        }
    }

    pub(crate) fn twin(&self, key: &DeviceKey) -> Result<Option<TwinRow>, StateError> {
        self.row(KeyKind::Twin, &key.row_key())
    }

    pub(crate) fn session(&self, key: &DeviceKey) -> Result<Option<SessionRow>, StateError> {
        self.row(KeyKind::Session, &key.row_key())
    }

    /// The session, if `epoch` is that of its living connection.
    pub(crate) fn live_session(&self, key: &DeviceKey, epoch: u64) -> Result<SessionRow, Fail> {
        match self.session(key)? {
            Some(session) if session.connected && session.epoch == epoch => Ok(session),
            _ => Err(DeviceError::Fenced { device: key.text(), given: epoch }.into()),
        }
    }

    pub(crate) fn queue(&self, key: &DeviceKey) -> Result<QueueRow, StateError> {
        Ok(self.row(KeyKind::CommandQueue, &key.row_key())?.unwrap_or_default())
    }
}

pub(crate) fn missing(key: &DeviceKey) -> DeviceError {
    match key.is_module() {
        true => DeviceError::ModuleNotFound(key.text()),
        false => DeviceError::NotFound(key.text()),
    }
}

pub(crate) fn decode<M: Message + Default>(kind: KeyKind, row: &[u8]) -> Result<M, StateError> {
    M::decode(row).map_err(|error| StateError::Malformed { kind: kind as u8, reason: error.to_string() })
}
