//! Refusals of the storage endpoint, in the form that storage SDKs read.

use http::{Response, StatusCode};

use super::super::reply::{self, Body};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageError {
    status: StatusCode,
    code: &'static str,
    text: String,
}

impl StorageError {
    pub(super) fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> StorageError {
        StorageError { status, code, text: text.into() }
    }

    pub(super) fn bad(code: &'static str, text: impl Into<String>) -> StorageError {
        StorageError::new(StatusCode::BAD_REQUEST, code, text)
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> StorageError {
        // What the store says may name places that are nobody's business outside.
        tracing::warn!(%error, "the store of uploaded files failed");
        let text = "the file can't be stored or read now";
        StorageError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
    }

    pub(super) fn missing() -> StorageError {
        StorageError::new(StatusCode::NOT_FOUND, "BlobNotFound", "there is no such file")
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let text = self.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{text}</Message></Error>",
            self.code
        );
        let mut response = reply::text(self.status, "application/xml", body);
        reply::put(&mut response, "x-ms-error-code", self.code);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            reply::put(&mut response, "retry-after", "2");
        }
        response
    }
}

impl From<object_store::Error> for StorageError {
    fn from(error: object_store::Error) -> StorageError {
        match error {
            object_store::Error::NotFound { .. } => StorageError::missing(),
            error => StorageError::internal(error),
        }
    }
}
