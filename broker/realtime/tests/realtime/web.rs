//! Negotiation, who gets in, pages of other origins, and requests that can't be.

use fleetline_realtime::SETTING;
use serde_json::json;

use crate::client::{Client, Wants, client_token, negotiate, open, raw_token, request, rest, send};
use crate::world::{ENDPOINT, World};

#[tokio::test]
async fn negotiation_in_both_versions() {
    let (world, nodes) = World::cluster(1).await;
    let tier = &nodes[0].tier;
    let token = client_token(&world, tier, "chat", None);
    let path = "/client/negotiate?hub=chat&negotiateVersion=7&useStatefulReconnect=true";
    let reply = send(tier, request("POST", path, Some(&token), "")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let body = reply.json();
    assert_eq!(body["negotiateVersion"], 1);
    assert_eq!(body["useStatefulReconnect"], true);
    assert_eq!(body["availableTransports"].as_array().map(Vec::len), Some(3));
    assert_ne!(body["connectionId"], body["connectionToken"]);

    let reply = send(tier, request("POST", "/client/negotiate?hub=chat", Some(&token), "")).await;
    let body = reply.json();
    assert_eq!(body["negotiateVersion"], 0);
    assert!(body.get("connectionToken").is_none() && body.get("useStatefulReconnect").is_none());
    // What a client of version 0 calls its id opens the connection.
    let id = body["connectionId"].as_str().expect("id");
    let client = Client::with(&world, &nodes[0], &Wants { id: Some(id), ..Wants::of("chat") }).await;
    assert_eq!(open(&world, &nodes[0], &Wants { id: Some(id), ..Wants::of("chat") }).await.err(), Some(409));
    drop(client);
}

#[tokio::test]
async fn only_good_tokens_open() {
    let (world, nodes) = World::cluster(1).await;
    let tier = &nodes[0].tier;
    let (now, aud) = (world.now_secs(), format!("{ENDPOINT}/client/?hub=chat"));
    let hs256 = json!({ "alg": "HS256" });
    let good = json!({ "aud": aud, "exp": now + 60 });
    let signed = raw_token(tier, &hs256, &good);
    let mut forged = signed.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let unsigned =
        format!("{}.", raw_token(tier, &json!({ "alg": "none" }), &good).rsplit_once('.').expect("parts").0);
    let bad = [
        forged,
        unsigned,
        raw_token(tier, &json!({ "alg": "RS256" }), &good),
        raw_token(tier, &hs256, &json!({ "aud": aud, "exp": now })),
        raw_token(tier, &hs256, &json!({ "aud": aud })),
        raw_token(tier, &hs256, &json!({ "aud": format!("{ENDPOINT}/client/?hub=other"), "exp": now + 60 })),
        raw_token(
            tier,
            &hs256,
            &json!({ "aud": format!("https://other/client/?hub=chat"), "exp": now + 60 }),
        ),
        raw_token(tier, &hs256, &json!({ "aud": aud, "exp": now + 60, "nbf": now + 3_600 })),
        "x".repeat(20_000),
        "a.b.c".to_owned(),
        String::new(),
    ];
    let path = "/client/negotiate?hub=chat&negotiateVersion=1";
    assert_eq!(send(tier, request("POST", path, Some(&signed), "")).await.status, 200);
    for token in &bad {
        let reply = send(tier, request("POST", path, Some(token), "")).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, "Bearer"), "{token}");
        let wants = Wants { token: Some(token.clone()), ..Wants::of("chat") };
        assert_eq!(open(&world, &nodes[0], &wants).await.err(), Some(401), "{token}");
        let reply = send(tier, request("POST", "/api/v1/hubs/chat", Some(token), "{\"target\":\"t\"}")).await;
        assert_eq!(reply.status, 401, "{token}");
    }
    assert_eq!(send(tier, request("POST", path, None, "")).await.status, 401);
    let by_query = format!("{path}&access_token={signed}");
    assert_eq!(send(tier, request("POST", &by_query, None, "")).await.status, 200);
    // A client's token is none of a backend.
    let reply = send(tier, request("POST", "/api/v1/hubs/chat", Some(&signed), "{\"target\":\"t\"}")).await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn keys_are_made_once_and_may_change() {
    let (world, nodes) = World::cluster(3).await;
    let strings: Vec<_> = nodes.iter().map(|node| node.tier.connection_string()).collect();
    assert!(strings.iter().all(|string| *string == strings[0]), "{strings:?}");
    let string = strings[0].clone().expect("keys");
    assert!(string.starts_with("Endpoint=https://hub.test;AccessKey="), "{string}");
    let (url, token) =
        nodes[1].tier.negotiate("Chat", Some("u"), &[], std::time::Duration::from_secs(60)).expect("keys");
    assert_eq!(url, "https://hub.test/client/?hub=chat");
    let path = "/client/negotiate?hub=chat";
    assert_eq!(send(&nodes[2].tier, request("POST", path, Some(&token), "")).await.status, 200);

    world.set(SETTING, r#"{"accessKeys":{"primary":"new key"}}"#);
    while nodes[2].tier.connection_string().is_none_or(|string| !string.contains("new key")) {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&nodes[2].tier, request("POST", path, Some(&token), "")).await.status, 401);
}

