//! Fences: what an identity began before counts no more.
//!
//! Each has a number. A gateway's batch carries the number of the last fence that its gateway has
//! applied; the log decides (design D6): a batch with the current number passes without a look, one
//! with an older number is looked into (its device table only) and refused whole if it names a device
//! that was fenced since. The gateway then learns the fences, drops what they hit, and sends the rest
//! again. So neither a new connection nor a disabled device waits for a gateway that is cut off.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetline_batch::BatchReader;
use fleetline_state::{KeyKind, StateBatch, StateError};

use crate::effect::{Effect, Wake};
use crate::limits::FENCES_KEPT;
use crate::rows::{DeviceKey, FenceRow, SessionRow};
use crate::state::DeviceState;

impl DeviceState {
    /// Fences an identity: ends its session (and its modules' sessions), tells their gateways, and makes
    /// batches of gateways that don't know it be looked into.
    pub(crate) fn fence(
        &mut self,
        key: &DeviceKey,
        with_modules: bool,
        out: &mut StateBatch,
    ) -> Result<(), StateError> {
        // A module has none; its siblings go on.
        let with_modules = with_modules && !key.is_module();
        let number = self.head.fence.max(1) + 1;
        let row = FenceRow { key: key.clone(), with_modules, index: self.at, number };
        self.put(out, KeyKind::FenceLog, number.to_be_bytes().to_vec(), &row);
        // By device: batches name devices, not modules.
        self.put(out, KeyKind::Fence, key.device.as_bytes().to_vec(), &row);
        let oldest = self.head.fence_oldest.max(2);
        let forget = number - oldest >= FENCES_KEPT;
        if forget {
            self.delete(out, KeyKind::FenceLog, oldest.to_be_bytes().to_vec());
        }
        self.change_head(|head| {
            head.fence = number;
            head.fence_oldest = oldest + u32::from(forget);
        });
        let mut fenced: BTreeSet<DeviceKey> = BTreeSet::from([key.clone()]);
        if with_modules {
            fenced.extend(self.modules_of(&key.device)?);
        }
        for key in fenced {
            self.end_session(&key, out)?;
        }
        Ok(())
    }

    /// Ends the session of a fenced identity. Its will isn't sent: it may not send any more (where
    /// another connection takes over, `open_session` has sent it).
    fn end_session(&mut self, key: &DeviceKey, out: &mut StateBatch) -> Result<(), StateError> {
        let Some(session) = self.session(key)?.filter(|session| session.connected) else {
            return Ok(());
        };
        let (place, epoch) = (session.place.clone(), session.epoch);
        self.effects.push(Effect::Wake { place, key: key.clone(), epoch, wake: Wake::Fenced });
        let subscriptions = if session.clean { Vec::new() } else { session.subscriptions.clone() };
        let ended = SessionRow {
            connected: false,
            epoch: self.at,
            changed_ms: self.now,
            will: None,
            subscriptions,
            ..session
        };
        self.put(out, KeyKind::Session, key.row_key(), &ended);
        self.count_connected(key, false);
        self.emit_connection(key, "deviceDisconnected", out);
        Ok(())
    }

    pub(crate) fn count_connected(&mut self, key: &DeviceKey, more: bool) {
        if !key.is_module() {
            self.change_head(|head| match more {
                true => head.connected += 1,
                false => head.connected = head.connected.saturating_sub(1),
            });
        }
    }

    /// Whether a gateway's batch may be stored. `fence` is the number that it carries; 0 for batches
    /// that aren't a gateway's.
    ///
    /// # Errors
    /// When rows can't be read.
    pub fn batch_passes(&self, fence: u32, batch: &Bytes) -> Result<bool, StateError> {
        if fence == 0 || fence >= self.head.fence {
            return Ok(true);
        }
        let Ok(reader) = BatchReader::new(batch.clone()) else {
            // Never proposed by a leader; the stream refuses it with the reason.
            return Ok(true);
        };
        for device in reader.devices() {
            let last: Option<FenceRow> = self.row(KeyKind::Fence, device)?;
            if last.is_some_and(|row| row.number > fence) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
