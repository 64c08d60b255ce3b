//! Which upstream is called, with what, and what its answer means.

use bytes::Bytes;
use fleetline_signalr::access_key::{AccessKey, AccessKeys};
use fleetline_signalr::names::HubName;
use fleetline_signalr::token::Claim;
use fleetline_signalr::upstream::{
    Caller, Category, UpstreamError, UpstreamEvent, UpstreamSettings, Upstreams, headers, outcome, signature,
};
use fleetline_signalr::{Outcome, Protocol};
use proptest::prelude::*;

use crate::kit::{BOTH, completion, hex, invocation, value};

fn hub() -> HubName {
    HubName::parse("chat").unwrap()
}

fn settings(json: &str) -> Vec<UpstreamSettings> {
    serde_json::from_str(json).unwrap()
}

fn one(url: &str) -> UpstreamSettings {
    settings(&serde_json::json!([{ "UrlTemplate": url }]).to_string()).remove(0)
}

fn keys() -> AccessKeys {
    AccessKeys {
        primary: AccessKey::new("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH").unwrap(),
        secondary: Some(AccessKey::new("k2").unwrap()),
    }
}

#[test]
fn first_match_wins() {
    let upstreams = Upstreams::new(settings(
        r#"[
            {"UrlTemplate":"http://1","HubPattern":"news","Auth":{"Type":"ManagedIdentity"}},
            {"UrlTemplate":"http://2","HubPattern":"chat, Other","CategoryPattern":"connections"},
            {"UrlTemplate":"http://3","HubPattern":"Chat","CategoryPattern":"messages","EventPattern":"Send,echo"},
            {"UrlTemplate":"http://4","HubPattern":"*","CategoryPattern":"*","EventPattern":"*"}
        ]"#,
    ))
    .unwrap();
    for (hub, category, event, url) in [
        ("news", Category::Messages, "any", "http://1"),
        ("chat", Category::Connections, "connected", "http://2"),
        ("OTHER", Category::Connections, "disconnected", "http://2"),
        ("chat", Category::Messages, "send", "http://3"),
        ("chat", Category::Messages, "ECHO", "http://3"),
        ("chat", Category::Messages, "sen", "http://4"),
        ("other", Category::Messages, "send", "http://4"),
    ] {
        let found = upstreams.find(&HubName::parse(hub).unwrap(), category, event).unwrap();
        assert_eq!(found.url_template, url, "{hub} {category:?} {event}");
    }
    let none = Upstreams::new(settings(r#"[{"UrlTemplate":"http://1","HubPattern":"news"}]"#)).unwrap();
    assert!(none.find(&hub(), Category::Messages, "send").is_none());
    assert!(Upstreams::default().find(&hub(), Category::Messages, "send").is_none());
}

#[test]
fn bad_settings() {
    for url in ["", "ftp://h", "https://", "http://{hub}.h/", "http://u@h", "http://h/a b", "h", "http://h\n"]
    {
        let error = Upstreams::new(vec![one("http://h"), one(url)]).unwrap_err();
        assert_eq!(error, UpstreamError::BadTemplate { index: 1 }, "{url}");
    }
    let error = Upstreams::new(vec![one("http://h"); 129]).unwrap_err();
    assert_eq!(error, UpstreamError::TooMany { count: 129, limit: 128 });
}

#[test]
fn urls() {
    for (template, event, url) in [
        ("http://h/api", "e", "http://h/api"),
        ("https://h/{hub}/{category}/{event}?x={event}", "send", "https://h/chat/messages/send?x=send"),
        ("https://h/{event}", "a/b?c=d&e#f g", "https://h/a%2Fb%3Fc%3Dd%26e%23f%20g"),
        ("https://h/{event}", "{hub}é", "https://h/%7Bhub%7D%C3%A9"),
        ("https://h/{x}/{hub", "e", "https://h/{x}/{hub"),
        ("https://h/runtime/webhooks/signalr?code=k%3D", "e", "https://h/runtime/webhooks/signalr?code=k%3D"),
    ] {
        assert_eq!(one(template).url(&hub(), Category::Messages, event).unwrap(), url);
    }
    for dots in [".", ".."] {
        let url = one("https://h/{event}").url(&hub(), Category::Messages, dots);
        assert!(matches!(url, Err(UpstreamError::DotSegment { name }) if name == dots));
    }
}

#[test]
fn signatures_of_both_keys() {
    // Python: hmac.new(key, b"conn-1", sha256).hexdigest()
    let first = "sha256=261f7f58ff9fb9bb8be7e4951a807fe6091e5c074885bf63b865eccd28728881";
    let both = signature("conn-1", &keys());
    let (one, two) = both.split_once(',').unwrap();
    assert_eq!(one, first);
    assert!(two.starts_with("sha256=") && two.len() == one.len() && two != one);
    assert_eq!(signature("conn-1", &AccessKeys { secondary: None, ..keys() }), first);
}

#[test]
fn headers_of_a_call() {
    let claims = [("role", "a"), ("name", "x, role: admin\r\nX: y")];
    let claims: Vec<Claim> = claims
        .into_iter()
        .map(|(kind, value)| Claim { kind: kind.to_owned(), value: value.to_owned() })
        .collect();
    let hub = hub();
    let caller = Caller {
        hub: &hub,
        connection_id: "conn-1",
        user_id: Some("bob"),
        claims: &claims,
        query: "hub=chat&x=1",
    };
    let event = UpstreamEvent::Message(invocation(None, "se\r\nnd", "[]"));
    let found = headers(&caller, &event, &keys());
    for (name, value) in [
        ("X-ASRS-Connection-Id", "conn-1"),
        ("X-ASRS-Hub", "chat"),
        ("X-ASRS-Category", "messages"),
        ("X-ASRS-Event", "se\u{fffd}\u{fffd}nd"),
        ("X-ASRS-User-Id", "bob"),
        ("X-ASRS-User-Claims", "role: a, name: x%2C role: admin\u{fffd}\u{fffd}X: y"),
        ("X-ASRS-Client-Query", "?hub=chat&x=1"),
        ("X-ASRS-Signature", &signature("conn-1", &keys())),
    ] {
        let values: Vec<_> = found.iter().filter(|(known, _)| *known == name).collect();
        assert_eq!(values, [&(name, value.to_owned())]);
    }
    assert_eq!(found.len(), 8);
    let nobody = Caller { user_id: None, claims: &[], query: "", ..caller };
    let found = headers(&nobody, &UpstreamEvent::Connected, &keys());
    assert_eq!(found.len(), 6);
    assert!(found.contains(&("X-ASRS-Category", "connections".to_owned())));
    assert!(found.contains(&("X-ASRS-Event", "connected".to_owned())));
}

#[test]
fn bodies() {
    let text = |event: UpstreamEvent| {
        let (content_type, body) = event.body(Protocol::MessagePack).unwrap();
        assert_eq!(content_type, "application/json");
        String::from_utf8(body).unwrap()
    };
    assert_eq!(text(UpstreamEvent::Connected), r#"{"type":10}"#);
    assert_eq!(text(UpstreamEvent::Disconnected { error: None }), r#"{"type":11}"#);
    let error = Some("\"x\"".to_owned());
    assert_eq!(text(UpstreamEvent::Disconnected { error }), r#"{"type":11,"error":"\"x\""}"#);
    let message = UpstreamEvent::Message(invocation(Some("1"), "t", "[1]"));
    let json = br#"{"type":1,"invocationId":"1","target":"t","arguments":[1]}"#.to_vec();
    assert_eq!(message.body(Protocol::Json), Ok(("application/json", json)));
    let msgpack = hex("96 01 80 a1 31 a1 74 91 01 90");
    assert_eq!(message.body(Protocol::MessagePack), Ok(("application/x-msgpack", msgpack)));
}

#[test]
fn replies_that_are_no_completions() {
    let failed =
        |protocol, status, body: &[u8]| match outcome(protocol, "1", status, Bytes::copy_from_slice(body)) {
            Outcome::Error(text) => text,
            other => panic!("{other:?}"),
        };
    for protocol in BOTH {
        for status in [200, 202, 204] {
            assert_eq!(outcome(protocol, "1", status, Bytes::new()), Outcome::Void);
        }
        assert_eq!(outcome(protocol, "1", 204, Bytes::from_static(b"x")), Outcome::Void);
        for status in [301, 400, 401, 404, 500, 503] {
            let expected = format!("Invocation failed, status code {status}");
            assert_eq!(failed(protocol, status, b"whatever"), expected);
        }
        let other = completion("2", Outcome::Void).body(protocol).unwrap();
        assert!(failed(protocol, 200, &other).ends_with("for another invocation"));
        assert!(failed(protocol, 200, b"<html>").ends_with("not a completion"));
        let ping = fleetline_signalr::Message::Ping.body(protocol).unwrap();
        assert!(failed(protocol, 200, &ping).ends_with("not a completion"));
        assert!(failed(protocol, 200, &vec![0; 16 * 1_024 * 1_024 + 1]).ends_with("too long"));
    }
}

proptest! {
    /// With and without its frame a completion is read, of any length: 404 bytes are those whose length
    /// looks like the start of a message.
    #[test]
    fn completions_of_any_length(length in prop_oneof![Just(404_usize), Just(405), 0..900_usize, 16_000..17_000_usize]) {
        let result = Outcome::Result(value(&format!("\"{}\"", "x".repeat(length.saturating_sub(9)))));
        for outcome_sent in [result, Outcome::Void, Outcome::Error("e".repeat(length))] {
            let message = completion("1", outcome_sent);
            for protocol in BOTH {
                let bare = message.body(protocol).unwrap();
                let framed = message.to_bytes(protocol).unwrap();
                let read = outcome(protocol, "1", 200, bare.into());
                prop_assert_eq!(&read, &outcome(protocol, "1", 200, framed));
                let again = completion("1", read).to_bytes(Protocol::Json).unwrap();
                prop_assert_eq!(again, message.to_bytes(Protocol::Json).unwrap());
            }
        }
    }
}
