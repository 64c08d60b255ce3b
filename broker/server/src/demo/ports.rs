//! Ports for the demo's node: the usual ones, or the next that are free.
//!
//! A demo shall start beside whatever else runs on the machine. What is free here may be taken a moment later;
//! then the node says so.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use fleetline_cli::CliError;

/// How many ports are tried, from the usual one on.
const TRIES: u16 = 50;

/// What listens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    /// On the same port.
    Both,
}

/// Addresses that were given out, so that none is given twice.
#[derive(Debug, Default)]
pub(super) struct Ports {
    given: Vec<u16>,
}

impl Ports {
    /// The first free port of this machine's own address, from the usual one on.
    ///
    /// # Errors
    /// When none of so many is free.
    pub(super) fn find(&mut self, what: &str, kind: Kind, usual: u16) -> Result<SocketAddr, CliError> {
        let ports = usual..usual.saturating_add(TRIES);
        let free = ports.filter(|port| !self.given.contains(port)).find(|port| is_free(*port, kind));
        let port = free.ok_or_else(|| {
            CliError::Failed(format!(
                "no port for {what} is free: {usual} and the {TRIES} behind it are taken"
            ))
        })?;
        self.given.push(port);
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

/// Whether a port can be opened, on the own address and, for what others may have opened, on all.
fn is_free(port: u16, kind: Kind) -> bool {
    let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let udp = || UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    match kind {
        Kind::Tcp => tcp(),
        Kind::Udp => udp(),
        Kind::Both => tcp() && udp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that is taken, or was given out already, is passed over.
    #[test]
    fn taken_ports() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let usual = taken.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let first = ports.find("tests", Kind::Tcp, usual).unwrap().port();
        let second = ports.find("tests", Kind::Tcp, usual).unwrap().port();
        assert!(first > usual && second > first, "{usual} {first} {second}");
        let both = ports.find("tests", Kind::Both, usual).unwrap().port();
        assert!(both > second, "{both}");
    }
}
