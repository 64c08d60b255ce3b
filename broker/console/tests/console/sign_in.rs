//! Who gets in.

use http::{Method, header};

use crate::world::World;

/// Without a token nothing but the assets is answered; every query asks for one.
#[tokio::test]
async fn every_query_needs_a_token() {
    let world = World::new();
    world.add_device("plane");
    let queries = [
        (Method::GET, "session"),
        (Method::GET, "status"),
        (Method::GET, "groups"),
        (Method::GET, "functions"),
        (Method::GET, "positions"),
        (Method::POST, "negotiate"),
        (Method::GET, "devices"),
        (Method::GET, "devices/plane"),
        (Method::PATCH, "devices/plane/twin"),
        (Method::GET, "devices/plane/telemetry"),
        (Method::GET, "no-such-thing"),
    ];
    for (method, path) in queries {
        let path = format!("/console/api/{path}");
        for token in [None, Some("a.b.c"), Some("")] {
            // Each from another address, so that none has to wait.
            let from = format!("fd00:{:x}::1", path.len() * 8 + token.map_or(0, |token| token.len() + 1));
            let reply = world.send(method.clone(), &path, token, "{}", &from).await;
            assert_eq!(reply.status, 401, "{method} {path} {token:?}");
            assert!(reply.headers.contains(&(header::WWW_AUTHENTICATE, "Bearer".to_owned())));
        }
    }
}

/// A page without a token may ask as often as it likes; who guesses waits, and so does a good token from there.
#[tokio::test]
async fn guessing_is_slow() {
    let world = World::new();
    let path = "/console/api/session";
    let from = |token: Option<String>, address: &'static str| {
        let world = &world;
        async move { world.send(Method::GET, path, token.as_deref(), "", address).await.status.as_u16() }
    };
    for _ in 0..30 {
        assert_eq!(from(None, "10.0.0.9").await, 401);
    }
    assert_eq!(from(Some(world.token("service")), "10.0.0.9").await, 200);
    let failures = 10;
    for _ in 0..failures {
        assert_eq!(from(Some("a.b.c".into()), "10.0.0.9").await, 401);
    }
    assert_eq!(from(Some(world.token("service")), "10.0.0.9").await, 429);
    assert_eq!(from(Some(world.token("service")), "10.0.0.8").await, 200);
    world.hub.advance(60_000);
    assert_eq!(from(Some(world.token("service")), "10.0.0.9").await, 200);
}

/// A token is over when its time is, and when its policy's keys have changed.
#[tokio::test]
async fn tokens_end() {
    let world = World::new();
    let token = world.token("service");
    let status = || async {
        world.send(Method::GET, "/console/api/session", Some(&token), "", "10.0.0.1").await.status.as_u16()
    };
    assert_eq!(status().await, 200);
    world.hub.set(|settings| {
        let policy = settings.policies.get_mut("service").unwrap();
        policy.primary_key = "a2V5".into();
        policy.secondary_key = "a2V5".into();
    });
    assert_eq!(status().await, 401);
    let token = world.token("iothubowner");
    world.hub.advance(600_000);
    let reply = world.send(Method::GET, "/console/api/session", Some(&token), "", "10.0.0.1").await;
    assert_eq!(reply.status, 401);
}

/// What a session tells the page, and what each policy is refused.
#[tokio::test]
async fn rights_decide() {
    let world = World::new();
    world.add_device("plane");
    let (_, session) = world.ask("registryRead", Method::GET, "session", "").await;
    assert_eq!(session["policy"], "registryRead");
    assert_eq!((&session["may"]["devices"], &session["may"]["live"]), (&true.into(), &false.into()));
    let change = r#"{"desired":{"a":1}}"#;
    let rows: [(&str, Method, &str, [u16; 3]); 8] = [
        ("status", Method::GET, "", [200, 200, 403]),
        ("devices", Method::GET, "", [200, 200, 403]),
        ("devices/plane", Method::GET, "", [200, 200, 403]),
        ("devices/plane/twin", Method::PATCH, change, [200, 403, 403]),
        ("devices/plane/telemetry", Method::GET, "", [200, 403, 403]),
        ("negotiate", Method::POST, "", [200, 403, 403]),
        ("positions", Method::GET, "", [200, 403, 403]),
        ("functions", Method::GET, "", [200, 200, 403]),
    ];
    for (path, method, body, statuses) in rows {
        for (policy, status) in ["service", "registryRead", "device"].into_iter().zip(statuses) {
            let (found, answer) = world.ask(policy, method.clone(), path, body).await;
            assert_eq!(found, status, "{policy} {path}: {answer}");
        }
    }
    let (_, device) = world.ask("registryRead", Method::GET, "devices/plane", "").await;
    assert!(device["twin"].is_null() && device["identity"]["id"] == "plane", "{device}");
}

/// Paths that are none, and methods that aren't taken.
#[tokio::test]
async fn odd_requests() {
    let world = World::new();
    let rows = [
        (Method::POST, "status", 405),
        (Method::DELETE, "devices/plane", 405),
        (Method::GET, "negotiate", 405),
        (Method::GET, "devices/plane/twin", 405),
        (Method::GET, "nothing", 404),
        (Method::GET, "devices/a/b/c", 404),
        (Method::GET, "devices/%zz", 400),
        (Method::GET, "devices/a%2Fb", 400),
        (Method::GET, "devices/%00", 400),
        (Method::GET, "devices/nobody", 404),
        (Method::GET, "devices?limit=x", 400),
        (Method::GET, "devices?from=nonsense", 400),
    ];
    for (method, path, status) in rows {
        let (found, answer) = world.ask("service", method.clone(), path, "").await;
        assert_eq!(found, status, "{method} {path}: {answer}");
    }
}
