//! Reading a body whole, within a bound of bytes and a bound of time.

use std::time::Duration;

use bytes::Bytes;
use fleetline_iothub::errors::ErrorCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::errors::HttpError;

/// Bytes of a refused body that are read and thrown away.
const DRAIN_MAX: usize = 4 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// Reads what a client is still sending, within bounds: one that is cut off while it sends doesn't see the
/// answer.
async fn drain(mut body: Incoming) {
    let all = async {
        let mut left = DRAIN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            if bytes > left {
                return;
            }
            left -= bytes;
        }
    };
    // Whoever takes longer isn't told.
    drop(tokio::time::timeout(DRAIN_TIME, all).await);
}

/// Reads all of it.
pub(super) async fn read(mut body: Incoming, limit: usize, time: Duration) -> Result<Bytes, HttpError> {
    let too_large =
        || HttpError::new(ErrorCode::MessageTooLarge, format!("body is larger than {limit} bytes"));
    // What says its length is refused before any of it is kept.
    if body.size_hint().lower() > limit as u64 {
        drain(body).await;
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(&mut body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(too_large())
        }
        Ok(Err(error)) => Err(HttpError::invalid(format!("body can't be read: {error}"))),
        Err(_) => {
            let text = format!("body did not come within {} s", time.as_secs());
            Err(HttpError::new(ErrorCode::RequestTimedOut, text))
        }
    }
}
