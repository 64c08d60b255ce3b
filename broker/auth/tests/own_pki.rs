//! Certificates of an own PKI, changes while in use, and revocation: real handshakes in memory.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleetline_auth::{
    AuthError, Authority, CertificateRequest, ClientAuth, LIFETIME_LEAF, Lifetime, LiveTls, Role, TlsBundle,
    fingerprint_of, front_client, hosts_of, join_client, node_name,
};
use fleetline_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose as Usage, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

type Issuer = CertifiedIssuer<'static, KeyPair>;

const NODE: Role = Role::Node(NodeId(1));
const BOTH: &[Usage] = &[Usage::ClientAuth, Usage::ServerAuth];

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &str) -> Result<Vec<u8>, Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from(name.to_owned()).unwrap())?;
    let mut server = ServerConnection::new(server)?;
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
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

/// An authority as a company has one: nothing in it is ours.
fn company() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// One below `above`.
fn department(above: &Issuer) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "department");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap()
}

fn issue(root: &Issuer, issuer: &Issuer, names: &[&str], usage: &[Usage], serial: u64) -> TlsBundle {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = usage.to_vec();
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    let mut certificate_pem = params.signed_by(&key, issuer).unwrap().pem();
    if issuer.pem() != root.pem() {
        certificate_pem.push_str(&issuer.pem());
    }
    TlsBundle { authority_pem: root.pem(), certificate_pem, key_pem: key.serialize_pem() }
}

fn revoke(issuer: &Issuer, serials: &[u64]) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        // Long past: the list still counts.
        next_update: date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

fn node(id: u64) -> String {
    node_name(NodeId(id), "plant")
}

/// Nodes, clients and joining work with an authority that knows nothing of us, also over an
/// intermediate one.
#[test]
fn own_authorities_work() {
    let root = company();
    let middle = department(&root);
    let one = issue(&root, &middle, &[&node(1), "hub.example"], BOTH, 1);
    let two = issue(&root, &root, &[&node(2)], BOTH, 2);
    let now = SystemTime::now();
    for (bundle, role) in [(&one, NODE), (&two, Role::Node(NodeId(2)))] {
        bundle.check("plant", &role).unwrap();
        bundle.verify(None, now).unwrap();
    }
    shake(two.peer_client().unwrap(), one.peer_server().unwrap(), &node(1)).unwrap();
    shake(one.peer_client().unwrap(), two.peer_server().unwrap(), &node(2)).unwrap();
    let admin = issue(&root, &middle, &["admin.plant.fleetline"], &[Usage::ClientAuth], 3);
    admin.verify(None, now).unwrap();
    let front = one.front_server(&[], ClientAuth::Optional).unwrap();
    shake(front_client(&admin, &[]).unwrap(), front.clone(), "hub.example").unwrap();
    let join = |pem: &str| join_client(fingerprint_of(pem).unwrap(), &[]).unwrap();
    shake(join(&root.pem()), front.clone(), "10.0.0.1").unwrap();
    shake(join(&company().pem()), front, "10.0.0.1").unwrap_err();
}

/// What doesn't fit is said at start, not by the peers' refusals.
#[test]
fn misfits_are_named() {
    let root = company();
    let now = SystemTime::now();
    let check = |names: &[&str], usage| issue(&root, &root, names, usage, 1).check("plant", &NODE);
    check(&[&node(1), "hub.example"], BOTH).unwrap();
    assert!(matches!(check(&["hub.example"], BOTH), Err(AuthError::NotOneName(0))));
    assert!(matches!(check(&[&node(1), &node(2)], BOTH), Err(AuthError::NotOneName(2))));
    assert!(matches!(check(&[&node(2)], BOTH), Err(AuthError::WrongRole { .. })));
    assert!(matches!(check(&["node-1.other.fleetline"], BOTH), Err(AuthError::WrongCluster { .. })));
    assert!(matches!(check(&[&node(1)], &[Usage::ServerAuth]), Err(AuthError::WrongUsage(_))));
    assert!(matches!(check(&[&node(1)], &[]), Err(AuthError::WrongUsage(_))));

    let good = issue(&root, &root, &[&node(1)], BOTH, 1);
    let other = issue(&root, &root, &[&node(1)], BOTH, 1);
    let mixed = TlsBundle { key_pem: other.key_pem, ..good.clone() };
    assert!(matches!(mixed.check("plant", &NODE), Err(AuthError::KeyMismatch("own"))));
    let foreign = TlsBundle { authority_pem: company().pem(), ..good.clone() };
    assert!(matches!(foreign.verify(None, now), Err(AuthError::Refused { .. })));
    let headless = issue(&root, &department(&root), &[&node(1)], BOTH, 1);
    let end = headless.certificate_pem.find("-----END").unwrap();
    let end = end + headless.certificate_pem[end..].find('\n').unwrap();
    let headless = TlsBundle { certificate_pem: headless.certificate_pem[..end].to_owned(), ..headless };
    headless.check("plant", &NODE).unwrap();
    assert!(matches!(headless.verify(None, now), Err(AuthError::Refused { .. })));
    let late = now + Duration::from_secs(4000 * 365 * 24 * 3600);
    assert!(matches!(good.verify(None, late), Err(AuthError::Refused { .. })));
}

