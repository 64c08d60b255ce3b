//! The storage endpoint: `/uploads/{blob}` with the requests that storage SDKs send for an upload.
//!
//! | Request | Does |
//! |---|---|
//! | PUT, `x-ms-blob-type: BlockBlob` | writes the file |
//! | PUT `comp=block&blockid=…` | keeps a block |
//! | PUT `comp=blocklist` | makes the file of its blocks |
//! | GET, HEAD | reads it; a service's token does too |

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::super::call::Call;
use super::super::caller;
use super::super::reply::{self, Answer, Body};
use super::write::Writer;
use super::xml::StorageError;
use super::{Found, ObjectFront, block, block_list, file, sign};
use crate::devices::settings::Right;

/// What is said to be spoken when the client names no version.
const VERSION: &str = "2021-12-02";

/// Bytes of a block list: 10,000 ids of 64 bytes in Base64 and XML.
const LIST_MAX: usize = 2 << 20;

/// Bytes of a block's id; as the public storage has it.
const BLOCK_ID_MAX: usize = 64;

type Stored = Result<Response<Body>, StorageError>;

/// Answers a request for a file. Refusals are answers here: their form is another one.
pub(in super::super) async fn answer(call: &mut Call, blob: &str) -> Answer {
    let version = call.header("x-ms-version").unwrap_or(VERSION).to_owned();
    let client_id = call.header("x-ms-client-request-id").map(str::to_owned);
    let mut response = perform(call, blob).await.unwrap_or_else(StorageError::into_response);
    reply::put(&mut response, "x-ms-version", &version);
    if let Some(id) = client_id {
        reply::put(&mut response, "x-ms-client-request-id", &id);
    }
    Ok(response)
}

