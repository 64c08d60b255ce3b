//! Which hub a command speaks to, as whom, and whose certificate it trusts.
//!
//! A node writes `hub.json` and `hub-authority.pem` into its client folder; from there come the hub's name
//! and the policies' connection strings. `--connection-string` (or its environment variable), `--authority`
//! and `--https` go before what the folder says.
//!
//! Invariants: a secret is shown only by a command whose purpose that is; without an authority nothing is
//! trusted.
//!
//! Not here: requests (`rest`), streams (`ContextArgs::connect`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use fleetline_iothub::connection_string::ConnectionString;
use fleetline_iothub::sas::{SasKey, generate_token};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{CliError, ContextArgs};

/// Who commands speak as, when nothing else is said: it may do all of them.
const POLICY: &str = "iothubowner";
/// Port of a hub whose name has none.
const HTTPS_PORT: u16 = 443;
/// How long a token is valid. One is made for each request.
const TOKEN_VALID: Duration = Duration::from_secs(3600);

/// How to reach the hub's HTTPS interface. Nothing of it is needed on the machine of a node.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Hub")]
pub struct HubArgs {
    /// Connection string of a policy. Without it, the one of `iothubowner` in `hub.json` of the context folder.
    #[arg(
        long,
        global = true,
        env = "FLEETLINE_HUB_CONNECTION_STRING",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub connection_string: Option<String>,
    /// The connection string of this policy in `hub.json`, whatever --connection-string says.
    #[arg(long, global = true, value_name = "NAME")]
    pub policy: Option<String>,
    /// Certificate of the authority that signed the hub's, PEM. Without it, the one in the context folder.
    #[arg(long, global = true, value_name = "FILE")]
    pub authority: Option<PathBuf>,
    /// Where to connect to, instead of the port in `hub.json` (else 443) of the hub's name. `:PORT` keeps the
    /// host.
    #[arg(long, global = true, env = "FLEETLINE_HTTPS", value_name = "HOST:PORT")]
    pub https: Option<String>,
}

/// Who a request is from.
#[derive(Clone)]
enum Credential {
    /// Signs a token for `resource`.
    Key { key: SasKey, policy: Option<String>, resource: String },
    /// A token that somebody else made.
    Token(String),
}

/// A hub, ready to be spoken to.
#[derive(Clone)]
pub struct Hub {
    /// Its name, without port: devices find their own.
    pub name: String,
    /// Where to connect to: the host.
    pub host: String,
    /// Where to connect to: the port.
    pub port: u16,
    /// Whom to trust.
    pub tls: Arc<ClientConfig>,
    credential: Credential,
}

/// What a node writes, the parts that are used.
struct HubFile {
    authority: Option<PathBuf>,
    connection_strings: BTreeMap<String, String>,
    /// Where the node serves HTTPS.
    https_port: Option<u16>,
    /// Where it serves HTTP without TLS.
    plain_port: Option<u16>,
}

impl HubArgs {
    /// Finds the hub.
    ///
    /// # Errors
    /// What is missing or can't be read, and what to do about it.
    pub fn find(&self, context: &ContextArgs) -> Result<Hub, CliError> {
        let text = self.text(&context.context)?;
        let parsed = parse(&text)?;
        let tls = self.trust(&context.context)?;
        let (name, port) = split_port(&parsed.host_name)?;
        let port = port.or_else(|| self.file_of_node(&context.context)?.https_port);
        let (mut host, mut port) = (name.clone(), port.unwrap_or(HTTPS_PORT));
        if let Some(https) = &self.https {
            let (other, Some(given)) = split_port(https)? else {
                return Err(CliError::Usage(format!(
                    "--https {https}: write it like localhost:8443 or :8443"
                )));
            };
            port = given;
            if !other.is_empty() {
                host = other;
            }
        }
        let credential = credential(&parsed, &name)?;
        Ok(Hub { name, host, port, tls, credential })
    }

    /// The connection string to speak by.
    pub(crate) fn text(&self, folder: &Path) -> Result<String, CliError> {
        if let (Some(text), None) = (&self.connection_string, &self.policy) {
            return Ok(text.trim().to_owned());
        }
        let policy = self.policy.as_deref().unwrap_or(POLICY);
        let file = HubFile::read(folder)?;
        let known: Vec<&str> = file.connection_strings.keys().map(String::as_str).collect();
        let known = known.join(", ");
        file.connection_strings.get(policy).cloned().ok_or_else(|| {
            CliError::Failed(format!(
                "no policy {policy} in {}\nhint: the policies there are {known}",
                HubFile::path(folder).display()
            ))
        })
    }

