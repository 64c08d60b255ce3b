//! What the hub's leader reads, as `broker/node` does it.

use fleetline_devices::{Ask, DeviceAnswer, DeviceError, DeviceKey, DeviceQuery, DeviceView, ErrorReply};
use fleetline_iothub::errors::ErrorCode;

/// An identity with all that belongs to it.
pub fn view(query: &DeviceQuery<'_>, key: &DeviceKey) -> Option<DeviceView> {
    let device = query.device(key).unwrap()?;
    Some(DeviceView {
        device,
        twin: query.twin(key).unwrap().unwrap(),
        session: query.session(key).unwrap(),
        commands: query.command_count(key).unwrap(),
    })
}

/// Refuses a question of a session that is over.
pub fn live(query: &DeviceQuery<'_>, ask: &Ask) -> Result<(), DeviceError> {
    let session = query.session(&ask.key).unwrap();
    match session.is_some_and(|session| session.connected && session.epoch == ask.epoch) {
        true => Ok(()),
        false => Err(DeviceError::Fenced { device: ask.key.text(), given: ask.epoch }),
    }
}

pub fn refused(code: ErrorCode) -> DeviceAnswer {
    let error = ErrorReply { code: code.number(), text: "proof is refused".to_owned() };
    DeviceAnswer { error: Some(error), ..DeviceAnswer::default() }
}
