//! Reading a body whole, within a bound of bytes and a bound of time.

use std::time::Duration;

use bytes::Bytes;
use fleetline_iothub::errors::ErrorCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::errors::HttpError;

/// Reads all of it.
pub(super) async fn read(body: Incoming, limit: usize, time: Duration) -> Result<Bytes, HttpError> {
    let too_large =
        || HttpError::new(ErrorCode::MessageTooLarge, format!("body is larger than {limit} bytes"));
    // What says its length is refused before any of it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(HttpError::invalid(format!("body can't be read: {error}"))),
        Err(_) => {
            let text = format!("body did not come within {} s", time.as_secs());
            Err(HttpError::new(ErrorCode::RequestTimedOut, text))
        }
    }
}