    /// The file of the node that wrote the folder, when its connection string is the one that counts.
    fn file_of_node(&self, folder: &Path) -> Option<HubFile> {
        match self.connection_string.is_some() && self.policy.is_none() {
            true => None,
            false => HubFile::read(folder).ok(),
        }
    }

    /// Where that node serves HTTP without TLS, if it does.
    pub(crate) fn plain_port(&self, folder: &Path) -> Option<u16> {
        self.file_of_node(folder)?.plain_port
    }

    fn trust(&self, folder: &Path) -> Result<Arc<ClientConfig>, CliError> {
        let path = self.authority_path(folder)?;
        let wrong = |error: &dyn std::fmt::Display| {
            CliError::Failed(format!("authority {} can't be read: {error}", path.display()))
        };
        let pem = std::fs::read(&path).map_err(|error| wrong(&error))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"there is no certificate in it"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }

    fn authority_path(&self, folder: &Path) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.authority {
            return Ok(path.clone());
        }
        // The path in the file is absolute: in a folder that was copied, only what lies beside it is right.
        let beside = folder.join("hub-authority.pem");
        if beside.is_file() {
            return Ok(beside);
        }
        let named = HubFile::read(folder).ok().and_then(|file| file.authority);
        named.filter(|path| path.is_file()).ok_or_else(|| {
            CliError::Failed(format!(
                "no authority to trust: there is no {}\nhint: name the certificate of the authority that signed \
                 the hub's with --authority FILE",
                beside.display()
            ))
        })
    }
}

impl HubFile {
    fn path(folder: &Path) -> PathBuf {
        folder.join("hub.json")
    }

    fn read(folder: &Path) -> Result<HubFile, CliError> {
        let path = HubFile::path(folder);
        let wrong = |error: String| {
            CliError::Failed(format!(
                "{} can't be read: {error}\nhint: a node writes it (`fleetline serve`); name its client folder \
                 with --context, or give --connection-string and --authority",
                path.display()
            ))
        };
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let strings = json["connectionStrings"].as_object();
        let strings = strings.ok_or_else(|| wrong("it has no connectionStrings".to_owned()))?;
        let string = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_owned()));
        let port = |name: &str| json["ports"][name].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(HubFile {
            authority: json["authority"].as_str().map(|path| folder.join(path)),
            connection_strings: strings.iter().filter_map(string).collect(),
            https_port: port("https"),
            plain_port: port("httpPlain"),
        })
    }
}

fn parse(text: &str) -> Result<ConnectionString, CliError> {
    ConnectionString::parse(text).map_err(|error| {
        CliError::Usage(format!(
            "{error}\nhint: a policy's reads HostName=…;SharedAccessKeyName=…;SharedAccessKey=…"
        ))
    })
}

fn credential(parsed: &ConnectionString, name: &str) -> Result<Credential, CliError> {
    if parsed.device_id.is_some() {
        return Err(CliError::Usage(
            "this connection string is a device's: here a policy's is needed\nhint: `fleetline connection-string` \
             prints one on the machine of a node"
                .to_owned(),
        ));
    }
    if let Some(token) = &parsed.shared_access_signature {
        return Ok(Credential::Token(token.clone()));
    }
    let (Some(policy), Some(key)) = (&parsed.shared_access_key_name, &parsed.shared_access_key) else {
        return Err(CliError::Usage(
            "the connection string has no SharedAccessKeyName or no SharedAccessKey".to_owned(),
        ));
    };
    let key = SasKey::from_base64(key).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(Credential::Key { key, policy: Some(policy.clone()), resource: name.to_owned() })
}

/// Takes `host[:port]` apart. An IPv6 address stands in brackets, which stay.
fn split_port(text: &str) -> Result<(String, Option<u16>), CliError> {
    let wrong = || CliError::Usage(format!("{text:?} is not HOST or HOST:PORT"));
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => {
            let port: u16 = port.parse().map_err(|_| wrong())?;
            if host.contains(':') && !host.ends_with(']') {
                return Err(wrong());
            }
            Ok((host.to_owned(), Some(port)))
        }
        _ => Ok((text.to_owned(), None)),
    }
}

