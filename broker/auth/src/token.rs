//! Join tokens: everything a new node needs to find the cluster, trust it and be let in.
//!
//! One line to copy: `flt1.` and base64url of
//!
//! ```text
//!  0             32        40           72
//!  | fingerprint | id u64  | secret     | count u8 | len u16, address | ... | checksum |
//!  | 32 bytes    | big-end.| 32 bytes   |          | big-endian       |     | 4 bytes  |
//! ```
//!
//! The checksum is the front of the SHA-256 of all before it; it finds slips of copying, not forgers.
//! The cluster keeps only id and [`SecretHash`]. The secret has 256 random bits, so a plain hash of
//! it can't be searched.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::authority::certificate_of_pem;
use crate::{AuthError, TokenError};

const PREFIX: &str = "flt1.";
const ADDRESSES_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 261;
/// Longer than any token with the most and longest addresses.
const TEXT_MAX: usize = 6144;
const CHECKSUM_BYTES: usize = 4;

/// SHA-256 of a certificate's DER bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What the cluster keeps of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

/// A one-line invitation to join a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `host:port` of nodes to ask, 1 to 16.
    pub addresses: Vec<String>,
    /// Of the cluster's authority.
    pub authority_fingerprint: Fingerprint,
    /// By which the cluster finds what it keeps of this token.
    pub id: u64,
    /// Proves that the bearer was invited.
    pub secret: [u8; 32],
}

impl JoinToken {
    /// A token with a new id and secret.
    ///
    /// # Errors
    /// When the addresses are none, too many or too long, or the random source fails.
    pub fn generate(
        addresses: Vec<String>,
        authority_fingerprint: Fingerprint,
    ) -> Result<JoinToken, AuthError> {
        check_addresses(&addresses)
            .map_err(|error| AuthError::Malformed { what: "join token", reason: error.to_string() })?;
        let (mut id, mut secret) = ([0u8; 8], [0u8; 32]);
        let random = SystemRandom::new();
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut secret))
            .map_err(|_| AuthError::Make("no random numbers".into()))?;
        Ok(JoinToken { addresses, authority_fingerprint, id: u64::from_be_bytes(id), secret })
    }

    /// What the cluster keeps.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(self.id, &self.secret)
    }

    /// The line to copy. It holds the secret.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.authority_fingerprint.0);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.push(self.addresses.len().min(ADDRESSES_MAX) as u8);
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            bytes.extend_from_slice(&(address.len() as u16).to_be_bytes());
            bytes.extend_from_slice(address.as_bytes());
        }
        let checksum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(&checksum.as_ref()[..CHECKSUM_BYTES]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a line that [`JoinToken::to_text`] made; blanks around it don't matter.
    ///
    /// # Errors
    /// Says what is wrong, without quoting the token.
    pub fn parse(text: &str) -> Result<JoinToken, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Encoding)?;
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Checksum)?;
        if digest(&SHA256, content).as_ref()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(TokenError::Checksum);
        }
        Self::parse_content(content).ok_or(TokenError::Layout("it ends early or late")).and_then(|token| {
            check_addresses(&token.addresses)?;
            Ok(token)
        })
    }

    fn parse_content(bytes: &[u8]) -> Option<JoinToken> {
        let (fingerprint, bytes) = bytes.split_first_chunk::<32>()?;
        let (id, bytes) = bytes.split_first_chunk::<8>()?;
        let (secret, bytes) = bytes.split_first_chunk::<32>()?;
        let (count, mut bytes) = bytes.split_first()?;
        let mut addresses = Vec::new();
        for _ in 0..*count {
            let (len, rest) = bytes.split_first_chunk::<2>()?;
            let (address, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            addresses.push(String::from_utf8(address.to_vec()).ok()?);
            bytes = rest;
        }
        bytes.is_empty().then(|| JoinToken {
            addresses,
            authority_fingerprint: Fingerprint(*fingerprint),
            id: u64::from_be_bytes(*id),
            secret: *secret,
        })
    }
}

impl fmt::Debug for JoinToken {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl SecretHash {
    /// The hash of a token's secret; the id is part of it, so that a secret is good for its own
    /// token only.
    pub fn of(id: u64, secret: &[u8]) -> SecretHash {
        let mut context = ring::digest::Context::new(&SHA256);
        context.update(b"fleetline join token secret 1\0");
        context.update(&id.to_be_bytes());
        context.update(secret);
        let mut hash = [0u8; 32];
        hash.copy_from_slice(context.finish().as_ref());
        SecretHash(hash)
    }

