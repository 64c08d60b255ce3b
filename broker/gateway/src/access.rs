//! Who is calling, and what they may ask for.
//!
//! A client certificate is optional in TLS, because a node that wants to join has none yet. What a
//! certificate stands for is the [`Authorizer`]'s to say (`broker/node` wires it to `broker/auth`);
//! what each kind of caller may do is the one table here, [`required`].

use fleetline_native::Request;
use rustls::pki_types::CertificateDer;

/// What a caller may do. Each kind may do all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// No certificate, or one that says nothing: hello and join.
    Anonymous,
    /// A service: produce, read, consumer groups, metadata.
    Client,
    /// An operator (or a node): also changes of the cluster, join tokens, status of nodes.
    Admin,
}

impl Access {
    /// As it appears in messages and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Access::Anonymous => "anonymous",
            Access::Client => "client",
            Access::Admin => "admin",
        }
    }
}

/// Tells what the caller behind a connection may do.
pub trait Authorizer: Send + Sync + 'static {
    /// The access of a caller whose certificate chain TLS has verified already (end entity first),
    /// or who showed none. Called once a connection.
    fn identify(&self, certs: Option<&[CertificateDer<'_>]>) -> Access;
}

/// The least access that a call needs.
pub fn required(request: &Request) -> Access {
    match request {
        Request::Join(_) => Access::Anonymous,
        Request::Metadata
        | Request::Resolve { .. }
        | Request::PartitionInfo(_)
        | Request::GroupJoin { .. }
        | Request::GroupHeartbeat { .. }
        | Request::GroupLeave { .. }
        | Request::GroupDescribe { .. }
        | Request::GroupList(_)
        | Request::Claim { .. }
        | Request::Checkpoint { .. }
        | Request::CheckpointRead { .. } => Access::Client,
        Request::LocalPartitions | Request::Change(_) | Request::CreateJoinToken { .. } => Access::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the kinds is what "may do all that the ones before it may" rests on.
    #[test]
    fn access_is_ordered() {
        assert!(Access::Anonymous < Access::Client && Access::Client < Access::Admin);
        assert_eq!(required(&Request::LocalPartitions), Access::Admin);
        assert_eq!(required(&Request::Metadata), Access::Client);
    }
}
