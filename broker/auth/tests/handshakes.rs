//! Real handshakes, in memory: who is let in, and who isn't.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleetline_auth::{
    AuthError, Authority, CertificateRequest, ClientAuth, Identity, LIFETIME_LEAF, Role, TlsBundle,
    fingerprint_of, front_client, front_client_anonymous, identity_of, join_client, node_name,
};
use fleetline_types::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

const NODE: Role = Role::Node(NodeId(1));

fn authority(cluster: &str) -> Authority {
    Authority::create(cluster).unwrap()
}

fn issue(authority: &Authority, role: Role) -> TlsBundle {
    authority.issue(&role, &["hub.example".into(), "10.1.2.3".into()]).unwrap()
}

/// Runs a handshake and gives the client's certificate as the server saw it.
fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<Option<Identity>, Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from(name.to_owned()).unwrap())?;
    let mut server = ServerConnection::new(server)?;
    // A handshake is three flights; a few rounds more carry what follows it.
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(server.peer_certificates().map(|chain| identity_of(&chain[0]).unwrap()))
}

/// A handshake as between peers.
fn shake_as(client: &TlsBundle, server: &TlsBundle, name: &str) -> Result<Option<Identity>, Error> {
    shake(client.peer_client().unwrap(), server.peer_server().unwrap(), name)
}

/// Peers of one cluster meet by node name; clients verify a node by all its addresses.
#[test]
fn the_right_ones_are_let_in() {
    let authority = authority("plant");
    let (one, two) = (issue(&authority, NODE), issue(&authority, Role::Node(NodeId(2))));
    let met = shake_as(&two, &one, &node_name(NodeId(1), "plant")).unwrap();
    assert_eq!(met, Some(Identity { cluster: "plant".into(), role: Role::Node(NodeId(2)) }));
    for name in ["localhost", "127.0.0.1", "hub.example", "10.1.2.3"] {
        shake_as(&two, &one, name).unwrap();
    }
    let front = one.front_server(&[b"h3"], ClientAuth::Optional).unwrap();
    for role in [Role::Admin, Role::Client("line-4".into())] {
        let client = authority.issue_client(&role).unwrap();
        let met = shake(front_client(&client, &[b"h3"]).unwrap(), front.clone(), "localhost").unwrap();
        assert_eq!(met.unwrap().role, role);
    }
    let anonymous = front_client_anonymous(authority.certificate_pem(), &[b"h3"]).unwrap();
    assert_eq!(shake(anonymous.clone(), front, "localhost").unwrap(), None);
    let none = one.front_server(&[], ClientAuth::None).unwrap();
    assert_eq!(shake(anonymous.clone(), none, "localhost").unwrap(), None);
    shake(anonymous, one.peer_server().unwrap(), "localhost").unwrap_err();
}

/// A foreign authority with the same cluster and the same names convinces neither side.
#[test]
fn foreign_authority_is_refused() {
    let (ours, foreign) = (authority("plant"), authority("plant"));
    let name = node_name(NodeId(1), "plant");
    let (our_node, their_node) = (issue(&ours, NODE), issue(&foreign, NODE));
    shake_as(&our_node, &their_node, &name).unwrap_err();
    shake_as(&their_node, &our_node, &name).unwrap_err();
    // Trusting us, but showing their certificate.
    let impostor = TlsBundle { authority_pem: our_node.authority_pem.clone(), ..their_node };
    shake_as(&impostor, &our_node, &name).unwrap_err();
    shake_as(&our_node, &impostor, &name).unwrap_err();
    let optional = our_node.front_server(&[], ClientAuth::Optional).unwrap();
    shake(impostor.peer_client().unwrap(), optional, "localhost").unwrap_err();
}

/// Certificates out of their time are refused, before it as well as after it.
#[test]
fn expired_and_early_are_refused() {
    let authority = authority("plant");
    let node = issue(&authority, NODE);
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    for (made, good) in [(now - LIFETIME_LEAF - day, false), (now + day, false), (now - day, true)] {
        let request = CertificateRequest::generate().unwrap();
        let certificate_pem =
            authority.sign_csr_at(&request.csr_pem, &Role::Node(NodeId(2)), &[], made).unwrap();
        let other = TlsBundle { certificate_pem, key_pem: request.key_pem, ..node.clone() };
        let asked = shake_as(&other, &node, &node_name(NodeId(1), "plant"));
        let answered = shake_as(&node, &other, &node_name(NodeId(2), "plant"));
        assert_eq!((asked.is_ok(), answered.is_ok()), (good, good));
    }
}

/// Nobody passes for another: names don't match, clients can't serve, roles show.
#[test]
fn roles_are_not_confused() {
    let authority = authority("plant");
    let node = issue(&authority, NODE);
    let name = node_name(NodeId(1), "plant");
    shake_as(&node, &issue(&authority, Role::Node(NodeId(2))), &name).unwrap_err();
    shake_as(&node, &issue(&self::authority("other"), NODE), &name).unwrap_err();
    for role in [Role::Admin, Role::Client("node-1".into())] {
        let client = authority.issue_client(&role).unwrap();
        let own_name = client.identity().unwrap().name();
        shake_as(&node, &client, &own_name).unwrap_err();
        let met = shake_as(&client, &node, &name).unwrap().unwrap();
        assert_eq!(met.role, role, "the peer port sees that it is no node");
    }
    assert!(matches!(authority.issue_client(&NODE), Err(AuthError::WrongRole { .. })));
    for bad in ["", "a.b", "A", "x.plant.fleetline", "-"] {
        assert!(authority.issue_client(&Role::Client(bad.into())).is_err(), "{bad}");
    }
}