/// Configurations in use show and trust what was set last; a change that fails changes nothing.
#[test]
fn changes_take_effect_in_place() {
    let (old, new) = (company(), company());
    let bundle = |root: &Issuer| issue(root, root, &[&node(1)], BOTH, 1);
    let (before, after) = (bundle(&old), bundle(&new));
    let live = LiveTls::new(&before, None).unwrap();
    let (server, client) = (live.peer_server().unwrap(), live.peer_client().unwrap());
    let front = live.front_server(&[], ClientAuth::Optional).unwrap();
    let met_as = |other: &TlsBundle| {
        let asked = shake(other.peer_client().unwrap(), server.clone(), &node(1)).is_ok();
        let fronted = shake(other.peer_client().unwrap(), front.clone(), &node(1)).is_ok();
        let answered = shake(client.clone(), other.peer_server().unwrap(), &node(1)).is_ok();
        (asked, fronted, answered)
    };
    assert_eq!((met_as(&before), met_as(&after)), ((true, true, true), (false, false, false)));
    live.replace(&TlsBundle { key_pem: before.key_pem.clone(), ..after.clone() }, None).unwrap_err();
    live.replace(&after, Some("no list")).unwrap_err();
    assert_eq!((met_as(&before), met_as(&after)), ((true, true, true), (false, false, false)));
    live.replace(&after, None).unwrap();
    assert_eq!((met_as(&before), met_as(&after)), ((false, false, false), (true, true, true)));
}

/// What a list revokes is refused as peer, as server and as client, and so is what no list tells of;
/// withdrawing it works without a restart.
#[test]
fn revoked_are_refused() {
    let root = company();
    let one = issue(&root, &root, &[&node(1)], BOTH, 1);
    let two = issue(&root, &root, &[&node(2)], BOTH, 2);
    let three = issue(&root, &root, &[&node(3)], BOTH, 3);
    let live = LiveTls::new(&one, Some(&revoke(&root, &[2]))).unwrap();
    let (server, client) = (live.peer_server().unwrap(), live.peer_client().unwrap());
    let front = live.front_server(&[], ClientAuth::Optional).unwrap();
    let revoked = Some(Error::InvalidCertificate(CertificateError::Revoked));
    let outcome = |other: &TlsBundle, name: &str| {
        let asked = shake(other.peer_client().unwrap(), server.clone(), &node(1)).err();
        let fronted = shake(other.peer_client().unwrap(), front.clone(), &node(1)).err();
        let answered = shake(client.clone(), other.peer_server().unwrap(), name).err();
        [asked, fronted, answered]
    };
    assert_eq!(outcome(&two, &node(2)), [revoked.clone(), revoked.clone(), revoked.clone()]);
    assert_eq!(outcome(&three, &node(3)), [None, None, None]);
    live.replace(&one, Some(&revoke(&root, &[3]))).unwrap();
    assert_eq!(outcome(&two, &node(2)), [None, None, None]);
    assert_eq!(outcome(&three, &node(3)), [revoked.clone(), revoked.clone(), revoked]);
    let stranger = department(&company());
    live.replace(&one, Some(&revoke(&stranger, &[]))).unwrap();
    let unknown = Some(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus));
    assert_eq!(outcome(&two, &node(2)), [unknown.clone(), unknown.clone(), unknown]);

    let now = SystemTime::now();
    one.verify(Some(&revoke(&root, &[2])), now).unwrap();
    for list in [revoke(&root, &[1]), revoke(&stranger, &[]), revoke(&company(), &[])] {
        assert!(matches!(one.verify(Some(&list), now), Err(AuthError::Refused { .. })));
    }
    for list in ["", "no list", &one.certificate_pem] {
        assert!(LiveTls::new(&one, Some(list)).is_err(), "a list that revokes nothing unnoticed: {list}");
    }
}

/// A certificate is due at two thirds and late at nine tenths of its life, and a renewed one names the
/// same hosts.
#[test]
fn lifetimes() {
    let authority = Authority::create("plant").unwrap();
    let request = CertificateRequest::generate().unwrap();
    let hosts = ["hub.example".to_owned(), "10.1.2.3".to_owned(), "fd00::1".to_owned()];
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let pem = authority.sign_csr_at(&request.csr_pem, &NODE, &hosts, made).unwrap();
    let lifetime = Lifetime::of(&pem).unwrap();
    let hour = 3600;
    assert_eq!(lifetime.from, 1_800_000_000 - hour, "clocks differ");
    assert_eq!(lifetime.until, 1_800_000_000 + LIFETIME_LEAF.as_secs() as i64);
    let (begin, second) = (made - Duration::from_secs(3600), Duration::from_secs(1));
    let whole = LIFETIME_LEAF + Duration::from_secs(3600);
    let (due, late) = (begin + whole * 2 / 3, begin + whole * 9 / 10);
    assert_eq!((lifetime.is_due(made), lifetime.is_late(made)), (false, false));
    assert_eq!((lifetime.is_due(due - second), lifetime.is_due(due + second)), (false, true));
    assert_eq!((lifetime.is_late(late - second), lifetime.is_late(late + second)), (false, true));
    let named = hosts_of(&pem).unwrap();
    assert_eq!(named, ["localhost", "127.0.0.1", "hub.example", "10.1.2.3", "fd00::1"]);
    let renewed = authority.issue(&NODE, &named).unwrap();
    assert_eq!(hosts_of(&renewed.certificate_pem).unwrap(), named);
}
