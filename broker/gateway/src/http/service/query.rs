//! Queries over twins: all partitions in order, page by page.
//!
//! A continuation names the place where the next page begins and the query that it belongs to; any
//! node and any leader goes on from it. A page ends when it is full, large, or has looked at many
//! identities; it may then be short, or empty, and still have a continuation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetline_devices::DeviceView;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::from_object;
use fleetline_twins::query::{Query, Source, parse};
use http::StatusCode;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::super::call::{Call, hex};
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::gather::{Place, Walk};
use super::view;

/// Rows of a page when the request doesn't say.
const PAGE_DEFAULT: usize = 100;
/// Rows of a page at the most.
const PAGE_MAX: usize = 1000;

const CONTINUATION: &str = "x-ms-continuation";

#[derive(Deserialize)]
struct Body {
    query: String,
}

/// What a continuation holds.
#[derive(Serialize, Deserialize)]
struct Token {
    /// Of the query's text.
    q: String,
    /// The partition.
    p: u32,
    /// The key, in Base64.
    k: String,
}

/// POST `/devices/query`.
pub(super) async fn run(call: &mut Call) -> Answer {
    let body = call.service_body().await?;
    let body: Body = from_object(&body).map_err(|error| HttpError::malformed("query", &error))?;
    let query = parse(&body.query).map_err(|error| {
        let code = ErrorCode::from_number(error.code()).unwrap_or(ErrorCode::ArgumentInvalid);
        HttpError::new(code, error.to_string())
    })?;
    let count = call.header("x-ms-max-item-count").and_then(|count| count.parse::<usize>().ok());
    let count = count.filter(|count| *count > 0).unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let hash = hash(&body.query);
    let walk = match call.header(CONTINUATION).filter(|token| !token.is_empty()) {
        Some(token) => Walk::from_place(place(token, &hash)?),
        None => Walk::from_start(),
    };
    let (rows, next) = page(call, &query, walk, count).await?;
    let mut response = reply::text(StatusCode::OK, reply::JSON, rows);
    // "Case-sensitively: send PascalCase."
    reply::put(&mut response, "x-ms-item-type", "Twin");
    if let Some(next) = next {
        reply::put(&mut response, CONTINUATION, &token(&next, hash)?);
    }
    Ok(response)
}

/// One page as JSON, and where the next begins.
async fn page(
    call: &Call,
    query: &Query,
    mut walk: Walk,
    count: usize,
) -> Result<(Vec<u8>, Option<Place>), HttpError> {
    let limits = &call.context.limits;
    let mut rows: Vec<u8> = b"[".to_vec();
    let (mut found, mut scanned) = (0, 0);
    let mut next = walk.place(call);
    'pages: while scanned < limits.query_scan_max
        && let Some(views) = walk.next(call).await?
    {
        for view in &views {
            scanned += 1;
            if let Some(row) = matching(query, view)? {
                if found > 0 {
                    rows.push(b',');
                }
                rows.extend_from_slice(row.as_bytes());
                found += 1;
            }
            next = Some(Place::behind(walk.partition, &view.device.key));
            if found == count || rows.len() >= limits.page_bytes_max {
                break 'pages;
            }
        }
        next = walk.place(call);
    }
    rows.push(b']');
    Ok((rows, next))
}

/// The row's JSON, when it is one that is asked for.
fn matching(query: &Query, found: &DeviceView) -> Result<Option<String>, HttpError> {
    let is_of_source = match query.source {
        Source::Devices => !found.device.key.is_module(),
        Source::Modules => found.device.key.is_module(),
    };
    if !is_of_source {
        return Ok(None);
    }
    let row = view::twin(found)?;
    Ok(query.matches(&row).then(|| row.to_string()))
}

fn hash(text: &str) -> String {
    hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8])
}

fn token(place: &Place, hash: String) -> Result<String, HttpError> {
    let token = Token { q: hash, p: place.partition, k: STANDARD.encode(&place.from) };
    let text = serde_json::to_vec(&token).map_err(|error| HttpError::internal(error.to_string()))?;
    Ok(STANDARD.encode(text))
}

fn place(token: &str, hash: &str) -> Result<Place, HttpError> {
    let wrong = || HttpError::invalid("the continuation is not one of this query");
    let text = STANDARD.decode(token).map_err(|_| wrong())?;
    let token: Token = serde_json::from_slice(&text).map_err(|_| wrong())?;
    let from = STANDARD.decode(&token.k).map_err(|_| wrong())?;
    match token.q == hash {
        true => Ok(Place { partition: token.p, from: from.into() }),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A continuation leads back to its place, for its own query only.
    #[test]
    fn continuations() {
        let there = Place { partition: 3, from: vec![1, 0, 255].into() };
        let query = hash("SELECT * FROM devices");
        let token = token(&there, query.clone()).unwrap();
        assert_eq!(place(&token, &query), Ok(there));
        assert!(place(&token, &hash("SELECT * FROM devices.modules")).is_err());
        for bad in ["", "x", "e30=", "W10="] {
            assert!(place(bad, &query).is_err(), "{bad}");
        }
    }
}
