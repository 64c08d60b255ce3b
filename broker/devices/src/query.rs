//! Reads of a partition's devices. Each reads the store as of the last round; a caller that needs a
//! linearizable answer waits for the group's read barrier first.

use bytes::Bytes;
use fleetline_state::{KeyKind, StateError, StateStore};
use fleetline_types::{GroupId, PartitionId};
use prost::Message;

use crate::apply::is_locked;
use crate::rows::{
    CommandRow, DeviceHead, DeviceKey, DeviceRow, DocumentRow, EventRow, FenceRow, QueueRow, SessionRow,
    TwinRow,
};
use crate::state::decode;

/// A page of rows, and the key to go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Bytes>,
}

/// Reads of one partition.
#[derive(Clone, Copy, Debug)]
pub struct DeviceQuery<'a> {
    store: &'a dyn StateStore,
    group: GroupId,
}

impl<'a> DeviceQuery<'a> {
    /// Reads of `partition` in `store`.
    pub fn new(store: &'a dyn StateStore, partition: PartitionId) -> DeviceQuery<'a> {
        DeviceQuery { store, group: GroupId::of_partition(partition) }
    }

    fn row<M: Message + Default>(&self, kind: KeyKind, key: &[u8]) -> Result<Option<M>, StateError> {
        self.store.get(self.group, kind, key)?.map(|row| decode(kind, &row)).transpose()
    }

    /// The counters.
    pub fn head(&self) -> Result<DeviceHead, StateError> {
        Ok(self.row(KeyKind::DeviceHead, b"")?.unwrap_or_default())
    }

    /// An identity.
    pub fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRow>, StateError> {
        self.row(KeyKind::Device, &key.row_key())
    }

    /// The version of what an identity may do: its own and, for a module, its device's.
    pub fn auth_version(&self, row: &DeviceRow) -> Result<u64, StateError> {
        if !row.key.is_module() {
            return Ok(row.auth_version);
        }
        let device = self.device(&DeviceKey::device(&row.key.device))?;
        Ok(device.map_or(row.auth_version, |device| device.auth_version.max(row.auth_version)))
    }

    /// A twin.
    pub fn twin(&self, key: &DeviceKey) -> Result<Option<TwinRow>, StateError> {
        self.row(KeyKind::Twin, &key.row_key())
    }

    /// A session.
    pub fn session(&self, key: &DeviceKey) -> Result<Option<SessionRow>, StateError> {
        self.row(KeyKind::Session, &key.row_key())
    }

    /// How many commands wait.
    pub fn command_count(&self, key: &DeviceKey) -> Result<u32, StateError> {
        let queue: Option<QueueRow> = self.row(KeyKind::CommandQueue, &key.row_key())?;
        Ok(queue.unwrap_or_default().count)
    }

    /// Commands behind `after` that nobody has and that aren't too old, oldest first.
    pub fn commands(
        &self,
        key: &DeviceKey,
        after: u64,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<CommandRow>, StateError> {
        let prefix = key.numbered_prefix();
        let rows = self.store.scan(
            self.group,
            KeyKind::Command,
            &key.numbered(after.saturating_add(1)),
            limit.saturating_add(64),
        )?;
        let mut commands = Vec::new();
        for (row_key, row) in rows {
            if !row_key.starts_with(&prefix) || commands.len() == limit {
                break;
            }
            let row: CommandRow = decode(KeyKind::Command, &row)?;
            if !is_locked(&row, now_ms) && row.expires_ms > now_ms {
                commands.push(row);
            }
        }
        Ok(commands)
    }

    /// Identities from `from` on, devices and modules in order of their keys.
    pub fn devices(&self, from: &[u8], limit: usize) -> Result<Page<DeviceRow>, StateError> {
        self.page(KeyKind::Device, from, limit)
    }

    /// The modules of a device.
    pub fn modules(&self, device: &str) -> Result<Vec<DeviceRow>, StateError> {
        let prefix = [device.as_bytes(), &[0]].concat();
        let rows = self.store.scan(self.group, KeyKind::Device, &prefix, crate::limits::MODULES_MAX + 8)?;
        rows.into_iter()
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, row)| decode(KeyKind::Device, &row))
            .collect()
    }

