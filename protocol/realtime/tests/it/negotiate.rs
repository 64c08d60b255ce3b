//! Bodies of negotiation, and the names of connections.

use fleetline_signalr::connection_id::{BadConnection, ConnectionId, ConnectionKey, ConnectionToken};
use fleetline_signalr::negotiate::{self, NegotiateRequest, Transport};
use fleetline_types::NodeId;
use proptest::prelude::*;
use proptest::sample::Index;

fn key() -> ConnectionKey {
    ConnectionKey::new(&[7; 32])
}

fn minted() -> (ConnectionId, ConnectionToken) {
    let id = ConnectionId::mint(NodeId(3), [9; 12]);
    let token = ConnectionToken::mint(&key(), &id);
    (id, token)
}

fn text(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap()
}

#[test]
fn queries() {
    for (query, version, use_stateful_reconnect) in [
        ("", 0, false),
        ("hub=chat", 0, false),
        ("negotiateVersion=1", 1, false),
        ("hub=chat&negotiateVersion=1&useStatefulReconnect=true", 1, true),
        ("negotiateversion=7&useStatefulReconnect=false", 1, false),
        ("negotiateVersion=0", 0, false),
        ("negotiateVersion=x", 0, false),
        ("negotiateVersion=-1", 0, false),
    ] {
        let expected = NegotiateRequest { version, use_stateful_reconnect };
        assert_eq!(NegotiateRequest::parse(query), expected, "{query}");
    }
}

#[test]
fn version_1() {
    let (id, token) = minted();
    let request = NegotiateRequest { version: 1, use_stateful_reconnect: false };
    let (id_text, token_text) = (id.as_str(), token.as_str());
    assert_eq!(
        text(negotiate::answer(request, &id, &token, &Transport::ALL)),
        format!(
            concat!(
                r#"{{"negotiateVersion":1,"connectionId":"{}","connectionToken":"{}","availableTransports":["#,
                r#"{{"transport":"WebSockets","transferFormats":["Text","Binary"]}},"#,
                r#"{{"transport":"ServerSentEvents","transferFormats":["Text"]}},"#,
                r#"{{"transport":"LongPolling","transferFormats":["Text","Binary"]}}]}}"#,
            ),
            id_text, token_text
        )
    );
}

/// Version 0 has one name, which opens the connection; clients read `connectionId` there.
#[test]
fn version_0() {
    let (id, token) = minted();
    let body = text(negotiate::answer(NegotiateRequest::default(), &id, &token, &[Transport::LongPolling]));
    let token_text = token.as_str();
    assert_eq!(
        body,
        format!(
            concat!(
                r#"{{"negotiateVersion":0,"connectionId":"{}","availableTransports":["#,
                r#"{{"transport":"LongPolling","transferFormats":["Text","Binary"]}}]}}"#,
            ),
            token_text
        )
    );
    assert_eq!(ConnectionId::parse(token.as_str()), Ok(id));
}

/// Clients refuse an offer that they didn't ask for; without WebSockets there is nothing to offer.
#[test]
fn resuming_is_offered_to_who_asks() {
    let (id, token) = minted();
    for (asked, transports, offered) in [
        (true, &Transport::ALL[..], true),
        (false, &Transport::ALL[..], false),
        (true, &[Transport::LongPolling][..], false),
    ] {
        let request = NegotiateRequest { version: 1, use_stateful_reconnect: asked };
        let body = text(negotiate::answer(request, &id, &token, transports));
        assert_eq!(body.contains(r#""useStatefulReconnect":true"#), offered);
        assert_eq!(body.contains("useStatefulReconnect"), offered);
    }
}

#[test]
fn redirects_and_errors() {
    let body = text(negotiate::redirect("https://h/client/?hub=c", "to.k.en"));
    assert_eq!(body, r#"{"url":"https://h/client/?hub=c","accessToken":"to.k.en"}"#);
    assert_eq!(text(negotiate::refuse("say \"no\"")), r#"{"error":"say \"no\""}"#);
}

#[test]
fn masks_of_transports() {
    assert_eq!(Transport::of_mask(0), []);
    assert_eq!(Transport::of_mask(5), [Transport::WebSockets, Transport::LongPolling]);
    assert_eq!(Transport::of_mask(u64::MAX), Transport::ALL);
}

#[test]
fn tokens_lead_to_their_node() {
    let (id, token) = minted();
    assert_eq!((id.as_str().len(), token.as_str().len()), (28, 50));
    let read = ConnectionToken::parse(&key(), token.as_str()).unwrap();
    assert_eq!((read.id(), read.id().node()), (&id, NodeId(3)));
    assert_eq!(ConnectionId::parse(id.as_str()), Ok(id.clone()));
    // The public id doesn't open the connection, and another cluster's token doesn't either.
    assert_eq!(ConnectionToken::parse(&key(), id.as_str()), Err(BadConnection));
    let other = ConnectionKey::new(&[8; 32]);
    assert_eq!(ConnectionToken::parse(&other, token.as_str()), Err(BadConnection));
    assert!(!format!("{token:?}").contains(token.as_str()));
}

proptest! {
    #[test]
    fn no_token_is_forged(at in any::<Index>(), with in "[A-Za-z0-9_-]", node in any::<u64>(), random in any::<[u8; 12]>()) {
        let id = ConnectionId::mint(NodeId(node), random);
        let token = ConnectionToken::mint(&key(), &id);
        prop_assert_eq!(ConnectionToken::parse(&key(), token.as_str()), Ok(token.clone()));
        let at = at.index(token.as_str().len());
        let mut forged = token.as_str().to_owned();
        forged.replace_range(at..=at, &with);
        if forged != token.as_str() {
            prop_assert_eq!(ConnectionToken::parse(&key(), &forged), Err(BadConnection));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{26,30}|\\PC{48,52}|[A-Za-z0-9_-]{28}|[A-Za-z0-9_-]{50}") {
        let _ = ConnectionId::parse(&text);
        prop_assert_eq!(ConnectionToken::parse(&key(), &text), Err(BadConnection));
    }
}
