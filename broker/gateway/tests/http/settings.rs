//! The hub's own settings.

use fleetline_gateway::devices::hub::DeviceHub as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::world::{POLICY_KEY, World};

/// A setting is written under the version that was read, or not at all.
#[tokio::test]
async fn policies_are_compared_and_set() {
    let world = World::new();
    let read = world.owner("GET", "/hub/settings/policies", &[], "").await;
    assert_eq!((read.status, read.header("etag")), (200, Some("\"1\"")));
    let mut policies = read.json();
    assert_eq!(policies["service"]["primaryKey"], json!(POLICY_KEY));
    policies["reader"] =
        json!({"rights": ["registryRead"], "primaryKey": POLICY_KEY, "secondaryKey": POLICY_KEY});
    let text = policies.to_string();
    assert_eq!(world.owner("PUT", "/hub/settings/policies", &[], &text).await.status, 412);
    assert_eq!(world.owner("PUT", "/hub/settings/policies", &["If-Match: \"7\""], &text).await.status, 412);
    assert_eq!(world.owner("PUT", "/hub/settings/policies", &["If-Match: \"1\""], &text).await.status, 204);
    let late = world.owner("PUT", "/hub/settings/policies", &["If-Match: \"1\""], &text).await;
    assert_eq!((late.status, late.error().as_str()), (412, "PreconditionFailed"));
    assert_eq!(world.request(&world.policy("reader"), "GET", "/devices", &[], b"").await.status, 200);
    let lockout = world.owner("PUT", "/hub/settings/policies", &["If-Match: *"], "{}").await;
    assert_eq!(lockout.error(), "ArgumentInvalid");
    assert_eq!(world.owner("GET", "/hub/settings/other", &[], "").await.status, 404);
}

/// Who asks is never kept out by the answer.
#[tokio::test]
async fn address_rules() {
    let world = World::new();
    let put = async |rules: serde_json::Value| {
        let body = json!({ "ipRules": rules }).to_string();
        world.owner("PUT", "/hub/settings/access", &["If-Match: *"], &body).await.status
    };
    assert_eq!(put(json!([{"mask": "10.0.0.0/8", "allow": false}])).await, 400);
    assert_eq!(put(json!([{"mask": "ten", "allow": true}])).await, 400);
    assert_eq!(
        put(json!([{"mask": "10.0.0.0/8", "allow": true}, {"mask": "0.0.0.0/0", "allow": false}])).await,
        204
    );
    assert_eq!(world.hub.settings().access.ip_rules.len(), 2);
}

/// What the realtime hubs live on stays; the rest is their tier's affair.
#[tokio::test]
async fn realtime() {
    let world = World::new();
    let put = async |body: serde_json::Value| {
        world.owner("PUT", "/hub/settings/realtime", &["If-Match: *"], &body.to_string()).await.status
    };
    assert_eq!(put(json!({ "upstreams": [] })).await, 400);
    assert_eq!(put(json!({ "accessKeys": { "primary": "" }, "connectionSecret": "s" })).await, 400);
    let whole = json!({ "accessKeys": { "primary": "k" }, "connectionSecret": "s", "upstreams": [] });
    assert_eq!(put(whole.clone()).await, 204);
    assert_eq!(world.hub.settings().realtime, whole);
    assert_eq!(world.owner("GET", "/hub/settings/realtime", &[], "").await.status, 200);
}

/// An authority counts once its owner has signed the code; nobody can say so in its place.
#[tokio::test]
async fn authorities_are_proved() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let given = json!({"root": {"pem": pem, "verified": true, "code": "mine"}}).to_string();
    assert_eq!(world.owner("PUT", "/hub/settings/authorities", &["If-Match: *"], &given).await.status, 204);
    let known = world.hub.settings().authorities["root"].clone();
    assert!(!known.verified && known.code.is_empty());

    let code = world.owner("POST", "/hub/authorities/root/code", &[], "").await.json()["code"]
        .as_str()
        .unwrap()
        .to_owned();
    let issuer = Issuer::new(params, key);
    let proof = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().pem()
    };
    let verify = async |pem: String| {
        let body = json!({ "certificate": pem }).to_string();
        world
            .owner("POST", "/hub/authorities/root/verify", &["Content-Type: application/json"], &body)
            .await
            .status
    };
    assert_eq!(verify(proof("other")).await, 400);
    assert_eq!(verify("no pem".to_owned()).await, 400);
    assert_eq!(verify(proof(&code)).await, 204);
    assert!(world.hub.settings().authorities["root"].verified);
    // Written back as it was, it stays proved; another certificate of the name doesn't.
    let same = json!({"root": {"pem": pem, "verified": false}}).to_string();
    assert_eq!(world.owner("PUT", "/hub/settings/authorities", &["If-Match: *"], &same).await.status, 204);
    assert!(world.hub.settings().authorities["root"].verified);
    let other = json!({"root": {"pem": proof("x"), "verified": true}}).to_string();
    assert_eq!(world.owner("PUT", "/hub/settings/authorities", &["If-Match: *"], &other).await.status, 204);
    assert!(!world.hub.settings().authorities["root"].verified);
    assert_eq!(world.owner("POST", "/hub/authorities/none/code", &[], "").await.status, 404);
}
