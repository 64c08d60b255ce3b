//! Commands (cloud-to-device messages): a queue a device; each ends in exactly one way (P13).
//!
//! ```text
//! stored --lock--> locked --complete / reject--> ended          stored --too old, purge--> ended
//!    ^               |
//!    +-- abandon, lock over --+        abandoned too often --> ended
//! ```

use fleetline_state::{KeyKind, StateBatch, StateError};

use super::Applied;
use crate::command::{DeviceReply, LockCommand, SendCommand, Settle, SettleCommand};
use crate::effect::{Effect, Wake};
use crate::error::DeviceError;
use crate::limits::{COMMAND_TTL_MS, COMMAND_TTL_MS_MAX, DELIVERIES_MAX, QUEUE_MAX};
use crate::rows::{CommandRow, DeviceKey, Outcome, QueueRow};
use crate::state::DeviceState;

impl DeviceState {
    pub(super) fn send_command(&mut self, send: &SendCommand, out: &mut StateBatch) -> Applied {
        let key = &send.key;
        let mut disabled = self.existing(key)?.spec.disabled;
        if key.is_module() {
            disabled |= self.existing(&DeviceKey::device(&key.device))?.spec.disabled;
        }
        if disabled {
            return Err(DeviceError::TakesNothing(key.text()).into());
        }
        let given = &send.command;
        let latest = self.now.saturating_add(COMMAND_TTL_MS_MAX);
        if given.expires_ms != 0 && given.expires_ms <= self.now {
            return Err(DeviceError::invalid("the command's expiry time has passed").into());
        }
        self.expire_queue(key, out)?;
        if self.queue(key)?.count >= QUEUE_MAX {
            return Err(DeviceError::QueueFull(key.text()).into());
        }
        let default = self.now.saturating_add(COMMAND_TTL_MS);
        let expires = if given.expires_ms == 0 { default } else { given.expires_ms };
        let row = CommandRow {
            sequence: self.at,
            enqueued_ms: self.now,
            expires_ms: expires.min(latest),
            deliveries: 0,
            lock_token: String::new(),
            locked_until_ms: 0,
            ..given.clone()
        };
        self.put(out, KeyKind::Command, key.numbered(row.sequence), &row);
        self.queue_changed(key, out)?;
        self.wake_for_commands(key)?;
        Ok(DeviceReply { command: Some(row), ..DeviceReply::default() })
    }

    fn wake_for_commands(&mut self, key: &DeviceKey) -> Result<(), StateError> {
        if let Some(session) = self.session(key)?.filter(|session| session.connected) {
            let (place, epoch) = (session.place, session.epoch);
            self.effects.push(Effect::Wake { place, key: key.clone(), epoch, wake: Wake::Commands });
        }
        Ok(())
    }

