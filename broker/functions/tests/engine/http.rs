//! The HTTP doors: management, functions, webhooks, as raw HTTP over the mount.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use fleetline_functions::{ClientEvent, ClientReply, Functions, FunctionsOptions};
use fleetline_gateway::http::{HttpMount, PeerInfo};
use fleetline_iothub::sas::{SasKey, generate_token};
use fleetline_worker::{HttpMessage, InvocationResult, Outcome, Value};
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::fakes::{Answer, Handler, Rig, handler, outputs, throws};
use super::world::{HOST, KEY};

struct Web {
    tier: Arc<Functions>,
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Web {
    async fn sender(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let tier = self.tier.clone();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        let peer = PeerInfo { address, certificate: None, chained: Arc::new(|_| false) };
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let (tier, peer) = (tier.clone(), peer.clone());
                async move { Ok::<_, std::convert::Infallible>(tier.answer(request, peer).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), answer)
                .await;
        });
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = http::Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", HOST);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.sender().await.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Reply {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn manage(&self, method: &str, target: &str, body: impl Into<Bytes>) -> Reply {
        self.call(method, target, &[("authorization", &token("iothubowner"))], body).await
    }
}

fn token(policy: &str) -> String {
    generate_token(HOST, &SasKey::from_base64(KEY).unwrap(), 9_999_999_999, Some(policy))
}

fn responds(message: HttpMessage) -> Answer {
    let returned = Some(Value::Http(Box::new(message)));
    Ok(InvocationResult { outcome: Outcome::Success, outputs: Vec::new(), returned })
}

fn functions() -> Json {
    let http = |more: Json| {
        let mut binding =
            json!({ "type": "httpTrigger", "direction": "IN", "name": "req", "authLevel": "ANONYMOUS" });
        binding.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!([binding, { "type": "http", "direction": "OUT", "name": "$return" }])
    };
    json!([
        { "name": "hello", "bindings": http(json!({ "route": "hello/{name:alpha}", "methods": ["GET", "POST"] })) },
        { "name": "new", "bindings": http(json!({ "route": "hello/new", "methods": ["get"] })) },
        { "name": "secret", "bindings": http(json!({ "authLevel": "function" })) },
        { "name": "admin", "bindings": http(json!({ "authLevel": "ADMIN" })) },
        { "name": "grid", "bindings": [{ "type": "eventGridTrigger", "name": "event" }] },
    ])
}

async fn rig(answer: Handler) -> (Rig, Web) {
    let rig = Rig::with(1, 2, "fake", answer, |options| FunctionsOptions {
        http_body_max: 1000,
        http_outstanding: 2,
        ..options
    });
    let web = Web { tier: rig.tiers[0].clone() };
    (rig, web)
}

async fn deployed(answer: Handler) -> (Rig, Web) {
    let (rig, web) = rig(answer).await;
    rig.deploy("app", functions()).await;
    while rig.tiers[0].list()["apps"][0]["functions"] != 5 {
        tokio::task::yield_now().await;
    }
    (rig, web)
}

