//! File uploads: which a device has begun, so that it can end only those, and only so many at once.

use fleetline_state::{KeyKind, StateBatch};

use super::Applied;
use crate::command::{BeginUpload, DeviceReply, FinishUpload};
use crate::error::DeviceError;
use crate::limits::{TEXT_BYTES_MAX, UPLOADS_MAX};
use crate::rows::UploadRow;
use crate::state::DeviceState;

impl DeviceState {
    pub(super) fn begin_upload(&mut self, begin: &BeginUpload, out: &mut StateBatch) -> Applied {
        let key = &begin.key;
        self.entitled(key, begin.auth_version)?;
        let upload = &begin.upload;
        if upload.correlation_id.is_empty() || upload.correlation_id.len() > TEXT_BYTES_MAX {
            return Err(DeviceError::invalid("an upload's correlation id").into());
        }
        let mut open = 0;
        for (row_key, row) in self.scan::<UploadRow>(KeyKind::Upload, &key.numbered_prefix(), usize::MAX)? {
            match row.expires_ms <= self.now {
                true => self.delete(out, KeyKind::Upload, row_key),
                false => open += 1,
            }
        }
        if open >= UPLOADS_MAX {
            return Err(DeviceError::Limit(format!("a device has at most {UPLOADS_MAX} open uploads")).into());
        }
        let row = UploadRow { started_ms: self.now, ..upload.clone() };
        let row_key = [&key.numbered_prefix(), upload.correlation_id.as_bytes()].concat();
        self.put(out, KeyKind::Upload, row_key, &row);
        Ok(DeviceReply::default())
    }

    pub(super) fn finish_upload(&mut self, finish: &FinishUpload, out: &mut StateBatch) -> Applied {
        let key = &finish.key;
        self.entitled(key, finish.auth_version)?;
        let row_key = [&key.numbered_prefix(), finish.correlation_id.as_bytes()].concat();
        let row: Option<UploadRow> = self.row(KeyKind::Upload, &row_key)?;
        let row = row.filter(|row| row.expires_ms > self.now);
        let upload = row.ok_or_else(|| DeviceError::UploadNotFound(finish.correlation_id.clone()))?;
        self.delete(out, KeyKind::Upload, row_key);
        if !finish.event.body.is_empty() {
            self.emit(&finish.event, out);
        }
        Ok(DeviceReply { upload: Some(upload), ..DeviceReply::default() })
    }
}
