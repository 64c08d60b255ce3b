//! Tokens of clients and backends: JSON web tokens, signed with an access key.
//!
//! [`verify`] checks signature, time and audience, in that order, and answers what the token says of its
//! user. [`mint`] makes the tokens that a negotiation hands out. `iat` is not looked at; `nbf` may be
//! ahead by [`CLOCK_SKEW_SECS`], since app servers' clocks differ from ours.
//!
//! Claims of the service begin with `asrs.s.`. A claim of the user whose name the token itself needs
//! (`aud`, `exp`, …) travels as `asrs.u.<name>`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::access_key::{AccessKey, AccessKeys, Algorithm};
use crate::audience::Audience;
use crate::limits::{CLAIMS_MAX, CLOCK_SKEW_SECS, TOKEN_BYTES_MAX};
use crate::negotiate::Transport;

/// Why a token opens nothing. The texts say nothing that helps to make a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Longer than any real one.
    #[error("token has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Not three parts of Base64 with JSON objects in the first two.
    #[error("not a token")]
    Malformed,
    /// Signed in a way that isn't ours, or not at all.
    #[error("token is not signed with hs256 or hs512")]
    Algorithm,
    /// No key of ours made the signature.
    #[error("token has a wrong signature")]
    Signature,
    /// Has no `exp`, or one that isn't a number.
    #[error("token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// `aud` is somebody else's URL.
    #[error("token is for another audience")]
    Audience,
    /// More claims than are looked at.
    #[error("token has more than {limit} claims")]
    TooManyClaims {
        /// The bound.
        limit: usize,
    },
}

/// Something that a token says of its user. A list in the token is one claim per element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its type, without `asrs.u.`.
    pub kind: String,
    /// Its value, as text.
    pub value: String,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who the user is: the first of `asrs.s.uid`, `nameid`, `sub` and the long `…/nameidentifier`.
    pub user_id: Option<String>,
    /// The user's claims, without those of the service and of the token itself.
    pub items: Vec<Claim>,
    /// Unix seconds of `exp`.
    pub expires_at_secs: u64,
    /// When the connection has to end, in Unix seconds: only if `asrs.s.coae` is set, else it outlives
    /// its token. `asrs.s.aeo`, or the token's own expiry.
    pub close_at_secs: Option<u64>,
    /// Time for the handshake (`asrs.s.cht`, 1 to 30 s).
    pub handshake_timeout_ms: Option<u64>,
    /// The transports that the client may use (`asrs.s.htt`); `None` for all.
    pub transports: Option<Vec<Transport>>,
    /// The type of the claims that name roles (`asrs.s.rt`).
    role_kind: Option<String>,
}

impl Claims {
    /// The values of all claims of a type.
    pub fn values<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.items.iter().filter(move |claim| claim.kind == kind).map(|claim| claim.value.as_str())
    }

    /// The roles of the user.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let is_role = |kind: &str| ROLE_KINDS.contains(&kind) || self.role_kind.as_deref() == Some(kind);
        self.items.iter().filter(move |claim| is_role(&claim.kind)).map(|claim| claim.value.as_str())
    }

    /// The groups of the user, as its identity provider names them; not those of the hub.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.items
            .iter()
            .filter(|claim| GROUP_KINDS.contains(&claim.kind.as_str()))
            .map(|claim| claim.value.as_str())
    }
}

const ROLE_KINDS: [&str; 3] =
    ["role", "roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"];
const GROUP_KINDS: [&str; 3] = ["group", "groups", "http://schemas.xmlsoap.org/claims/Group"];
/// Claims that name the user, the first that is there wins.
const USER_KINDS: [&str; 4] =
    ["asrs.s.uid", "nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];
/// Claims that the token itself needs.
const OWN_KINDS: [&str; 4] = ["aud", "exp", "iat", "nbf"];
const SERVICE_PREFIX: &str = "asrs.s.";
const USER_PREFIX: &str = "asrs.u.";

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that a reader has to understand (RFC 7515 §4.1.11). We understand none.
    crit: Option<Value>,
}

/// Checks a token and answers what it says.
pub fn verify(
    token: &str,
    keys: &AccessKeys,
    audience: Audience<'_>,
    now_secs: u64,
) -> Result<Claims, TokenError> {
    let claims = open(token, keys)?;
    let expires_at_secs = claims.get("exp").and_then(seconds).ok_or(TokenError::NoExpiry)?;
    if expires_at_secs <= now_secs {
        return Err(TokenError::Expired);
    }
    let valid_from_secs = claims.get("nbf").and_then(seconds).unwrap_or(0);
    if valid_from_secs > now_secs.saturating_add(CLOCK_SKEW_SECS) {
        return Err(TokenError::NotYetValid);
    }
    let aud = claims.get("aud").unwrap_or(&Value::Null);
    if !matches!(audience, Audience::Any) && !texts(aud).iter().any(|aud| audience.accepts(aud)) {
        return Err(TokenError::Audience);
    }
    read(&claims, expires_at_secs)
}