/// What a function gets of a request, and what a caller gets of its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_request() {
    let (rig, web) = deployed(handler(|_, _| {
        responds(HttpMessage {
            status: Some(201),
            headers: vec![("X-Out".into(), "1".into())],
            body: Some(Value::Json(r#"{"ok":true}"#.into())),
            ..HttpMessage::default()
        })
    }))
    .await;
    let headers = [("X-In", "2"), ("x-functions-key", "none"), ("content-type", "application/json")];
    let reply = web.call("POST", "/apps/app/api/hello/anna?a=1&b=x%20y", &headers, r#"{"n":1}"#).await;
    assert_eq!((reply.status, reply.text()), (201, r#"{"ok":true}"#));
    assert_eq!(
        (reply.headers["x-out"].as_str(), reply.headers["content-type"].as_str()),
        ("1", "application/json; charset=utf-8")
    );
    let seen = rig.workers.seen.lock().clone();
    let Value::Http(message) = &seen[0].2.inputs[0].1 else { panic!("{seen:?}") };
    assert_eq!((seen[0].1.as_str(), message.method.as_str()), ("hello", "POST"));
    assert_eq!(message.url, format!("https://{HOST}/apps/app/api/hello/anna?a=1&b=x%20y"));
    assert_eq!(message.params, [("name".to_owned(), "anna".to_owned())]);
    assert_eq!(message.query, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x y".to_owned())]);
    assert_eq!(message.body, Some(Value::Bytes(r#"{"n":1}"#.into())));
    let names: Vec<&str> = message.headers.iter().map(|(name, _)| name.as_str()).collect();
    // Keys are for the host, not for the function.
    assert!(names.contains(&"x-in") && !names.contains(&"x-functions-key"), "{names:?}");
}

/// Routes, methods, keys, bounds.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_call_what() {
    let (rig, web) = deployed(handler(|function, _| {
        responds(HttpMessage { body: Some(Value::Text(function.to_owned())), ..HttpMessage::default() })
    }))
    .await;
    let keys = web.manage("GET", "/functions/apps/app/keys", "").await.json();
    let master = keys["master"].as_str().unwrap();
    let host = keys["host"]["default"].as_str().unwrap();
    let own = keys["functions"]["secret"]["default"].as_str().unwrap();
    let other = keys["functions"]["hello"]["default"].as_str().unwrap();
    let rows: &[(&str, &str, &str, u16, &str)] = &[
        ("GET", "hello/anna", "", 200, "hello"),
        ("GET", "HELLO/new", "", 200, "new"),
        ("POST", "hello/new", "", 200, "hello"),
        ("GET", "hello/7", "", 404, ""),
        ("GET", "hello", "", 404, ""),
        ("DELETE", "hello/anna", "", 405, ""),
        ("GET", "hello/%zz", "", 400, ""),
        ("GET", "secret", "", 401, ""),
        ("GET", "secret", "wrong", 401, ""),
        ("GET", "secret", other, 401, ""),
        ("GET", "secret", own, 200, "secret"),
        ("GET", "secret", host, 200, "secret"),
        ("GET", "secret", master, 200, "secret"),
        ("PATCH", "secret", own, 200, "secret"),
        ("GET", "admin", host, 401, ""),
        ("GET", "admin", master, 200, "admin"),
    ];
    for (method, path, key, status, body) in rows {
        let target = format!("/apps/app/api/{path}");
        let by_header = web.call(method, &target, &[("x-functions-key", key)], "").await;
        let by_query = web.call(method, &format!("{target}?code={key}"), &[], "").await;
        for reply in [by_header, by_query] {
            assert_eq!(reply.status, *status, "{method} {path} {}", reply.text());
            assert!(*status != 200 || reply.text() == *body, "{path} {}", reply.text());
        }
    }
    // The host's first label names the app, too.
    let by_host = web.call("GET", "/api/hello/anna", &[("host", "app.hub.example:443")], "").await;
    assert_eq!((by_host.status, by_host.text()), (200, "hello"));
    assert_eq!(web.call("GET", "/api/hello/anna", &[("host", "hub.example")], "").await.status, 404);
    assert_eq!(web.call("GET", "/apps/nobody/api/x", &[], "").await.status, 404);
    let large = web.call("POST", "/apps/app/api/hello/anna", &[], vec![b'x'; 1001]).await;
    assert_eq!(large.status, 413);
    drop(rig);
}

/// Paths that the mount leaves to others.
#[tokio::test(flavor = "multi_thread")]
async fn claims() {
    let (empty, web) = rig(handler(|_, _| outputs(&[]))).await;
    let claims = |web: &Web, path: &str| web.tier.claims(&Method::GET, path);
    assert!(claims(&web, "/functions/apps") && claims(&web, "/apps/app/api/x"));
    assert!(!claims(&web, "/api/hello"));
    drop(empty);
    let (_rig, web) = deployed(handler(|_, _| outputs(&[]))).await;
    for path in ["/api/hello", "/api/negotiate", "/api/v10", "/runtime/webhooks/eventgrid"] {
        assert!(claims(&web, path), "{path}");
    }
    for path in
        ["/api/health", "/api/hubs/x/users", "/api/v1/hubs/x", "/devices/d", "/twins/d", "/appsx", "/client/"]
    {
        assert!(!claims(&web, path), "{path}");
    }
}

/// Failures: what callers hear, and that they don't hear the app's own words.
#[tokio::test(flavor = "multi_thread")]
async fn failures() {
    let (rig, web) = deployed(handler(|_, _| throws("secret details"))).await;
    let reply = web.call("GET", "/apps/app/api/hello/a", &[], "").await;
    assert_eq!(reply.status, 500);
    assert!(!reply.text().contains("secret"), "{}", reply.text());
    *rig.workers.handler.lock() =
        handler(|_, _| Err(fleetline_workers::WorkerError::Exited { reason: "killed".into() }));
    assert_eq!(web.call("GET", "/apps/app/api/hello/a", &[], "").await.status, 500);
    *rig.workers.handler.lock() =
        handler(|_, _| Err(fleetline_workers::WorkerError::TimedOut { limit: std::time::Duration::ZERO }));
    assert_eq!(web.call("GET", "/apps/app/api/hello/a", &[], "").await.status, 504);
    *rig.workers.handler.lock() = handler(|_, _| outputs(&[]));
    assert_eq!(web.call("GET", "/apps/app/api/hello/a", &[], "").await.status, 204);
    let status = web.manage("GET", "/functions/apps/app", "").await.json();
    assert_eq!(status["functions"][0]["failures"], 3);
    let (broken, web) = deployed(handler(|_, _| outputs(&[]))).await;
    *broken.workers.broken.lock() = Some("no worker".into());
    let reply = web.call("GET", "/apps/app/api/hello/a", &[], "").await;
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (503, "1"));
}

/// Beyond so many requests at once, callers are told to come again.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let gated: Handler = Arc::new(move |_, _, _| {
        let held = held.clone();
        Box::pin(async move {
            held.acquire().await.unwrap().forget();
            outputs(&[])
        })
    });
    let (rig, web) = deployed(gated).await;
    let web = Arc::new(web);
    let call = || {
        let web = web.clone();
        tokio::spawn(async move { web.call("GET", "/apps/app/api/hello/a", &[], "").await.status })
    };
    let waiting = [call(), call()];
    rig.world.until(|| rig.workers.calls() == 2).await;
    assert_eq!(call().await.unwrap(), 429);
    gate.add_permits(10);
    for reply in waiting {
        assert_eq!(reply.await.unwrap(), 204);
    }
}

/// Management from the first deployment to removal, and who may.
#[tokio::test(flavor = "multi_thread")]
async fn management() {
    let (rig, web) = rig(handler(|_, _| outputs(&[]))).await;
    let archive = rig.archive(&functions(), &json!({}));
    let refused = web.call("POST", "/functions/apps/app", &[], archive.clone()).await;
    assert_eq!(refused.status, 401);
    for (policy, status) in
        [("service", 401), ("registryRead", 401), ("registryReadWrite", 401), ("device", 401)]
    {
        let reply = web
            .call("POST", "/functions/apps/app", &[("authorization", &token(policy))], archive.clone())
            .await;
        assert_eq!(reply.status, status, "{policy}");
    }
    let reply = web.manage("POST", "/functions/apps/app", archive.clone()).await;
    assert_eq!((reply.status, reply.json()), (201, json!({ "name": "app", "version": 1 })));
    assert_eq!(web.manage("POST", "/functions/apps/app", "junk").await.status, 400);
    let second = rig.archive(&functions(), &json!({ "version": "2.0" }));
    assert_eq!(web.manage("POST", "/functions/apps/app", second).await.json()["version"], 2);
    assert_eq!(web.manage("GET", "/functions/apps", "").await.json()["apps"][0]["activeVersion"], 2);
    assert_eq!(web.manage("POST", "/functions/apps/app/rollback", "").await.json()["version"], 1);
    assert_eq!(web.manage("POST", "/functions/apps/app/rollback", "").await.status, 404);
    assert_eq!(web.manage("POST", "/functions/apps/app/rollback", r#"{"version":2}"#).await.status, 200);
    assert_eq!(web.manage("PUT", "/functions/apps/app/settings", r#"{"A":"b"}"#).await.status, 204);
    assert_eq!(web.manage("GET", "/functions/apps/app/settings", "").await.json(), json!({ "A": "b" }));
    assert_eq!(web.manage("PUT", "/functions/apps/app/settings", "[1]").await.status, 400);
    let drawn =
        web.manage("POST", "/functions/apps/app/keys", r#"{"function":"secret","name":"partner"}"#).await;
    assert_eq!(drawn.status, 201);
    let value = drawn.json()["value"].as_str().unwrap().to_owned();
    let mut reply = 0;
    while reply != 204 {
        reply = web.call("GET", "/apps/app/api/secret", &[("x-functions-key", &value)], "").await.status;
        tokio::task::yield_now().await;
    }
    let before = web.manage("GET", "/functions/apps/app/keys", "").await.json();
    assert_eq!(web.manage("POST", "/functions/apps/app/keys", r#"{"name":"_master"}"#).await.status, 201);
    let after = web.manage("GET", "/functions/apps/app/keys", "").await.json();
    assert!(before["master"] != after["master"] && before["host"] == after["host"]);
    assert_eq!(web.manage("POST", "/functions/apps/app/functions/hello/disable", "").await.status, 204);
    assert_eq!(web.manage("POST", "/functions/apps/app/functions/nobody/disable", "").await.status, 404);
    assert_eq!(web.manage("PUT", "/functions/apps/app", "").await.status, 405);
    assert_eq!(web.manage("GET", "/functions/apps/app/x/y", "").await.status, 404);
    assert_eq!(web.manage("GET", "/functions/apps/nobody", "").await.status, 404);
    let logs = web.manage("GET", "/functions/apps/app/logs?tail=5&function=secret", "").await.json();
    assert!(logs["lines"].as_array().unwrap().iter().any(|line| line["message"] == "secret runs"), "{logs}");
    assert_eq!(web.manage("GET", "/functions/apps/app/logs?tail=x", "").await.status, 400);
    assert_eq!(web.manage("DELETE", "/functions/apps/app", "").await.status, 204);
    assert_eq!(web.manage("GET", "/functions/apps", "").await.json(), json!({ "apps": [] }));
}

/// Lines come as they are written, for as long as somebody listens.
#[tokio::test(flavor = "multi_thread")]
async fn following_logs() {
    let (_rig, web) = deployed(handler(|_, _| outputs(&[]))).await;
    let request = http::Request::builder()
        .uri("/functions/apps/app/logs?follow=true&function=hello")
        .header("host", HOST)
        .header("authorization", token("iothubowner"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    web.call("GET", "/apps/app/api/hello/a", &[], "").await;
    let mut body = web.sender().await.send_request(request).await.unwrap().into_body();
    let mut text = String::new();
    for expected in 1..=3 {
        while text.matches("hello runs").count() < expected {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        assert_eq!(text.matches("hello runs").count(), expected, "{text}");
        web.call("GET", "/apps/app/api/hello/a", &[], "").await;
    }
    assert!(text.contains("information hello: hello runs"), "{text}");
}

/// Webhooks: validation, both schemas, keys, what the sender should repeat.
#[tokio::test(flavor = "multi_thread")]
async fn event_grid() {
    let (rig, web) = deployed(handler(|_, _| outputs(&[]))).await;
    let keys = web.manage("GET", "/functions/apps/app/keys", "").await.json();
    let key = keys["functions"]["grid"]["default"].as_str().unwrap();
    let target = format!("/apps/app/runtime/webhooks/EventGrid?functionName=grid&code={key}");
    let post = |body: Json| web.call("POST", &target, &[], body.to_string());
    let validation = json!([{ "id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": { "validationCode": "512d38b6" } }]);
    assert_eq!(post(validation).await.json(), json!({ "validationResponse": "512d38b6" }));
    assert_eq!(rig.workers.calls(), 0);
    let event = |id: &str| json!({ "id": id, "eventType": "x", "subject": "s", "data": { "a": 1 } });
    assert_eq!(post(json!([event("1"), event("2")])).await.status, 202);
    assert_eq!(
        post(json!({ "specversion": "1.0", "id": "3", "source": "s", "type": "t" })).await.status,
        202
    );
    assert_eq!(rig.workers.calls(), 3);
    let first = rig.workers.seen.lock()[0].2.clone();
    assert_eq!(first.inputs[0].1, Value::json(&event("1")));
    // The same event has the same id when it is sent again.
    assert_eq!(post(json!([event("1")])).await.status, 202);
    assert_eq!(rig.workers.seen.lock()[3].2.id, first.id);
    let headers = [("ce-specversion", "1.0"), ("ce-id", "9"), ("ce-type", "t"), ("ce-source", "s")];
    assert_eq!(web.call("POST", &target, &headers, r#"{"b":2}"#).await.status, 202);
    let binary = rig.workers.seen.lock()[4].2.inputs[0].1.clone();
    let expected = json!({ "specversion": "1.0", "id": "9", "type": "t", "source": "s", "data": { "b": 2 } });
    let Value::Json(found) = binary else { panic!("{binary:?}") };
    assert_eq!(serde_json::from_slice::<Json>(&found).unwrap(), expected);
    let allowed = web.call("OPTIONS", &target, &[("webhook-request-origin", "grid.example")], "").await;
    assert_eq!((allowed.status, allowed.headers["webhook-allowed-origin"].as_str()), (200, "grid.example"));
    for (target, status) in [
        ("/apps/app/runtime/webhooks/eventgrid?functionName=grid".to_owned(), 401),
        (format!("/apps/app/runtime/webhooks/eventgrid?functionName=hello&code={key}"), 401),
        (format!("/apps/app/runtime/webhooks/eventgrid?code={key}"), 400),
        (format!("/apps/app/runtime/webhooks/blob?functionName=grid&code={key}"), 404),
    ] {
        assert_eq!(web.call("POST", &target, &[], "[]").await.status, status, "{target}");
    }
    for bad in ["x", "7", "[1]"] {
        assert_eq!(web.call("POST", &target, &[], bad).await.status, 400, "{bad}");
    }
    *rig.workers.handler.lock() = handler(|_, _| throws("no"));
    assert_eq!(post(json!([event("1")])).await.status, 500);
}

/// Realtime clients: the function of hub, category and event; what it returns, and what it throws.
#[tokio::test(flavor = "multi_thread")]
async fn realtime_clients() {
    let (rig, _) = rig(handler(|_, _| {
        let returned = Some(Value::Json(r#"{"sum":3}"#.into()));
        Ok(InvocationResult { outcome: Outcome::Success, outputs: Vec::new(), returned })
    }))
    .await;
    let functions = json!([{ "name": "add", "bindings": [{ "type": "signalRTrigger", "name": "call", "hubName": "live",
        "category": "messages", "event": "Add", "parameterNames": ["a", "b"] }] }]);
    rig.deploy("app", functions).await;
    let tier = &rig.tiers[0];
    while !tier.wants_client_event("LIVE", "messages", "add") {
        tokio::task::yield_now().await;
    }
    let event = |event: &str| ClientEvent {
        hub: "live".into(),
        connection: "c1".into(),
        user: Some("anna".into()),
        category: "messages".into(),
        event: event.into(),
        arguments: "[1,2]".into(),
        claims: vec![("role".into(), "x".into())],
        ..ClientEvent::default()
    };
    assert_eq!(tier.on_client_event(event("Other")).await, None);
    let reply = tier.on_client_event(event("Add")).await;
    assert_eq!(reply, Some(ClientReply::Result(r#"{"sum":3}"#.into())));
    let invocation = rig.workers.seen.lock()[0].2.clone();
    let Value::Json(context) = &invocation.inputs[0].1 else { panic!() };
    let context: Json = serde_json::from_slice(context).unwrap();
    let expected = json!({ "Arguments": [1, 2], "Error": null, "Category": "messages", "Event": "Add", "Hub": "live",
        "ConnectionId": "c1", "UserId": "anna", "Headers": {}, "Query": {}, "Claims": { "role": "x" } });
    assert_eq!(context, expected);
    let names: Vec<(&str, &Value)> =
        invocation.metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(names, [("a", &Value::Json("1".into())), ("b", &Value::Json("2".into()))]);
    *rig.workers.handler.lock() = handler(|_, _| throws("not so"));
    assert_eq!(tier.on_client_event(event("Add")).await, Some(ClientReply::Error("not so".into())));
}

/// The answer to `negotiate` is what the real-time tier gives, for the caller's user.
#[tokio::test(flavor = "multi_thread")]
async fn negotiation() {
    let (rig, web) = rig(handler(|_, invocation| {
        let info = invocation.inputs.iter().find(|(name, _)| name == "info").unwrap().1.clone();
        Ok(InvocationResult { outcome: Outcome::Success, outputs: Vec::new(), returned: Some(info) })
    }))
    .await;
    let functions = json!([{ "name": "negotiate", "bindings": [
        { "type": "httpTrigger", "name": "req", "authLevel": "anonymous", "methods": ["post"] },
        { "type": "signalRConnectionInfo", "direction": "IN", "name": "info", "hubName": "live",
            "userId": "{headers.x-user}" },
        { "type": "http", "direction": "OUT", "name": "$return" },
    ] }]);
    rig.deploy("app", functions).await;
    while rig.tiers[0].list()["apps"][0]["functions"] != 1 {
        tokio::task::yield_now().await;
    }
    let reply =
        web.call("POST", "/apps/app/api/negotiate?negotiateVersion=1", &[("x-user", "anna")], "").await;
    let expected = json!({ "url": "https://live/client/?user=anna", "accessToken": "token" });
    assert_eq!((reply.status, reply.json()), (200, expected));
    let nobody = web.call("POST", "/apps/app/api/negotiate", &[], "").await;
    assert_eq!(nobody.json()["url"], "https://live/client/?user=nobody");
}