async fn perform(call: &mut Call, blob: &str) -> Stored {
    let context = call.context.clone();
    let objects = context.objects.as_deref().ok_or_else(StorageError::missing)?;
    let is_bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if blob.split('/').any(is_bad) {
        return Err(StorageError::bad("InvalidUri", "this is not the name of a file"));
    }
    authorize(call, blob)?;
    let comp = call.query.get("comp").map(str::to_ascii_lowercase);
    match (call.method.clone(), comp.as_deref()) {
        (Method::GET, None) => read(call, objects, blob).await,
        (Method::HEAD, None) => head(objects, blob).await,
        (Method::PUT, None) => put_blob(call, objects, blob).await,
        (Method::PUT, Some("block")) => put_block(call, objects, blob).await,
        (Method::PUT, Some("blocklist")) => put_block_list(call, objects, blob).await,
        (Method::PUT | Method::GET | Method::HEAD, Some(_)) => {
            Err(StorageError::bad("InvalidQueryParameterValue", "comp is neither block nor blocklist"))
        }
        _ => Err(StorageError::new(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedHttpVerb", "not for files")),
    }
}

/// The signed address does; for reading, a service's token too.
fn authorize(call: &Call, blob: &str) -> Result<(), StorageError> {
    if sign::check(&call.settings, blob, &call.query, call.hub().now_ms()) {
        return Ok(());
    }
    let device = blob.split('/').next();
    let reads = call.method == Method::GET || call.method == Method::HEAD;
    let action = "fileUpload/files/read";
    match reads && caller::service(call, &[Right::ServiceConnect], action, device).is_ok() {
        true => Ok(()),
        false => {
            let text = "the address is not signed, or has expired";
            Err(StorageError::new(StatusCode::FORBIDDEN, "AuthenticationFailed", text))
        }
    }
}

/// An answer that describes the file.
fn described(status: StatusCode, found: &Found) -> Response<Body> {
    let mut response = reply::empty(status);
    reply::put_etag(&mut response, &found.etag);
    reply::put(&mut response, "last-modified", &found.modified);
    response
}

async fn head(objects: &ObjectFront, blob: &str) -> Stored {
    let found = objects.find(blob).await?.ok_or_else(StorageError::missing)?;
    let mut response = described(StatusCode::OK, &found);
    put_kind(&mut response);
    reply::put(&mut response, "content-length", &found.size.to_string());
    Ok(response)
}

fn put_kind(response: &mut Response<Body>) {
    reply::put(response, "x-ms-blob-type", "BlockBlob");
    reply::put(response, "accept-ranges", "bytes");
    reply::put(response, "content-type", "application/octet-stream");
}

async fn read(call: &Call, objects: &ObjectFront, blob: &str) -> Stored {
    let asked = call.header("x-ms-range").or_else(|| call.header(header::RANGE.as_str()));
    let range = asked.and_then(byte_range);
    let options = GetOptions { range: range.clone(), ..GetOptions::default() };
    let result = match objects.store.get_opts(&file(blob), options).await {
        Ok(result) => result,
        // A range behind the end, or a store that can't say so better.
        Err(error) if range.is_some() && !matches!(error, object_store::Error::NotFound { .. }) => {
            let text = "the range is not within the file";
            return Err(StorageError::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", text));
        }
        Err(error) => return Err(error.into()),
    };
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = described(status, &Found::from(&result.meta));
    put_kind(&mut response);
    let part = result.range.clone();
    reply::put(&mut response, "content-length", &(part.end - part.start).to_string());
    if range.is_some() {
        let text = format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), result.meta.size);
        reply::put(&mut response, "content-range", &text);
    }
    let frames = result.into_stream().map(|chunk| chunk.map(Frame::data).map_err(std::io::Error::other));
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`. Others are as if not asked for (RFC 9110 §14.2).
fn byte_range(text: &str) -> Option<GetRange> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    match (first.is_empty(), last.is_empty()) {
        (true, false) => Some(GetRange::Suffix(last.parse().ok()?)),
        (false, true) => Some(GetRange::Offset(first.parse().ok()?)),
        (false, false) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then(|| GetRange::Bounded(first..last.saturating_add(1)))
        }
        (true, true) => None,
    }
}

async fn put_blob(call: &mut Call, objects: &ObjectFront, blob: &str) -> Stored {
    if !call.header("x-ms-blob-type").is_some_and(|kind| kind.eq_ignore_ascii_case("BlockBlob")) {
        return Err(StorageError::bad("InvalidHeaderValue", "x-ms-blob-type must be BlockBlob"));
    }
    check_absent(call, objects, blob).await?;
    let writer = Writer::new(objects, file(blob), objects.limits.blob_bytes_max);
    write_body(call, objects, writer).await?;
    created(objects, blob).await
}

/// "If-None-Match: *" asks that nothing is overwritten.
async fn check_absent(call: &Call, objects: &ObjectFront, blob: &str) -> Result<(), StorageError> {
    let asks = call.header(header::IF_NONE_MATCH.as_str()).is_some_and(|value| value.trim() == "*");
    match asks && objects.find(blob).await?.is_some() {
        true => {
            Err(StorageError::new(StatusCode::CONFLICT, "BlobAlreadyExists", "there is such a file already"))
        }
        false => Ok(()),
    }
}

async fn created(objects: &ObjectFront, blob: &str) -> Stored {
    let found = objects.find(blob).await?.ok_or_else(|| StorageError::internal("the file is gone"))?;
    Ok(described(StatusCode::CREATED, &found))
}

async fn put_block(call: &mut Call, objects: &ObjectFront, blob: &str) -> Stored {
    let id = call.query.get("blockid").and_then(decode_id);
    let id = id.ok_or_else(|| StorageError::bad("InvalidBlockId", "blockid is not a block's id"))?;
    let (count, bytes) = objects.waiting(blob).await?;
    if count >= objects.limits.blocks_max {
        return Err(StorageError::bad("BlockCountExceedsLimit", "too many blocks wait for this file"));
    }
    let left = objects.limits.blob_bytes_max.saturating_sub(bytes);
    write_body(call, objects, Writer::new(objects, block(blob, &id), left)).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

fn decode_id(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let id = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (!id.is_empty() && id.len() <= BLOCK_ID_MAX).then_some(id)
}

async fn put_block_list(call: &mut Call, objects: &ObjectFront, blob: &str) -> Stored {
    check_absent(call, objects, blob).await?;
    let body =
        call.read_body(LIST_MAX).await.map_err(|error| StorageError::bad("InvalidInput", error.text))?;
    let malformed = || StorageError::bad("InvalidXmlDocument", "the body is not a block list");
    let ids = block_list::parse(&body).ok_or_else(malformed)?;
    if ids.len() > objects.limits.blocks_max {
        return Err(StorageError::bad("BlockListTooLong", "the list has too many blocks"));
    }
    let _writer = permit(objects)?;
    let mut writer = Writer::new(objects, file(blob), objects.limits.blob_bytes_max);
    let outcome = join_blocks(objects, blob, &ids, &mut writer).await;
    finish(writer, outcome).await?;
    objects.forget_blocks(blob).await;
    created(objects, blob).await
}

async fn join_blocks(
    objects: &ObjectFront,
    blob: &str,
    ids: &[Vec<u8>],
    writer: &mut Writer<'_>,
) -> Result<(), StorageError> {
    for id in ids {
        let found = objects.store.get(&block(blob, id)).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => {
                StorageError::bad("InvalidBlockList", "a block of the list was not sent")
            }
            error => StorageError::internal(error),
        })?;
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.next().await {
            writer.push(&chunk?).await?;
        }
    }
    Ok(())
}

fn permit(objects: &ObjectFront) -> Result<tokio::sync::SemaphorePermit<'_>, StorageError> {
    objects.writers.try_acquire().map_err(|_| {
        let text = "too many files are being written, try again";
        StorageError::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", text)
    })
}

async fn write_body(
    call: &mut Call,
    objects: &ObjectFront,
    mut writer: Writer<'_>,
) -> Result<(), StorageError> {
    let _writer = permit(objects)?;
    let body: Incoming =
        call.take_body().map_err(|error| StorageError::bad("InvalidHeaderValue", error.text))?;
    let outcome = copy_body(body, objects, &mut writer).await;
    finish(writer, outcome).await
}

async fn finish(writer: Writer<'_>, outcome: Result<(), StorageError>) -> Result<(), StorageError> {
    match outcome {
        Ok(()) => writer.finish().await,
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn copy_body(
    mut body: Incoming,
    objects: &ObjectFront,
    writer: &mut Writer<'_>,
) -> Result<(), StorageError> {
    if body.size_hint().lower() > objects.limits.blob_bytes_max {
        let text = format!("at most {} bytes are taken", objects.limits.blob_bytes_max);
        return Err(StorageError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge", text));
    }
    loop {
        let frame = match tokio::time::timeout(objects.limits.idle, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(StorageError::bad("InvalidInput", error.to_string())),
            Ok(None) => return Ok(()),
            Err(_) => return Err(StorageError::bad("OperationTimedOut", "nothing more has come")),
        };
        if let Ok(data) = frame.into_data() {
            let data: Bytes = data;
            writer.push(&data).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(byte_range("bytes=0-4"), Some(GetRange::Bounded(0..5)));
        assert_eq!(byte_range("bytes=7-"), Some(GetRange::Offset(7)));
        assert_eq!(byte_range("bytes=-3"), Some(GetRange::Suffix(3)));
        for odd in ["", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"] {
            assert_eq!(byte_range(odd), None, "{odd}");
        }
    }
}