    fn commands_of(&self, key: &DeviceKey) -> Result<Vec<CommandRow>, StateError> {
        let rows = self.scan(KeyKind::Command, &key.numbered_prefix(), QUEUE_MAX as usize)?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Writes the queue's counters anew from its rows; they are few.
    fn queue_changed(&mut self, key: &DeviceKey, out: &mut StateBatch) -> Result<(), StateError> {
        let rows = self.commands_of(key)?;
        let Some(next_expiry_ms) = rows.iter().map(|row| row.expires_ms).min() else {
            self.delete(out, KeyKind::CommandQueue, key.row_key());
            return Ok(());
        };
        let queue = QueueRow { count: rows.len() as u32, next_expiry_ms };
        self.put(out, KeyKind::CommandQueue, key.row_key(), &queue);
        Ok(())
    }

    /// Ends what is too old. A command under a lock that holds is left to its holder.
    fn expire_queue(&mut self, key: &DeviceKey, out: &mut StateBatch) -> Result<(), StateError> {
        if self.queue(key)?.next_expiry_ms > self.now {
            return Ok(());
        }
        let now = self.now;
        let rows = self.commands_of(key)?;
        let over: Vec<_> = rows.iter().filter(|row| row.expires_ms <= now && !is_locked(row, now)).collect();
        for row in &over {
            self.end_command(key, row, Outcome::Expired, out)?;
        }
        if !over.is_empty() {
            self.queue_changed(key, out)?;
        }
        Ok(())
    }

    fn end_command(
        &mut self,
        key: &DeviceKey,
        row: &CommandRow,
        outcome: Outcome,
        out: &mut StateBatch,
    ) -> Result<(), StateError> {
        self.delete(out, KeyKind::Command, key.numbered(row.sequence));
        self.feedback_of(key, row, outcome, out)
    }

    pub(super) fn lock_command(&mut self, lock: &LockCommand, out: &mut StateBatch) -> Applied {
        let key = &lock.key;
        self.entitled(key, lock.auth_version)?;
        self.expire_queue(key, out)?;
        let now = self.now;
        let rows = self.commands_of(key)?;
        let Some(row) = rows.into_iter().find(|row| !is_locked(row, now) && row.expires_ms > now) else {
            return Ok(DeviceReply::default());
        };
        let locked_until_ms = now.saturating_add(lock.lock_ms);
        let locked = CommandRow { lock_token: lock.token.clone(), locked_until_ms, ..row };
        self.put(out, KeyKind::Command, key.numbered(locked.sequence), &locked);
        Ok(DeviceReply { command: Some(locked), ..DeviceReply::default() })
    }

    pub(super) fn settle_command(&mut self, settle: &SettleCommand, out: &mut StateBatch) -> Applied {
        let key = &settle.key;
        let rows = self.commands_of(key)?;
        let now = self.now;
        let found = match settle.token.is_empty() {
            true => {
                self.live_session(key, settle.epoch)?;
                rows.into_iter().find(|row| row.sequence == settle.sequence && !is_locked(row, now))
            }
            false => {
                self.entitled(key, settle.auth_version)?;
                rows.into_iter().find(|row| row.lock_token == settle.token && is_locked(row, now))
            }
        };
        let lost = || match settle.token.is_empty() {
            true => DeviceError::LockLost(settle.sequence.to_string()),
            false => DeviceError::LockLost(settle.token.clone()),
        };
        let row = found.ok_or_else(lost)?;
        match Settle::try_from(settle.settle) {
            Ok(Settle::Complete) => self.end_command(key, &row, Outcome::Success, out)?,
            Ok(Settle::Reject) => self.end_command(key, &row, Outcome::Rejected, out)?,
            Ok(Settle::Abandon) => self.abandon_command(key, row, out)?,
            Err(_) => return Err(DeviceError::invalid(format!("outcome {}", settle.settle)).into()),
        }
        self.queue_changed(key, out)?;
        Ok(DeviceReply::default())
    }

    fn abandon_command(
        &mut self,
        key: &DeviceKey,
        row: CommandRow,
        out: &mut StateBatch,
    ) -> Result<(), StateError> {
        let deliveries = row.deliveries + 1;
        if deliveries >= DELIVERIES_MAX {
            return self.end_command(key, &row, Outcome::DeliveryCountExceeded, out);
        }
        let free = CommandRow { deliveries, lock_token: String::new(), locked_until_ms: 0, ..row };
        self.put(out, KeyKind::Command, key.numbered(free.sequence), &free);
        self.wake_for_commands(key)
    }

    pub(super) fn purge_commands(&mut self, key: &DeviceKey, out: &mut StateBatch) -> Applied {
        self.existing(key)?;
        let rows = self.commands_of(key)?;
        for row in &rows {
            self.end_command(key, row, Outcome::Purged, out)?;
        }
        self.queue_changed(key, out)?;
        Ok(DeviceReply { number: rows.len() as u64, ..DeviceReply::default() })
    }

    pub(super) fn expire_commands(&mut self, keys: &[DeviceKey], out: &mut StateBatch) -> Applied {
        for key in keys {
            self.expire_queue(key, out)?;
        }
        Ok(DeviceReply::default())
    }
}

/// Whether somebody else has it.
pub(crate) fn is_locked(row: &CommandRow, now: u64) -> bool {
    !row.lock_token.is_empty() && row.locked_until_ms > now
}
