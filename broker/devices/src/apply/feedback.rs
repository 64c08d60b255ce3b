//! Feedback: what became of commands, for services that asked for it.

use fleetline_state::{KeyKind, StateBatch, StateError};

use super::Applied;
use crate::command::{DeviceReply, LockFeedback, Settle, SettleFeedback};
use crate::error::DeviceError;
use crate::limits::{FEEDBACK_DELIVERIES_MAX, FEEDBACK_LOCK_MAX, FEEDBACK_MAX, FEEDBACK_TTL_MS};
use crate::rows::{AckMode, CommandRow, DeviceKey, FeedbackRow, Outcome};
use crate::state::DeviceState;

impl DeviceState {
    pub(super) fn feedback_of(
        &mut self,
        key: &DeviceKey,
        command: &CommandRow,
        outcome: Outcome,
        out: &mut StateBatch,
    ) -> Result<(), StateError> {
        let wanted = match AckMode::try_from(command.ack).unwrap_or(AckMode::None) {
            AckMode::None => false,
            AckMode::Positive => outcome == Outcome::Success,
            AckMode::Negative => outcome != Outcome::Success,
            AckMode::Full => true,
        };
        if !wanted {
            return Ok(());
        }
        if self.head.feedback >= FEEDBACK_MAX {
            for (row_key, _) in self.scan::<FeedbackRow>(KeyKind::Feedback, b"", 1)? {
                self.drop_feedback(row_key, out);
            }
        }
        let generation = self.device(key)?.map(|row| row.generation).unwrap_or_default();
        let row = FeedbackRow {
            key: key.clone(),
            generation,
            message_id: command.message_id.clone(),
            outcome: outcome as i32,
            time_ms: self.now,
            ..FeedbackRow::default()
        };
        // One command ends once, so its sequence number is this row's alone.
        let number = [self.at.to_be_bytes(), command.sequence.to_be_bytes()].concat();
        self.put(out, KeyKind::Feedback, number, &row);
        self.change_head(|head| head.feedback += 1);
        Ok(())
    }

    fn drop_feedback(&mut self, row_key: Vec<u8>, out: &mut StateBatch) {
        self.delete(out, KeyKind::Feedback, row_key);
        self.change_head(|head| head.feedback = head.feedback.saturating_sub(1));
    }

    pub(super) fn lock_feedback(&mut self, lock: &LockFeedback, out: &mut StateBatch) -> Applied {
        let mut locked = Vec::new();
        for (row_key, row) in self.scan::<FeedbackRow>(KeyKind::Feedback, b"", usize::MAX)? {
            if !row.lock_token.is_empty() && row.locked_until_ms > self.now {
                continue;
            }
            let too_old = row.time_ms.saturating_add(FEEDBACK_TTL_MS) <= self.now;
            if too_old || row.deliveries >= FEEDBACK_DELIVERIES_MAX {
                self.drop_feedback(row_key, out);
                continue;
            }
            if locked.len() == FEEDBACK_LOCK_MAX {
                break;
            }
            let row = FeedbackRow {
                lock_token: lock.token.clone(),
                locked_until_ms: self.now.saturating_add(lock.lock_ms),
                deliveries: row.deliveries + 1,
                ..row
            };
            self.put(out, KeyKind::Feedback, row_key, &row);
            locked.push(row);
        }
        Ok(DeviceReply { feedback: locked, ..DeviceReply::default() })
    }

    pub(super) fn settle_feedback(&mut self, settle: &SettleFeedback, out: &mut StateBatch) -> Applied {
        let rows = self.scan::<FeedbackRow>(KeyKind::Feedback, b"", usize::MAX)?;
        let now = self.now;
        let mine: Vec<_> = rows
            .into_iter()
            .filter(|(_, row)| row.lock_token == settle.token && row.locked_until_ms > now)
            .collect();
        if mine.is_empty() || settle.token.is_empty() {
            return Err(DeviceError::LockLost(settle.token.clone()).into());
        }
        let settled = Settle::try_from(settle.settle)
            .map_err(|_| DeviceError::invalid(format!("outcome {}", settle.settle)))?;
        let number = mine.len() as u64;
        for (row_key, row) in mine {
            match settled {
                Settle::Abandon => {
                    let free = FeedbackRow { lock_token: String::new(), locked_until_ms: 0, ..row };
                    self.put(out, KeyKind::Feedback, row_key, &free);
                }
                Settle::Complete | Settle::Reject => self.drop_feedback(row_key, out),
            }
        }
        Ok(DeviceReply { number, ..DeviceReply::default() })
    }
}
