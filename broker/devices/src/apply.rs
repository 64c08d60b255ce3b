//! Commands, one by one: state and command in, rows, effects and reply out. Deterministic.
//!
//! A command that is refused changes nothing: each checks everything before its first write.

mod commands;
mod events;
mod feedback;
mod fences;
mod registry;
mod sessions;
mod twins;
mod uploads;

pub(crate) use commands::is_locked;

use fleetline_state::{StateBatch, StateError};
use fleetline_types::LogId;

use crate::command::{Bulk, Condition, DeviceCommand, DeviceReply, Op};
use crate::error::DeviceError;
use crate::state::{DeviceState, Fail};

pub(crate) type Applied = Result<DeviceReply, Fail>;

impl DeviceState {
    /// Applies one command.
    ///
    /// # Errors
    /// When rows can't be read: the replica must stop.
    pub fn apply(
        &mut self,
        id: LogId,
        command: &DeviceCommand,
        out: &mut StateBatch,
    ) -> Result<DeviceReply, StateError> {
        if let Err(error) = command.check() {
            return Ok(error.reply());
        }
        self.now = command.now_ms;
        // Several changes of one entry need numbers of their own: sequence numbers, epochs.
        self.at = id.index.0 << 8;
        match &command.op {
            Some(Op::Bulk(Bulk { ops })) => {
                let mut replies = Vec::with_capacity(ops.len());
                for item in ops {
                    replies.push(match &item.op {
                        Some(op) => self.answered(op, out)?,
                        None => DeviceError::invalid("an empty change").reply(),
                    });
                    self.at += 1;
                }
                Ok(DeviceReply { replies, ..DeviceReply::default() })
            }
            Some(op) => self.answered(op, out),
            None => Ok(DeviceError::invalid("an empty command").reply()),
        }
    }

    fn answered(&mut self, op: &Op, out: &mut StateBatch) -> Result<DeviceReply, StateError> {
        match self.one(op, out) {
            Ok(reply) => Ok(reply),
            Err(Fail::Refused(error)) => Ok(error.reply()),
            Err(Fail::State(error)) => Err(error),
        }
    }

    fn one(&mut self, op: &Op, out: &mut StateBatch) -> Applied {
        match op {
            Op::PutDevice(put) => self.put_device(put, out),
            Op::DeleteDevice(delete) => self.delete_device(delete, out),
            Op::PatchTwin(patch) => self.patch_twin(patch, out),
            Op::PatchReported(patch) => self.patch_reported(patch, out),
            Op::OpenSession(open) => self.open_session(open, out),
            Op::CloseSession(close) => self.close_session(close, out),
            Op::Subscribe(subscribe) => self.subscribe(subscribe, out),
            Op::SendCommand(send) => self.send_command(send, out),
            Op::LockCommand(lock) => self.lock_command(lock, out),
            Op::SettleCommand(settle) => self.settle_command(settle, out),
            Op::PurgeCommands(purge) => self.purge_commands(&purge.key, out),
            Op::ExpireCommands(expire) => self.expire_commands(&expire.keys, out),
            Op::LockFeedback(lock) => self.lock_feedback(lock, out),
            Op::SettleFeedback(settle) => self.settle_feedback(settle, out),
            Op::BeginUpload(begin) => self.begin_upload(begin, out),
            Op::FinishUpload(finish) => self.finish_upload(finish, out),
            Op::PutDocument(put) => self.put_document(put, out),
            Op::Emit(emit) => self.emit_event(emit, out),
            Op::Bulk(_) => Err(DeviceError::invalid("changes inside of changes").into()),
        }
    }
}

/// Checks a condition on the etag of what exists.
fn check_tag(what: &'static str, condition: &Condition, current: u64) -> Result<(), DeviceError> {
    match condition.kind {
        Condition::ANY | Condition::UPSERT => Ok(()),
        Condition::TAG if condition.tag == current => Ok(()),
        Condition::TAG => Err(DeviceError::Precondition { what, current, expected: condition.tag }),
        kind => Err(DeviceError::invalid(format!("condition {kind} on {what}"))),
    }
}