    /// Fences behind `after`, oldest first; `None` when some of them aren't listed any more.
    pub fn fences(&self, after: u32, limit: usize) -> Result<Option<Vec<FenceRow>>, StateError> {
        let head = self.head()?;
        if after.saturating_add(1) < head.fence_oldest {
            return Ok(None);
        }
        let from = after.saturating_add(1).to_be_bytes();
        let rows = self.store.scan(self.group, KeyKind::FenceLog, &from, limit)?;
        let decoded = rows.into_iter().map(|(_, row)| decode(KeyKind::FenceLog, &row));
        decoded.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Sessions from `from` on that a connection has.
    pub fn connected(&self, from: &[u8], limit: usize) -> Result<Page<(DeviceKey, SessionRow)>, StateError> {
        let rows = self.store.scan(self.group, KeyKind::Session, from, limit)?;
        let next = (rows.len() == limit).then(|| rows.last().map(|(key, _)| after(key))).flatten();
        let mut sessions = Vec::new();
        for (key, row) in rows {
            let row: SessionRow = decode(KeyKind::Session, &row)?;
            if let (true, Some(key)) = (row.connected, parse_key(&key)) {
                sessions.push((key, row));
            }
        }
        Ok(Page { rows: sessions, next })
    }

    /// Queues of commands from `from` on, at most `limit`, and when the first command of each may be too old.
    pub fn queues(&self, from: &[u8], limit: usize) -> Result<Page<(DeviceKey, u64)>, StateError> {
        let rows = self.store.scan(self.group, KeyKind::CommandQueue, from, limit)?;
        let next = (rows.len() == limit).then(|| rows.last().map(|(key, _)| after(key))).flatten();
        let mut queues = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            let row: QueueRow = decode(KeyKind::CommandQueue, &row)?;
            queues.extend(parse_key(&key).map(|key| (key, row.next_expiry_ms)));
        }
        Ok(Page { rows: queues, next })
    }

    /// Events that wait to become records, oldest first, and the number of the first.
    pub fn outbox(&self, limit: usize) -> Result<(u64, Vec<EventRow>), StateError> {
        let done = self.head()?.outbox_done;
        let rows = self.store.scan(self.group, KeyKind::Outbox, &done.to_be_bytes(), limit)?;
        // A round may have ended since the head was read: the rows say where they begin.
        let first = rows.first().and_then(|(key, _)| Some(u64::from_be_bytes(key.as_ref().try_into().ok()?)));
        let decoded = rows.into_iter().map(|(_, row)| decode(KeyKind::Outbox, &row));
        Ok((first.unwrap_or(done), decoded.collect::<Result<_, _>>()?))
    }

    /// A document.
    pub fn document(&self, name: &str) -> Result<Option<DocumentRow>, StateError> {
        self.row(KeyKind::Document, name.as_bytes())
    }

    /// Documents whose name begins with `prefix`, from the name `from` on, at most `limit`.
    pub fn documents(
        &self,
        prefix: &str,
        from: &str,
        limit: usize,
    ) -> Result<Vec<(String, DocumentRow)>, StateError> {
        let from = from.max(prefix).as_bytes();
        let rows = self.store.scan(self.group, KeyKind::Document, from, limit)?;
        let named = rows.into_iter().take_while(|(key, _)| key.starts_with(prefix.as_bytes()));
        let decoded = named.map(|(key, row)| {
            Ok((String::from_utf8_lossy(&key).into_owned(), decode(KeyKind::Document, &row)?))
        });
        decoded.collect()
    }

    fn page<M: Message + Default>(
        &self,
        kind: KeyKind,
        from: &[u8],
        limit: usize,
    ) -> Result<Page<M>, StateError> {
        let rows = self.store.scan(self.group, kind, from, limit)?;
        let next = (rows.len() == limit).then(|| rows.last().map(|(key, _)| after(key))).flatten();
        let decoded = rows.into_iter().map(|(_, row)| decode(kind, &row));
        Ok(Page { rows: decoded.collect::<Result<_, _>>()?, next })
    }
}

/// The first key behind this one.
fn after(key: &Bytes) -> Bytes {
    [key.as_ref(), &[0]].concat().into()
}

/// The identity of a row that an identity has one of.
fn parse_key(key: &[u8]) -> Option<DeviceKey> {
    let text = std::str::from_utf8(key).ok()?;
    Some(match text.split_once('\0') {
        Some((device, module)) => DeviceKey::module(device, module),
        None => DeviceKey::device(text),
    })
}