#[tokio::test]
async fn pages_of_other_origins() {
    let (world, nodes) = World::cluster(1).await;
    let tier = &nodes[0].tier;
    let ask = |method: &str, path: &str, origin: &str, token: Option<&str>| {
        let mut request = request(method, path, token, "");
        request.headers_mut().insert("origin", origin.parse().expect("origin"));
        request
    };
    let mut preflight = ask("OPTIONS", "/client/negotiate?hub=chat", "https://app.example", None);
    let headers = "authorization,x-signalr-user-agent".parse().expect("headers");
    preflight.headers_mut().insert("access-control-request-headers", headers);
    let reply = send(tier, preflight).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(reply.header("access-control-allow-credentials"), "true");
    assert_eq!(reply.header("access-control-allow-headers"), "authorization,x-signalr-user-agent");
    assert!(reply.header("access-control-allow-methods").contains("DELETE"));
    for path in ["/api/v1/hubs/chat", "/client/?hub=chat"] {
        let reply = send(tier, ask("OPTIONS", path, "https://app.example", None)).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, "https://app.example"));
    }
    // A page has to be able to read refusals too.
    let reply = send(tier, ask("POST", "/client/negotiate?hub=chat", "https://app.example", None)).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, "https://app.example"));
    assert_eq!(reply.header("vary"), "Origin");

    world.set(SETTING, r#"{"accessKeys":{"primary":"p"},"allowedOrigins":["https://mine"]}"#);
    while tier.connection_string().is_none_or(|string| !string.contains("AccessKey=p;")) {
        tokio::task::yield_now().await;
    }
    let allowed = |origin: &'static str| {
        let request = ask("OPTIONS", "/client/?hub=chat", origin, None);
        async move { send(tier, request).await.header("access-control-allow-origin").to_owned() }
    };
    assert_eq!(allowed("https://mine").await, "https://mine");
    assert_eq!(allowed("https://other").await, "");
}

#[tokio::test]
async fn statuses_of_the_dispatcher() {
    let (world, nodes) = World::cluster(1).await;
    let tier = &nodes[0].tier;
    let token = client_token(&world, tier, "chat", None);
    let (_, id) = negotiate(&world, &nodes[0], "chat", None).await;
    let _client = Client::with(&world, &nodes[0], &Wants { id: Some(&id), ..Wants::of("chat") }).await;
    let (_, fresh) = negotiate(&world, &nodes[0], "chat", None).await;
    let ask = |method: &'static str, query: String| {
        let request =
            request(method, &format!("/client/?hub=chat{query}"), Some(&token), "{\"type\":6}\u{1e}");
        async move { send(tier, request).await }
    };
    for (method, query, status) in [
        ("GET", String::new(), 400),
        ("POST", String::new(), 400),
        ("DELETE", String::new(), 400),
        ("PUT", format!("&id={id}"), 405),
        ("GET", "&id=unknown".to_owned(), 404),
        ("POST", format!("&id={}x", &id[..id.len() - 1]), 404),
        ("GET", format!("&id={id}"), 400),
        ("POST", format!("&id={id}"), 405),
        ("DELETE", format!("&id={id}"), 400),
        ("POST", format!("&id={fresh}"), 404),
        ("DELETE", format!("&id={fresh}"), 400),
    ] {
        assert_eq!(ask(method, query.clone()).await.status, status, "{method} {query}");
    }
    assert_eq!(&ask("GET", String::new()).await.body[..], b"Connection ID required");
    assert_eq!(&ask("GET", "&id=unknown".to_owned()).await.body[..], b"No Connection with that ID");
    let wrong = request("GET", "/client/negotiate?hub=chat", Some(&token), "");
    assert_eq!(send(tier, wrong).await.status, 405);
    let wrong = request("POST", "/client/negotiate?hub=1", Some(&token), "");
    assert_eq!(send(tier, wrong).await.status, 400);
}

#[tokio::test]
async fn a_hub_may_have_fewer_transports() {
    let (world, nodes) = World::cluster(1).await;
    let tier = &nodes[0].tier;
    world.set(SETTING, r#"{"accessKeys":{"primary":"p"},"hubs":{"chat":{"transports":["LongPolling"]}}}"#);
    while tier.connection_string().is_none_or(|string| !string.contains("AccessKey=p;")) {
        tokio::task::yield_now().await;
    }
    let token = client_token(&world, tier, "chat", None);
    let reply = send(tier, request("POST", "/client/negotiate?hub=chat", Some(&token), "")).await;
    assert_eq!(reply.json()["availableTransports"].as_array().map(Vec::len), Some(1));
    assert_eq!(open(&world, &nodes[0], &Wants::of("chat")).await.err(), Some(404));
    assert!(open(&world, &nodes[0], &Wants::of("other")).await.is_ok());
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let (world, nodes) = World::cluster(1).await;
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "x".repeat(1 << 20));
    assert_eq!(rest(&world, &nodes[0], "POST", "/api/v1/hubs/chat", &body).await.status, 413);
    let (_, id) = negotiate(&world, &nodes[0], "chat", None).await;
    let token = client_token(&world, &nodes[0].tier, "chat", None);
    let path = format!("/client/?hub=chat&id={id}");
    assert_eq!(send(&nodes[0].tier, request("GET", &path, Some(&token), "")).await.status, 200);
    let big = "x".repeat(300 << 10);
    assert_eq!(send(&nodes[0].tier, request("POST", &path, Some(&token), &big)).await.status, 413);
}
