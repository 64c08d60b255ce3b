//! What can be wrong with certificates, key files and tokens.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Certificates, keys or their files can't be used. No message holds key material.
#[derive(Debug, Error)]
pub enum AuthError {
    /// A cluster or client name that can't be part of a DNS name.
    #[error("name {0:?} must be 1 to 63 of a-z, 0-9 and -, and begin and end with a letter or digit")]
    BadName(String),
    /// A host name that nodes can't have.
    #[error(
        "host name {0:?} can't be put into a certificate; give a DNS name outside .fleetline, or an IP address"
    )]
    BadHost(String),
    /// The bytes are no certificate, key or signing request.
    #[error("{what} can't be read: {reason}")]
    Malformed {
        /// Which of them.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A certificate and a key that don't belong together.
    #[error("the private key doesn't belong to the {0} certificate")]
    KeyMismatch(&'static str),
    /// A certificate that is no authority's, or of an authority that isn't Fleetline's.
    #[error("certificate is not that of a cluster's authority")]
    NotAnAuthority,
    /// A certificate of the authority's cluster was expected.
    #[error("certificate names cluster {found:?}, expected {expected:?}")]
    WrongCluster {
        /// In the certificate.
        found: String,
        /// Ours.
        expected: String,
    },
    /// A certificate that names another role than it is to be used for.
    #[error("certificate names {found:?}, expected {expected:?}")]
    WrongRole {
        /// In the certificate.
        found: String,
        /// What it is to be used for.
        expected: String,
    },
    /// A certificate without exactly one Fleetline name.
    #[error("certificate has {0} fleetline names, expected 1")]
    NotOneName(usize),
    /// A Fleetline name that isn't one of a node, an administrator or a client.
    #[error("certificate has name {0:?}, which is no node, admin or client")]
    UnknownName(String),
    /// A certificate whose permitted usage doesn't fit its name.
    #[error("certificate of {0:?} is not permitted for what its role does")]
    WrongUsage(String),
    /// A certificate that others would not believe.
    #[error("certificate of {name:?} would be refused by others: {reason}")]
    Refused {
        /// Whom it names.
        name: String,
        /// What a verifier says.
        reason: String,
    },
    /// rustls refused a certificate or a key.
    #[error("tls set-up failed: {0}")]
    Tls(String),
    /// The library that makes certificates failed.
    #[error("certificate could not be made: {0}")]
    Make(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key that others can read.
    #[error("{} can be read by others (mode {mode:03o}); run chmod 600 on it", path.display())]
    KeyExposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate folder with some of its files missing.
    #[error("{} is missing; restore it, or remove its folder and join the cluster again", .0.display())]
    Incomplete(PathBuf),
}

/// A text that is no join token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It doesn't begin as one.
    #[error("join token must begin with \"flt1.\"; copy the whole line that the cluster printed")]
    Prefix,
    /// It is far too long.
    #[error("join token has {0} characters, more than any real one")]
    TooLong(usize),
    /// It has characters that a token never has.
    #[error("join token has a character that doesn't belong there, or lost some at its end")]
    Encoding,
    /// Characters were lost or changed.
    #[error("join token is damaged (its checksum differs); copy it again, whole")]
    Checksum,
    /// The checksum fits, the content doesn't: made by another version.
    #[error("join token has an unknown layout: {0}")]
    Layout(&'static str),
    /// An address in it that can't be one.
    #[error("join token can't hold these addresses: {0}")]
    Addresses(&'static str),
}
