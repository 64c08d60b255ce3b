//! Showing lines: the last ones, or for as long as the caller listens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_gateway::http::Body;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use super::WebRequest;
use super::reply::{Refusal, json_reply};
use crate::civil::iso;
use crate::functions::Functions;
use crate::logs::KeptLine;

/// Lines that are shown when the caller doesn't say.
const TAIL_DEFAULT: usize = 100;
/// Lines that are shown at the most.
const TAIL_MAX: usize = 1_000;
/// How often nodes are asked for more while somebody follows.
const LOOK: Duration = Duration::from_millis(500);

impl Functions {
    pub(crate) async fn show_logs(
        self: &Arc<Self>,
        app: &str,
        request: &WebRequest,
    ) -> Result<Response<Body>, Refusal> {
        self.manifest(app)?;
        let tail = match request.parameter("tail") {
            Some(text) => text.parse().map_err(|_| Refusal::bad("tail is not a number"))?,
            None => TAIL_DEFAULT,
        };
        let tail: usize = std::cmp::min(tail, TAIL_MAX);
        let function = request.parameter("function").filter(|name| !name.is_empty()).map(str::to_owned);
        let follows = request.parameter("follow").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        if !follows {
            let lines = self.logs(app, function.as_deref(), tail).await?;
            return Ok(json_reply(StatusCode::OK, &json!({ "lines": lines })));
        }
        let follow =
            Follow { functions: self.clone(), app: app.to_owned(), function, tail, seen: BTreeMap::new() };
        let frames = futures::stream::unfold(follow, |mut follow| async move {
            let text = follow.next().await;
            Some((Ok::<_, Infallible>(Frame::data(text)), follow))
        });
        // Ends when the caller is gone: the front drops the body.
        let body = StreamBody::new(frames.boxed()).map_err(|never| -> io::Error { match never {} });
        let mut response = Response::new(BodyExt::boxed_unsync(body));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }
}

struct Follow {
    functions: Arc<Functions>,
    app: String,
    function: Option<String>,
    tail: usize,
    seen: BTreeMap<u64, u64>,
}

impl Follow {
    /// The next lines, as text; waits for some.
    async fn next(&mut self) -> Bytes {
        loop {
            let function = self.function.as_deref();
            let (lines, seen) = self.functions.logs_behind(&self.app, function, self.tail, &self.seen).await;
            self.seen = seen;
            // From now on whatever comes, not only the last ones.
            self.tail = TAIL_MAX;
            if !lines.is_empty() {
                return lines.iter().map(text).collect::<String>().into();
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A line for a terminal.
pub(crate) fn text(line: &KeptLine) -> String {
    let KeptLine { at_ms, node, function, level, message, .. } = line;
    let function = if function.is_empty() { "host" } else { function };
    format!("{} n{node} {level:<11} {function}: {message}\n", iso(*at_ms))
}