impl Hub {
    /// The value of `Authorization` for a request that is made now.
    pub(crate) fn authorization(&self) -> String {
        match &self.credential {
            Credential::Token(token) => token.clone(),
            Credential::Key { key, policy, resource } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let expiry = since.saturating_add(TOKEN_VALID).as_secs();
                generate_token(resource, key, expiry, policy.as_deref())
            }
        }
    }

    /// The same hub, spoken to as one of its devices.
    pub(crate) fn as_device(&self, device: &str, key: &str) -> Result<Hub, CliError> {
        let key = SasKey::from_base64(key).map_err(|error| CliError::Failed(error.to_string()))?;
        let resource = format!("{}/devices/{device}", self.name);
        Ok(Hub { credential: Credential::Key { key, policy: None, resource }, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::sas::SasToken;

    use super::*;

    const OWNER: &str = "HostName=hub;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0";

    fn folder() -> (tempfile::TempDir, ContextArgs) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["hub".to_owned()]).unwrap();
        std::fs::write(folder.path().join("hub-authority.pem"), made.cert.pem()).unwrap();
        let reader = OWNER.replace("iothubowner", "registryRead");
        let json = serde_json::json!({
            "hostName": "hub", "authority": "/gone/ca.pem", "ports": {"mqtt": 8883, "https": 8444},
            "connectionStrings": {"iothubowner": OWNER, "registryRead": reader},
        });
        std::fs::write(folder.path().join("hub.json"), json.to_string()).unwrap();
        let context = ContextArgs { context: folder.path().to_owned() };
        (folder, context)
    }

    fn owner() -> HubArgs {
        HubArgs::default()
    }

    /// The folder of a node is enough, also after it was copied: the authority beside the file counts.
    #[test]
    fn a_folder_is_enough() {
        let (_folder, context) = folder();
        let hub = owner().find(&context).unwrap();
        assert_eq!((hub.name.as_str(), hub.host.as_str(), hub.port), ("hub", "hub", 8444));
        let elsewhere = HubArgs { https: Some(":9".to_owned()), ..owner() };
        assert_eq!(elsewhere.find(&context).unwrap().port, 9);
        let token = SasToken::parse(&hub.authorization()).unwrap();
        assert!(token.verify(&SasKey::from_base64("c2VjcmV0").unwrap()));
        assert_eq!((token.resource.as_str(), token.policy.as_deref()), ("hub", Some("iothubowner")));
        let device = hub.as_device("d", "a2V5").unwrap();
        let token = SasToken::parse(&device.authorization()).unwrap();
        assert!(token.verify(&SasKey::from_base64("a2V5").unwrap()));
        assert_eq!((token.resource.as_str(), token.policy), ("hub/devices/d", None));
    }

    /// Where to connect to: the port of the name, else 443, and --https before both. Tokens and devices
    /// get the name without port.
    #[test]
    fn addresses() {
        let (_folder, context) = folder();
        for (name, https, expected) in [
            ("hub", None, Some(("hub", "hub", 443))),
            ("hub:8443", None, Some(("hub", "hub", 8443))),
            ("hub", Some(":8443"), Some(("hub", "hub", 8443))),
            ("hub:1", Some("127.0.0.1:8443"), Some(("hub", "127.0.0.1", 8443))),
            ("[::1]", Some("[::1]:8443"), Some(("[::1]", "[::1]", 8443))),
            ("hub", Some("other"), None),
            ("hub", Some("::1"), None),
            ("hub", Some("other:x"), None),
        ] {
            let text = OWNER.replace("HostName=hub", &format!("HostName={name}"));
            let args = HubArgs { connection_string: Some(text), https: https.map(str::to_owned), ..owner() };
            let found = args.find(&context).ok();
            let found = found.as_ref().map(|hub| (hub.name.as_str(), hub.host.as_str(), hub.port));
            assert_eq!(found, expected, "{name} {https:?}");
        }
    }

    /// Each obstacle says what to do.
    #[test]
    fn obstacles() {
        let (folder, context) = folder();
        let error = |args: HubArgs, context: &ContextArgs| args.find(context).err().unwrap();
        let with = |text: &str| HubArgs { connection_string: Some(text.to_owned()), ..owner() };
        for (args, part, code) in [
            (
                HubArgs { policy: Some("x".to_owned()), ..with("") },
                "policies there are iothubowner, registryRead",
                1,
            ),
            (with("HostName=hub;DeviceId=d;SharedAccessKey=a2V5"), "a policy's is needed", 2),
            (with("HostName=hub;SharedAccessKeyName=x"), "no SharedAccessKey", 2),
            (with("secret"), "HostName=…", 2),
            (HubArgs { authority: Some("/gone.pem".into()), ..owner() }, "/gone.pem", 1),
            (HubArgs { authority: Some(folder.path().join("hub.json")), ..owner() }, "no certificate", 1),
        ] {
            let error = error(args, &context);
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.exit_code(), code);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        let nowhere = ContextArgs { context: empty.path().to_owned() };
        assert!(error(owner(), &nowhere).to_string().contains("fleetline serve"));
        assert!(error(with(OWNER), &nowhere).to_string().contains("--authority"));
    }
}
