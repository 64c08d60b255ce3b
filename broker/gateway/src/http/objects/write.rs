//! Writing a file part by part: at most one part is in memory.

use bytes::BytesMut;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::ObjectFront;
use super::xml::StorageError;

/// A file that is being written. It is there once [`Writer::finish`] has returned; when it is dropped
/// before, nothing is.
pub(super) struct Writer<'a> {
    store: &'a dyn ObjectStore,
    location: Path,
    part_bytes: usize,
    bytes_max: u64,
    written: u64,
    buffer: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(front: &'a ObjectFront, location: Path, bytes_max: u64) -> Writer<'a> {
        Writer {
            store: front.store.as_ref(),
            location,
            part_bytes: front.limits.part_bytes,
            bytes_max,
            written: 0,
            buffer: BytesMut::new(),
            upload: None,
        }
    }

    /// Adds bytes.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.written += bytes.len() as u64;
        if self.written > self.bytes_max {
            let text = format!("at most {} bytes are taken", self.bytes_max);
            return Err(StorageError::new(http::StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge", text));
        }
        while !bytes.is_empty() {
            let fits = (self.part_bytes - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if self.buffer.len() == self.part_bytes {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hands the full part to the store.
    async fn flush(&mut self) -> Result<(), StorageError> {
        let part = PutPayload::from(self.buffer.split().freeze());
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.location).await?),
        };
        upload.put_part(part).await?;
        Ok(())
    }

    /// Makes the file be there.
    pub(super) async fn finish(mut self) -> Result<(), StorageError> {
        if self.upload.is_some() {
            if !self.buffer.is_empty() {
                self.flush().await?;
            }
            if let Some(upload) = &mut self.upload {
                upload.complete().await?;
            }
            return Ok(());
        }
        let payload = PutPayload::from(self.buffer.split().freeze());
        self.store.put(&self.location, payload).await?;
        Ok(())
    }

    /// Gives up. Stores that keep parts of unfinished uploads are told to forget them.
    pub(super) async fn abort(mut self) {
        if let Some(upload) = &mut self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, "an unfinished upload can't be aborted");
        }
    }
}
