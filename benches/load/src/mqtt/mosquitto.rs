//! Mosquitto, from Debian's package: acknowledges from memory, keeps nothing, and can't replicate.
//!
//! Nobody subscribes, so a message costs it reading, matching and PUBACK: the least that a broker can do.

use super::brokers::{Brokers, Certificate, Store, Transport, Wanted, local};
use super::dial::Login;
use crate::Outcome;
use crate::install::debian;
use crate::process::{Servers, free_ports};

/// Starts it.
///
/// # Errors
/// When more than one node is wanted, or it can't be installed.
pub fn start(wanted: Wanted) -> Outcome<Brokers> {
    if wanted.nodes > 1 {
        return Err("mosquitto has no replication".into());
    }
    let binary = debian("mosquitto", "/usr/sbin/mosquitto")?;
    let mut servers = Servers::new()?;
    let addresses = local(&free_ports(1)?);
    // Otherwise it becomes another user, who can't read the key.
    let mut config = "user root\npersistence false\nallow_anonymous true\nset_tcp_nodelay true\n\
                      connection_messages false\nlog_type error\nlog_type warning\n"
        .to_owned();
    config += &format!("listener {} 127.0.0.1\n", addresses[0].port());
    let certificate = match wanted.transport {
        Transport::Plain => None,
        Transport::Tls => Some(Certificate::make(servers.root())?),
    };
    if let Some(made) = &certificate {
        config += &format!("certfile {}\nkeyfile {}\n", made.file.display(), made.key_file.display());
    }
    let file = servers.root().join("mosquitto.conf");
    std::fs::write(&file, config)?;
    servers.start(&binary, ["-c".as_ref(), file.as_os_str()])?;
    let authority_pem = certificate.map(|made| made.pem);
    Ok(Brokers { servers, addresses, login: Login::Anonymous, authority_pem, store: Store::None })
}
