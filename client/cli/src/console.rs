//! `fleetline console`: the address of the operator's page, with a token that signs in.
//!
//! The token is a JWT (RFC 7519), `HS256` under the policy's key, as `broker/console` verifies it: audience
//! `console`, subject the policy's name. It stands in the address's fragment, which browsers don't send.
//!
//! Invariant: the key itself is never in an address. Not here: the page (`broker/console`).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use fleetline_iothub::connection_string::ConnectionString;
use ring::hmac;
use serde_json::{Value, json};

use crate::functions::now_secs;
use crate::hub::HubArgs;
use crate::{CliError, ContextArgs};

/// For whom the token is.
const AUDIENCE: &str = "console";

/// How to sign in to the console.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetline console
  fleetline console --hours 1 --policy service
      The page shows and changes what this policy may.

Whoever has the address is signed in until the token is over: don't pass it on.

A browser warns of the certificate of a cluster that made its own authority; importing hub-authority.pem of the
context folder as a trusted authority ends that. A node with `http_plain_listen` (`fleetline serve
--http-plain-listen 127.0.0.1:8088`) is also reached without TLS from its own machine.")]
pub struct ConsoleArgs {
    /// Hours until the token is over: 1 to 24.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=24), value_name = "N")]
    hours: u64,
    #[command(flatten)]
    hub: HubArgs,
}

/// Addresses of the console, signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleAddresses {
    /// Over TLS.
    pub https: String,
    /// Without TLS, where the node that wrote the context folder serves that; good on its machine only.
    pub plain: Option<String>,
}

pub(crate) fn run(context: &ContextArgs, args: &ConsoleArgs) -> Result<(), CliError> {
    let addresses = addresses(context, &args.hub, Duration::from_secs(args.hours * 3600))?;
    say!("{}", addresses.https);
    if let Some(plain) = addresses.plain {
        say!("{plain}");
        eprintln!("the second address needs no certificate and works on the node's own machine");
    }
    Ok(())
}

/// Addresses that open the console signed in as the policy that commands speak as.
///
/// # Errors
/// When there is no hub to be found, or its connection string has no key.
pub fn addresses(
    context: &ContextArgs,
    args: &HubArgs,
    valid: Duration,
) -> Result<ConsoleAddresses, CliError> {
    let hub = args.find(context)?;
    let text = args.text(&context.context)?;
    let parsed = ConnectionString::parse(&text).map_err(|error| CliError::Usage(error.to_string()))?;
    let (Some(policy), Some(key)) = (&parsed.shared_access_key_name, &parsed.shared_access_key) else {
        return Err(CliError::Usage(
            "a token for the console is signed with a policy's key, which this connection string doesn't have"
                .to_owned(),
        ));
    };
    let token = token(policy, key, now_secs().saturating_add(valid.as_secs()))?;
    let path = format!("console/#token={token}");
    let plain = args.plain_port(&context.context).map(|port| format!("http://127.0.0.1:{port}/{path}"));
    let port = if hub.port == 443 { String::new() } else { format!(":{}", hub.port) };
    Ok(ConsoleAddresses { https: format!("https://{}{port}/{path}", hub.host), plain })
}

fn token(policy: &str, key: &str, expires: u64) -> Result<String, CliError> {
    let key = STANDARD.decode(key.trim()).map_err(|_| CliError::Usage("the key is not base64".to_owned()))?;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "alg": "HS256", "typ": "JWT" }));
    let claims = part(json!({ "aud": AUDIENCE, "exp": expires, "sub": policy }));
    let signed = format!("{head}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HostName=hub;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0";

    fn folder(ports: Value) -> (tempfile::TempDir, ContextArgs) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["hub".to_owned()]).unwrap();
        std::fs::write(folder.path().join("hub-authority.pem"), made.cert.pem()).unwrap();
        let json = json!({"hostName": "hub", "ports": ports, "connectionStrings": {"iothubowner": TEXT}});
        std::fs::write(folder.path().join("hub.json"), json.to_string()).unwrap();
        let context = ContextArgs { context: folder.path().to_owned() };
        (folder, context)
    }

    /// The token that Python's hmac and base64 make of the same claims.
    #[test]
    fn tokens() {
        let found = token("iothubowner", "c2VjcmV0", 1_700_000_000).unwrap();
        let (signed, signature) = found.rsplit_once('.').unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        let json =
            |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
        assert_eq!(json(head), json!({"alg": "HS256", "typ": "JWT"}));
        assert_eq!(json(claims), json!({"aud": "console", "exp": 1_700_000_000, "sub": "iothubowner"}));
        assert_eq!(signature, "6EGUVflWeN4gZ_62Hlka856d1Jt5gy5iG0hL1TufZn0");
        assert!(token("p", "***", 1).is_err());
    }

    /// The address is the hub's, with the node's port; one without TLS is there when the node has one.
    #[test]
    fn addresses_of_a_node() {
        let hour = Duration::from_secs(3600);
        let of = |ports: Value| {
            let (_folder, context) = folder(ports);
            addresses(&context, &HubArgs::default(), hour).unwrap()
        };
        let both = of(json!({"https": 8443, "httpPlain": 8088}));
        assert!(both.https.starts_with("https://hub:8443/console/#token=e"), "{both:?}");
        assert!(both.plain.unwrap().starts_with("http://127.0.0.1:8088/console/#token=e"));
        let usual = of(json!({"https": 443}));
        assert!(usual.https.starts_with("https://hub/console/#token=") && usual.plain.is_none());
        assert!(!both.https.contains("c2VjcmV0"));
    }

    /// Another hub's connection string says nothing of this node's ports; without a key there is no token.
    #[test]
    fn other_hubs() {
        let (_folder, context) = folder(json!({"https": 8443, "httpPlain": 8088}));
        let with = |text: &str| HubArgs { connection_string: Some(text.to_owned()), ..HubArgs::default() };
        let found = addresses(&context, &with(TEXT), Duration::from_secs(60)).unwrap();
        assert!(found.https.starts_with("https://hub/console/") && found.plain.is_none());
        let token = "HostName=hub;SharedAccessSignature=SharedAccessSignature sr=hub&sig=a&se=1&skn=p";
        let error = addresses(&context, &with(token), Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("policy's key"), "{error}");
    }
}
