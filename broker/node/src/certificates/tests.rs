//! Files of certificates, their changes, and renewal: what handshakes show.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;

const NODE: Role = Role::Node(NodeId(1));

fn identity() -> Identity {
    Identity { format: 1, cluster: "c0ffee".into(), node: 1, partitions: 4, peers: BTreeMap::new() }
}

/// A folder of files and the options that name them. [`Authority`] stands for an own PKI here; tests
/// of `broker/auth` have one that isn't ours.
struct Pki {
    folder: tempfile::TempDir,
    config: NodeConfig,
}

impl Pki {
    fn new() -> Pki {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { data: folder.path().join("data"), ..NodeConfig::default() };
        Pki { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn own(mut self, bundle: &TlsBundle) -> Pki {
        self.write_own(bundle);
        self.config.tls_authority = self.path("ca.pem");
        self.config.tls_certificate = self.path("own.pem");
        self.config.tls_key = self.path("own.key");
        self
    }

    fn write_own(&self, bundle: &TlsBundle) {
        self.write("ca.pem", &bundle.authority_pem);
        self.write("own.pem", &bundle.certificate_pem);
        self.write("own.key", &bundle.key_pem);
    }

    fn front(mut self, bundle: &TlsBundle) -> Pki {
        self.write("front.pem", &bundle.certificate_pem);
        self.write("front.key", &bundle.key_pem);
        self.config.front_certificate = self.path("front.pem");
        self.config.front_key = self.path("front.key");
        self
    }

    fn open(&self) -> Result<Arc<Certificates>, NodeError> {
        let hosts = ["hub.example".to_owned()];
        Certificates::open(&self.config, self.path("certs"), &identity(), &hosts)
    }

    fn refusal(&self) -> String {
        self.open().err().map(|error| error.to_string()).unwrap_or_default()
    }
}

fn bundle(cluster: &str, role: &Role) -> TlsBundle {
    Authority::create(cluster).unwrap().issue(role, &["hub.example".to_owned()]).unwrap()
}

/// What a client that trusts `authority` is shown, if it believes it.
fn shown(config: &Arc<ServerConfig>, authority: &TlsBundle) -> Option<Vec<u8>> {
    let client: Arc<ClientConfig> =
        fleetline_auth::front_client_anonymous(&authority.authority_pem, &[]).unwrap();
    let mut client = ClientConnection::new(client, ServerName::try_from("hub.example").unwrap()).unwrap();
    let mut server = ServerConnection::new(config.clone()).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().ok()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets().ok()?;
    }
    client.peer_certificates().map(|chain| chain[0].to_vec())
}

/// As `fronts` makes it.
fn front_of(certs: &Certificates) -> Arc<ServerConfig> {
    let (chain, key) = certs.front_pem();
    certs.of_front(&fleetline_gateway::tls::server_config(&chain, &key, &[]).unwrap())
}

/// Without options the cluster's authority is made; with an own PKI the folder stays empty, and a
/// cluster begins without a key.
#[test]
fn where_certificates_come_from() {
    let pki = Pki::new();
    let certs = pki.open().unwrap();
    assert!(certs.own_authority().is_none() && certs.of_new_cluster().unwrap().1.contains("PRIVATE KEY"));
    assert!(pki.path("certs/node.pem").exists());

    let own = bundle("c0ffee", &NODE);
    let pki = Pki::new().own(&own);
    let certs = pki.open().unwrap();
    assert_eq!(certs.own_authority(), Some(own.authority_pem.clone()));
    assert_eq!(certs.of_new_cluster(), Some((own.authority_pem.clone(), String::new())));
    assert!(!pki.path("certs").exists());
    assert!(shown(&front_of(&certs), &own).is_some());
}

/// Every refusal names the option; one of a wrong name says the right one.
#[test]
fn refusals_name_option_and_fix() {
    let own = bundle("c0ffee", &NODE);
    for wrong in [
        bundle("c0ffee", &Role::Node(NodeId(2))),
        bundle("other", &NODE),
        bundle("c0ffee", &Role::Admin),
        TlsBundle { key_pem: bundle("c0ffee", &NODE).key_pem, ..own.clone() },
    ] {
        let text = Pki::new().own(&wrong).refusal();
        assert!(text.contains("tls_certificate = ") && text.contains("node-1.c0ffee.fleetline"), "{text}");
    }
    let unsigned = TlsBundle { authority_pem: bundle("c0ffee", &NODE).authority_pem, ..own.clone() };
    let text = Pki::new().own(&unsigned).refusal();
    assert!(text.contains("tls_authority = ") && text.contains("refused by others"), "{text}");

    let pki = Pki::new().own(&own);
    std::fs::set_permissions(pki.path("own.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = pki.refusal();
    assert!(text.contains("tls_key: ") && text.contains("chmod 600"), "{text}");
    std::fs::remove_file(pki.path("own.key")).unwrap();
    assert!(pki.refusal().contains("tls_key: "), "{}", pki.refusal());

    let mut pki = Pki::new().own(&own);
    pki.write("crl.pem", "nothing");
    pki.config.tls_crl = pki.path("crl.pem");
    assert!(pki.refusal().contains("tls_crl = "), "{}", pki.refusal());
    let mixed = TlsBundle { key_pem: own.key_pem.clone(), ..bundle("c0ffee", &NODE) };
    let text = Pki::new().front(&mixed).refusal();
    assert!(text.contains("front_certificate, front_key: "), "{text}");
}

/// New files are shown by the configurations that are in use; half of a change, or a bad one, isn't.
#[test]
fn files_are_read_again() {
    let (own, front) = (bundle("c0ffee", &NODE), bundle("public", &NODE));
    let pki = Pki::new().own(&own).front(&front);
    let certs = pki.open().unwrap();
    let in_use = front_of(&certs);
    let native = certs.live().front_server(&[], fleetline_auth::ClientAuth::Optional).unwrap();
    assert!(certs.has_own_front());
    let now = SystemTime::now();
    let seen =
        |authority: &TlsBundle| (shown(&in_use, authority).is_some(), shown(&native, authority).is_some());
    assert_eq!((seen(&front), seen(&own)), ((true, false), (false, true)));
    assert!(!certs.reload(now).unwrap(), "nothing has changed");

    let (next_own, next_front) = (bundle("c0ffee", &NODE), bundle("public", &NODE));
    pki.write("front.pem", &next_front.certificate_pem);
    certs.reload(now).unwrap_err();
    assert_eq!((seen(&front), seen(&next_front)), ((true, false), (false, false)));
    pki.write("front.key", &next_front.key_pem);
    pki.write_own(&bundle("other", &NODE));
    certs.reload(now).unwrap_err();
    assert_eq!((seen(&front), seen(&own)), ((true, false), (false, true)), "all or nothing");
    pki.write_own(&next_own);
    assert!(certs.reload(now).unwrap());
    assert_eq!((seen(&next_front), seen(&next_own)), ((true, false), (false, true)));
    assert_eq!((seen(&front), seen(&own)), ((false, false), (false, false)));
}

/// The cluster's own certificates are renewed at two thirds of their life, for the same hosts, in the
/// folder and in use; those of an own PKI are not ours to renew.
#[test]
fn renewal() {
    let pki = Pki::new();
    let certs = pki.open().unwrap();
    let (authority_pem, key_pem) = certs.of_new_cluster().unwrap();
    let authority = Authority::from_pem(&authority_pem, &key_pem).unwrap();
    let in_use = front_of(&certs);
    let trusted = certs.texts.lock().bundle.clone();
    let before = shown(&in_use, &trusted).unwrap();
    let now = SystemTime::now();
    let due = now + fleetline_auth::LIFETIME_LEAF * 7 / 10;
    assert!(!certs.renew(&authority, now).unwrap());
    assert_eq!(shown(&in_use, &trusted), Some(before.clone()));
    certs.renew(&Authority::create("c0ffee").unwrap(), due).unwrap_err();
    assert!(certs.renew(&authority, due).unwrap());
    assert_ne!(shown(&in_use, &trusted), Some(before));
    let stored = DataCerts::load(&pki.path("certs"), "c0ffee", NodeId(1)).unwrap().unwrap().bundle;
    assert!(stored == certs.texts.lock().bundle && stored != trusted);
    let hosts = |bundle: &TlsBundle| hosts_of(&bundle.certificate_pem).unwrap();
    assert_eq!(hosts(&stored), hosts(&trusted));
    assert!(!certs.reload(due).unwrap(), "what was renewed is what is there");

    let certs = Pki::new().own(&bundle("c0ffee", &NODE)).open().unwrap();
    assert!(!certs.renew(&authority, due).unwrap());
}

/// A look renews with the key of the control state, and warns once of what goes on being wrong.
#[test]
fn a_look_renews_and_complains_once() {
    let pki = Pki::new();
    let certs = pki.open().unwrap();
    let (authority_pem, authority_key_pem) = certs.of_new_cluster().unwrap();
    let settings = Settings { authority_pem, authority_key_pem, ..Settings::default() };
    let former = certs.texts.lock().bundle.clone();
    let late = SystemTime::now() + fleetline_auth::LIFETIME_LEAF * 19 / 20;
    certs.tend(&Settings::default(), late);
    assert!(certs.complaint.lock().contains("ends soon"));
    certs.tend(&settings, SystemTime::now());
    assert!(certs.complaint.lock().is_empty() && certs.texts.lock().bundle == former);
    certs.tend(&settings, late);
    assert!(certs.texts.lock().bundle != former);
}