    /// Whether `secret` is the one that this hash was made of. The time it takes says nothing about
    /// where they differ: both are compared as tags of a fresh random key.
    pub fn matches(&self, id: u64, secret: &[u8]) -> bool {
        let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else {
            return false;
        };
        let expected = hmac::sign(&key, &self.0);
        hmac::verify(&key, &SecretHash::of(id, secret).0, expected.as_ref()).is_ok()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of_der(der: &[u8]) -> Fingerprint {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Fingerprint(bytes)
    }
}

/// The fingerprint of the first certificate in a PEM text.
///
/// # Errors
/// When it has none.
pub fn fingerprint_of(certificate_pem: &str) -> Result<Fingerprint, AuthError> {
    Ok(Fingerprint::of_der(certificate_of_pem(certificate_pem)?.as_ref()))
}

fn check_addresses(addresses: &[String]) -> Result<(), TokenError> {
    if addresses.is_empty() {
        return Err(TokenError::Addresses("there is none"));
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(TokenError::Addresses("there are more than 16"));
    }
    let fits = |address: &String| {
        (1..=ADDRESS_BYTES_MAX).contains(&address.len())
            && address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if addresses.iter().all(fits) { Ok(()) } else { Err(TokenError::Addresses("one is no host:port")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        let addresses = vec!["10.0.0.5:7000".to_owned(), "[2001:db8::1]:7000".to_owned()];
        JoinToken::generate(addresses, Fingerprint([9; 32])).unwrap()
    }

    /// A token comes back whole, also with blanks around it; debug output holds no secret.
    #[test]
    fn round_trip() {
        let token = token();
        let text = token.to_text();
        assert_eq!(JoinToken::parse(&format!("  {text}\n")).unwrap(), token);
        assert!(!format!("{token:?}").contains(&format!("{:?}", token.secret)));
        assert_ne!(token, self::token(), "two tokens have different secrets");
    }

    /// Any changed, lost or added character is noticed.
    #[test]
    fn tampering_is_noticed() {
        let text = token().to_text();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(JoinToken::parse(&String::from_utf8(changed).unwrap()).is_err(), "changed at {at}");
            assert!(JoinToken::parse(&text[..at]).is_err(), "cut at {at}");
        }
        assert!(JoinToken::parse(&format!("{text}AA")).is_err());
    }

    /// Each way of being no token has its own message.
    #[test]
    fn errors_say_what_is_wrong() {
        let sealed = |content: &[u8]| {
            let mut bytes = content.to_vec();
            bytes.extend_from_slice(&digest(&SHA256, content).as_ref()[..4]);
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
        };
        let mut none = vec![0; 72];
        none.push(0);
        let mut lying = vec![0; 72];
        lying.extend_from_slice(&[1, 0xff, 0xff, b'a']);
        let table = [
            ("hello".to_owned(), TokenError::Prefix),
            ("flt1.**".to_owned(), TokenError::Encoding),
            ("flt1.".to_owned(), TokenError::Checksum),
            ("flt1.AAAAAAAA".to_owned(), TokenError::Checksum),
            ("x".repeat(TEXT_MAX + 1), TokenError::TooLong(TEXT_MAX + 1)),
            (sealed(&[1; 10]), TokenError::Layout("it ends early or late")),
            (sealed(&lying), TokenError::Layout("it ends early or late")),
            (sealed(&none), TokenError::Addresses("there is none")),
        ];
        for (text, expected) in table {
            assert_eq!(JoinToken::parse(&text), Err(expected), "{text}");
        }
        let longest = vec!["h".repeat(ADDRESS_BYTES_MAX); ADDRESSES_MAX];
        let longest = JoinToken::generate(longest, Fingerprint([0; 32])).unwrap();
        assert_eq!(JoinToken::parse(&longest.to_text()), Ok(longest));
        assert!(JoinToken::generate(vec!["a b".into()], Fingerprint([0; 32])).is_err());
    }

    /// Only the secret of the same token matches what the cluster kept.
    #[test]
    fn secrets() {
        let (token, other) = (token(), token());
        let kept = token.secret_hash();
        assert!(kept.matches(token.id, &token.secret));
        assert!(!kept.matches(token.id, &other.secret));
        assert!(!kept.matches(token.id.wrapping_add(1), &token.secret));
        assert!(!kept.matches(token.id, &token.secret[..31]));
        assert!(!kept.matches(token.id, &[]));
    }
}