/// The claims of a token whose signature is good.
fn open(token: &str, keys: &AccessKeys) -> Result<Map<String, Value>, TokenError> {
    let (bytes, limit) = (token.len(), TOKEN_BYTES_MAX);
    if bytes > limit {
        return Err(TokenError::TooLong { bytes, limit });
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
    let Header { alg, crit } = serde_json::from_slice(&part(header)?).map_err(|_| TokenError::Malformed)?;
    let algorithm = Algorithm::from_name(&alg).filter(|_| crit.is_none()).ok_or(TokenError::Algorithm)?;
    if !keys.verify(algorithm, signed.as_bytes(), &part(signature)?) {
        return Err(TokenError::Signature);
    }
    serde_json::from_slice(&part(payload)?).map_err(|_| TokenError::Malformed)
}

fn read(claims: &Map<String, Value>, expires_at_secs: u64) -> Result<Claims, TokenError> {
    let service = |name: &str| claims.get(&format!("{SERVICE_PREFIX}{name}"));
    let user = |kind: &&str| claims.get(*kind).and_then(|value| texts(value).into_iter().next());
    let closes = service("coae").is_some_and(is_true);
    let close_at_secs = closes.then(|| service("aeo").and_then(seconds).unwrap_or(expires_at_secs));
    let handshake_secs = service("cht").and_then(seconds).filter(|secs| (1..=30).contains(secs));
    Ok(Claims {
        user_id: USER_KINDS.iter().filter_map(user).find(|id| !id.is_empty()),
        items: items(claims)?,
        expires_at_secs,
        close_at_secs,
        handshake_timeout_ms: handshake_secs.map(|secs| secs * 1_000),
        transports: service("htt").and_then(seconds).map(Transport::of_mask),
        role_kind: service("rt").and_then(|kind| texts(kind).into_iter().next()),
    })
}

/// The user's claims, those with a prefix under their real names.
fn items(claims: &Map<String, Value>) -> Result<Vec<Claim>, TokenError> {
    let mut items = Vec::new();
    for (name, value) in claims {
        if name.starts_with(SERVICE_PREFIX) || OWN_KINDS.contains(&name.as_str()) {
            continue;
        }
        let kind = name.strip_prefix(USER_PREFIX).unwrap_or(name);
        items.extend(texts(value).into_iter().map(|value| Claim { kind: kind.to_owned(), value }));
        if items.len() > CLAIMS_MAX {
            return Err(TokenError::TooManyClaims { limit: CLAIMS_MAX });
        }
    }
    Ok(items)
}

/// The value as text; a list as several; nothing of null.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

/// A number of at least zero, also as text. A fraction is cut.
fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|secs| *secs >= 0.0)?;
            Some(whole as u64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => text.eq_ignore_ascii_case("true") || text == "1",
        Value::Number(number) => number.as_u64() == Some(1),
        _ => false,
    }
}

/// What a token shall say.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The URL that it is for: [`crate::audience::client_audience`], or that of a REST request.
    pub audience: &'a str,
    /// Who the user is.
    pub user_id: Option<&'a str>,
    /// What else is known of the user.
    pub claims: &'a [Claim],
    /// Unix seconds from which on it is valid.
    pub issued_at_secs: u64,
    /// How long it is valid. An hour is usual.
    pub lifetime_secs: u64,
}

/// Makes a token.
pub fn mint(key: &AccessKey, algorithm: Algorithm, grant: &Grant<'_>) -> String {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm.name());
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(Value::Object(granted(grant)).to_string(), &mut token);
    let signature = key.sign(algorithm, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

fn granted(grant: &Grant<'_>) -> Map<String, Value> {
    let mut claims = Map::new();
    for claim in grant.claims {
        add(&mut claims, &claim.kind, &claim.value);
    }
    if let Some(user_id) = grant.user_id {
        claims.insert("asrs.s.uid".to_owned(), user_id.into());
    }
    claims.insert("aud".to_owned(), grant.audience.into());
    claims.insert("iat".to_owned(), grant.issued_at_secs.into());
    claims.insert("nbf".to_owned(), grant.issued_at_secs.into());
    claims.insert("exp".to_owned(), grant.issued_at_secs.saturating_add(grant.lifetime_secs).into());
    claims
}

/// Adds a claim of the user; several of one type become a list. A type that means something to the token or
/// to the service gets a prefix, so that no user can say what only the service may.
fn add(claims: &mut Map<String, Value>, kind: &str, value: &str) {
    let is_taken = OWN_KINDS.contains(&kind) || kind.starts_with("asrs.");
    let name = if is_taken { format!("{USER_PREFIX}{kind}") } else { kind.to_owned() };
    match claims.entry(name).or_insert(Value::Null) {
        Value::Array(values) => values.push(value.into()),
        empty @ Value::Null => *empty = value.into(),
        one => *one = Value::Array(vec![one.take(), value.into()]),
    }
}
