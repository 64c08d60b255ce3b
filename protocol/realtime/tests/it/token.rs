//! Every rule of a token: signature, time, audience, who the user is, what else is said.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetline_signalr::access_key::{AccessKey, AccessKeys, Algorithm};
use fleetline_signalr::audience::{Audience, client_audience};
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::token::{Claim, Claims, Grant, TokenError, mint, verify};
use proptest::prelude::*;
use proptest::sample::Index;
use ring::hmac;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";
const NOW: u64 = 2_000;

fn keys() -> AccessKeys {
    AccessKeys {
        primary: AccessKey::new(KEY).unwrap(),
        secondary: Some(AccessKey::new("the other").unwrap()),
    }
}

/// A token whose parts are these, signed with HMAC-SHA256 by hand.
fn token(header: &str, payload: &str, key: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What a token with these claims (and an expiry) says.
fn claims(more: &str) -> Claims {
    let payload = format!(r#"{{"exp":4600{more}}}"#);
    verify(&token(r#"{"alg":"HS256"}"#, &payload, KEY), &keys(), Audience::Any, NOW).unwrap()
}

fn error_of(header: &str, payload: &str, audience: Audience<'_>) -> TokenError {
    verify(&token(header, payload, KEY), &keys(), audience, NOW).unwrap_err()
}

/// Made by another library (Python's hmac), with both algorithms.
#[test]
fn tokens_of_others() {
    let endpoints = ["http://localhost:8888".to_owned()];
    let audience = Audience::Client { endpoints: &endpoints, hub: "chat" };
    let payload = "eyJuYW1laWQiOiJib2IiLCJuYmYiOjEwMDAsImV4cCI6NDYwMCwiaWF0IjoxMDAwLCJhdWQiOiJodHRwOi8vbG9jYWxob3N0Ojg4ODgvY2xpZW50Lz9odWI9Y2hhdCJ9";
    for (header, signature) in [
        ("eyJhbGciOiJIUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJKV1QifQ", "2SacFnwSF6mzZ_YPlpxRyv4FJ9K8WHR1cL1HsZPSmAE"),
        (
            "eyJhbGciOiJIUzUxMiIsImtpZCI6IjEiLCJ0eXAiOiJKV1QifQ",
            "bpf6-NYPIgpbvrm_tDtGoUj-_BsxTgr-SrM_Hh4HqMi9KMOQkNTH1Hy2icKDwF8jdb3eryk6XmGdnB5yCpWM3w",
        ),
    ] {
        let token = format!("{header}.{payload}.{signature}");
        let claims = verify(&token, &keys(), audience, NOW).unwrap();
        assert_eq!(claims.user_id.as_deref(), Some("bob"));
        assert_eq!((claims.expires_at_secs, claims.close_at_secs), (4_600, None));
        let other = Audience::Client { endpoints: &endpoints, hub: "news" };
        assert_eq!(verify(&token, &keys(), other, NOW), Err(TokenError::Audience));
    }
}

#[test]
fn either_key_opens_and_no_other() {
    let (header, payload) = (r#"{"alg":"HS256"}"#, r#"{"exp":4600}"#);
    for (key, expected) in [(KEY, Ok(())), ("the other", Ok(())), ("a third", Err(TokenError::Signature))] {
        let read = verify(&token(header, payload, key), &keys(), Audience::Any, NOW);
        assert_eq!(read.map(drop), expected, "{key}");
    }
    let only = AccessKeys { secondary: None, ..keys() };
    let read = verify(&token(header, payload, "the other"), &only, Audience::Any, NOW);
    assert_eq!(read, Err(TokenError::Signature));
    assert!(AccessKey::new("").is_err());
    assert_eq!(format!("{:?}", keys().primary), "AccessKey(..)");
}

#[test]
fn algorithms() {
    let payload = r#"{"exp":4600}"#;
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
    ] {
        assert_eq!(error_of(header, payload, Audience::Any), TokenError::Algorithm, "{header}");
    }
    // A good signature of the other hash is none.
    assert_eq!(error_of(r#"{"alg":"HS512"}"#, payload, Audience::Any), TokenError::Signature);
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(payload));
    assert_eq!(verify(&unsigned, &keys(), Audience::Any, NOW), Err(TokenError::Algorithm));
    let empty = unsigned
        .replace(&URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), &URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
    assert_eq!(verify(&empty, &keys(), Audience::Any, NOW), Err(TokenError::Signature));
}

#[test]
fn what_is_no_token() {
    for text in
        ["", ".", "..", "a.b", "a.b.c", "e30.e30.", "e30.e30.AA", &format!("{}=", token("{}", "{}", KEY))]
    {
        assert_eq!(verify(text, &keys(), Audience::Any, NOW), Err(TokenError::Malformed), "{text}");
    }
    for payload in ["[]", "1", "{", ""] {
        assert_eq!(error_of(r#"{"alg":"HS256"}"#, payload, Audience::Any), TokenError::Malformed);
    }
    let long = "a".repeat(16_385);
    assert_eq!(
        verify(&long, &keys(), Audience::Any, NOW),
        Err(TokenError::TooLong { bytes: 16_385, limit: 16_384 })
    );
    let many = format!(r#"{{"exp":4600,"x":[{}]}}"#, vec!["1"; 257].join(","));
    let error = error_of(r#"{"alg":"HS256"}"#, &many, Audience::Any);
    assert_eq!(error, TokenError::TooManyClaims { limit: 256 });
}

#[test]
fn times() {
    let error = |payload: &str| {
        let token = token(r#"{"alg":"HS256"}"#, payload, KEY);
        verify(&token, &keys(), Audience::Any, NOW).map(|claims| claims.expires_at_secs)
    };
    for (payload, expected) in [
        ("{}", Err(TokenError::NoExpiry)),
        (r#"{"exp":null}"#, Err(TokenError::NoExpiry)),
        (r#"{"exp":"soon"}"#, Err(TokenError::NoExpiry)),
        (r#"{"exp":-1}"#, Err(TokenError::NoExpiry)),
        (r#"{"exp":1999}"#, Err(TokenError::Expired)),
        (r#"{"exp":2000}"#, Err(TokenError::Expired)),
        (r#"{"exp":2001}"#, Ok(2_001)),
        (r#"{"exp":2001.9}"#, Ok(2_001)),
        (r#"{"exp":"2001"}"#, Ok(2_001)),
        (r#"{"exp":1e300}"#, Ok(u64::MAX)),
        (r#"{"exp":4600,"nbf":2300}"#, Ok(4_600)),
        (r#"{"exp":4600,"nbf":2301}"#, Err(TokenError::NotYetValid)),
        (r#"{"exp":4600,"iat":9999}"#, Ok(4_600)),
    ] {
        assert_eq!(error(payload), expected, "{payload}");
    }
}

#[test]
fn audiences() {
    let endpoints = ["https://h".to_owned()];
    let client = Audience::Client { endpoints: &endpoints, hub: "chat" };
    let rest = Audience::Rest { endpoints: &endpoints, path: "/api/v1/hubs/chat", query: "" };
    for (aud, is_client, is_rest) in [
        (r#""https://h/client/?hub=chat""#, true, false),
        (r#""https://h/api/v1/hubs/chat""#, false, true),
        (r#"["x","https://h/client/?hub=chat"]"#, true, false),
        (r#"[]"#, false, false),
        ("null", false, false),
        ("7", false, false),
    ] {
        let token = token(r#"{"alg":"HS256"}"#, &format!(r#"{{"exp":4600,"aud":{aud}}}"#), KEY);
        for (audience, expected) in [(client, is_client), (rest, is_rest), (Audience::Any, true)] {
            assert_eq!(verify(&token, &keys(), audience, NOW).is_ok(), expected, "{aud} {audience:?}");
        }
    }
    assert_eq!(error_of(r#"{"alg":"HS256"}"#, r#"{"exp":4600}"#, client), TokenError::Audience);
}

#[test]
fn who_the_user_is() {
    let long = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier";
    let mut said = format!(r#","{long}":"d""#);
    assert_eq!(claims("").user_id, None);
    assert_eq!(claims(&said).user_id.as_deref(), Some("d"));
    for (kind, value) in [("sub", "c"), ("nameid", "b"), ("asrs.s.uid", "a")] {
        said = format!(r#"{said},"{kind}":"{value}""#);
        assert_eq!(claims(&said).user_id.as_deref(), Some(value), "{kind}");
    }
    assert_eq!(claims(r#","asrs.s.uid":"","sub":7"#).user_id.as_deref(), Some("7"));
    assert_eq!(claims(r#","nameid":["x","y"]"#).user_id.as_deref(), Some("x"));
}

#[test]
fn what_else_is_said() {
    let claims = claims(
        r#","aud":"x","iat":1,"nbf":2,"asrs.s.sn":"server","asrs.u.exp":"mine","iss":"me","list":["a","b"],"n":7,"t":true,"o":{"k":[1]},"none":null,"role":"r1","teams":["r2"],"asrs.s.rt":"teams","groups":["g"]"#,
    );
    let items: Vec<_> = claims.items.iter().map(|item| (item.kind.as_str(), item.value.as_str())).collect();
    assert_eq!(
        items,
        [
            ("exp", "mine"),
            ("groups", "g"),
            ("iss", "me"),
            ("list", "a"),
            ("list", "b"),
            ("n", "7"),
            ("o", r#"{"k":[1]}"#),
            ("role", "r1"),
            ("t", "true"),
            ("teams", "r2"),
        ]
    );
    assert_eq!(claims.values("list").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(claims.roles().collect::<Vec<_>>(), ["r1", "r2"]);
    assert_eq!(claims.groups().collect::<Vec<_>>(), ["g"]);
}

#[test]
fn what_the_service_is_told() {
    for (said, expected) in [
        ("", None),
        (r#","asrs.s.aeo":3000"#, None),
        (r#","asrs.s.coae":"false","asrs.s.aeo":3000"#, None),
        (r#","asrs.s.coae":"true""#, Some(4_600)),
        (r#","asrs.s.coae":true,"asrs.s.aeo":3000"#, Some(3_000)),
        (r#","asrs.s.coae":1,"asrs.s.aeo":"3000""#, Some(3_000)),
    ] {
        assert_eq!(claims(said).close_at_secs, expected, "{said}");
    }
    for (secs, expected) in [("0", None), ("1", Some(1_000)), ("\"30\"", Some(30_000)), ("31", None)] {
        assert_eq!(claims(&format!(r#","asrs.s.cht":{secs}"#)).handshake_timeout_ms, expected, "{secs}");
    }
    assert_eq!(claims("").transports, None);
    assert_eq!(claims(r#","asrs.s.htt":"1""#).transports, Some(vec![Transport::WebSockets]));
}

#[test]
fn minted_tokens_are_good() {
    let audience = client_audience("https://h", "Chat");
    assert_eq!(audience, "https://h/client/?hub=chat");
    let said: Vec<Claim> =
        [("role", "a"), ("role", "b"), ("exp", "mine"), ("asrs.s.uid", "admin"), ("sub", "s")]
            .into_iter()
            .map(|(kind, value)| Claim { kind: kind.to_owned(), value: value.to_owned() })
            .collect();
    let endpoints = ["https://h".to_owned()];
    for algorithm in [Algorithm::Hs256, Algorithm::Hs512] {
        for user_id in [Some("bob"), None] {
            let grant =
                Grant { audience: &audience, user_id, claims: &said, issued_at_secs: NOW, lifetime_secs: 60 };
            let token = mint(&keys().primary, algorithm, &grant);
            let wanted = Audience::Client { endpoints: &endpoints, hub: "chat" };
            let read = verify(&token, &keys(), wanted, NOW + 59).unwrap();
            // A claim of the user can't say what the service's claims say.
            assert_eq!(read.user_id.as_deref(), user_id.or(Some("s")));
            assert_eq!(read.values("role").collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(read.values("exp").collect::<Vec<_>>(), ["mine"]);
            assert_eq!(read.values("asrs.s.uid").collect::<Vec<_>>(), ["admin"]);
            assert_eq!(verify(&token, &keys(), wanted, NOW + 60), Err(TokenError::Expired));
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), header in "[A-Za-z0-9_-]{0,9}", payload in any::<String>()) {
        let _ = verify(&text, &keys(), Audience::Any, NOW);
        let _ = verify(&format!("{header}.{text}.{header}"), &keys(), Audience::Any, NOW);
        let _ = verify(&token(r#"{"alg":"HS256"}"#, &payload, KEY), &keys(), Audience::Any, NOW);
    }

    #[test]
    fn no_damage_goes_unnoticed(at in any::<Index>(), with in "[A-Za-z0-9._-]") {
        let grant = Grant { audience: "", user_id: Some("u"), claims: &[], issued_at_secs: NOW, lifetime_secs: 60 };
        let good = mint(&keys().primary, Algorithm::Hs256, &grant);
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad.replace_range(at..=at, &with);
        prop_assert_eq!(verify(&bad, &keys(), Audience::Any, NOW).is_ok(), bad == good);
    }
}
