//! The queries behind the page. Each is bounded, and answers JSON.

pub(crate) mod devices;
pub(crate) mod groups;
pub(crate) mod record;
pub(crate) mod status;
pub(crate) mod telemetry;
pub(crate) mod twins;

use serde_json::{Value, json};

use crate::access::Caller;
use crate::console::Console;
use crate::error::ConsoleError;

/// Where to watch live, and a token for it.
pub(crate) fn negotiate(console: &Console, caller: &Caller) -> Result<Value, ConsoleError> {
    let live = console.live.as_ref().ok_or(ConsoleError::Absent("realtime tier"))?;
    let (url, token) = live.negotiate(&caller.name);
    Ok(json!({ "url": url, "accessToken": token }))
}