fn public_key_of(pem: &str) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    certificate.public_key().subject_public_key.data.to_vec()
}

/// A request decides nothing but the key: names in it are ignored, and hosts can't be identities.
#[test]
fn requests_are_not_believed() {
    let authority = authority("plant");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["admin.plant.fleetline".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::NoCa;
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let role = Role::Client("line-4".into());
    let signed = authority.sign_csr(&csr, &role, &[]).unwrap();
    let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
    assert_eq!(identity_of(&der).unwrap().role, role);
    for host in ["admin.plant.fleetline", "ADMIN.PLANT.FLEETLINE", "admin.plant.fleetline.", "a b", "", "*.x"]
    {
        assert!(authority.sign_csr(&csr, &NODE, &[host.to_owned()]).is_err(), "{host}");
    }
    // A damaged request is refused, or the damage is to a bit that means nothing (there are a few in
    // the wrapping of the signature): no key is ever certified but the one that signed.
    let body = csr.find('\n').unwrap() + 1..csr.rfind("\n-----END").unwrap();
    let (mut refused, mut signed) = (0, 0);
    for at in body.filter(|at| !csr[*at..].starts_with(['\r', '\n', '='])) {
        let mut damaged = csr.clone().into_bytes();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        match authority.sign_csr(&String::from_utf8(damaged).unwrap(), &role, &[]) {
            Ok(certificate) => {
                assert_eq!(public_key_of(&certificate), key.public_key_raw(), "changed at {at}");
                signed += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20 * signed, "{refused} refused, {signed} signed");
    assert!(authority.sign_csr("", &role, &[]).is_err());
}

/// Certificates that our authority never makes are nobody's, whoever signed them.
#[test]
fn ambiguous_certificates_are_nobody() {
    let make = |names: &[&str], server: bool, client: bool| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        if server {
            params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        }
        if client {
            params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        identity_of(params.self_signed(&key).unwrap().der())
    };
    let (node, admin) = ("node-1.plant.fleetline", "admin.plant.fleetline");
    assert!(make(&[node, "localhost"], true, true).is_ok());
    assert!(make(&[admin], false, true).is_ok());
    assert!(matches!(make(&[node, admin], true, true), Err(AuthError::NotOneName(2))));
    assert!(matches!(make(&[node, "ADMIN.PLANT.FLEETLINE"], true, true), Err(AuthError::NotOneName(2))));
    assert!(matches!(make(&["localhost"], true, true), Err(AuthError::NotOneName(0))));
    assert!(matches!(make(&["root.plant.fleetline"], true, true), Err(AuthError::UnknownName(_))));
    assert!(matches!(make(&[node], false, true), Err(AuthError::WrongUsage(_))));
    assert!(matches!(make(&[node], true, false), Err(AuthError::WrongUsage(_))));
    assert!(matches!(make(&[admin], true, true), Err(AuthError::WrongUsage(_))));
}

/// An authority comes back from its files and goes on signing; mixed or other files are refused.
#[test]
fn authority_from_files() {
    let (made, other) = (authority("plant"), authority("plant"));
    let back = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
    assert_eq!(back.cluster(), "plant");
    let (old, new) = (issue(&made, NODE), issue(&back, Role::Node(NodeId(2))));
    shake_as(&old, &new, &node_name(NodeId(2), "plant")).unwrap();
    let mixed = Authority::from_pem(made.certificate_pem(), &other.key_pem());
    assert!(matches!(mixed, Err(AuthError::KeyMismatch("authority"))));
    let leaf = Authority::from_pem(&old.certificate_pem, &old.key_pem);
    assert!(matches!(leaf, Err(AuthError::NotAnAuthority)));
    assert!(Authority::from_pem("", "").is_err());
    assert!(matches!(Authority::create("Not A Label"), Err(AuthError::BadName(_))));
    let held = TlsBundle { key_pem: other.key_pem(), ..old };
    assert!(matches!(held.check("plant", &NODE), Err(AuthError::KeyMismatch("own"))));
    assert!(!format!("{held:?} {made:?}").contains("PRIVATE"));
}

/// A joining node takes any node of the authority in its token, by any address, and nobody else.
#[test]
fn joining_by_fingerprint() {
    let (ours, foreign) = (authority("plant"), authority("plant"));
    let join = join_client(fingerprint_of(ours.certificate_pem()).unwrap(), &[b"join"]).unwrap();
    let serve = |bundle: &TlsBundle| bundle.front_server(&[b"join"], ClientAuth::Optional).unwrap();
    let node = issue(&ours, NODE);
    assert_eq!(shake(join.clone(), serve(&node), "192.0.2.7").unwrap(), None);
    shake(join.clone(), serve(&issue(&foreign, NODE)), "192.0.2.7").unwrap_err();
    // A foreign node that shows our authority's certificate, which is public.
    let impostor = TlsBundle { authority_pem: node.authority_pem.clone(), ..issue(&foreign, NODE) };
    shake(join.clone(), serve(&impostor), "192.0.2.7").unwrap_err();
    // One of us, but no node.
    shake(join.clone(), serve(&ours.issue_client(&Role::Admin).unwrap()), "192.0.2.7").unwrap_err();
    // A node that is out of its time.
    let request = CertificateRequest::generate().unwrap();
    let long_ago = SystemTime::now() - 2 * LIFETIME_LEAF;
    let certificate_pem = ours.sign_csr_at(&request.csr_pem, &NODE, &[], long_ago).unwrap();
    let expired = TlsBundle { certificate_pem, key_pem: request.key_pem, ..node };
    shake(join, serve(&expired), "192.0.2.7").unwrap_err();
}
