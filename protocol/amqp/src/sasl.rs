//! The security layer's performatives (part 5, 5.3.3).

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::frame::{FrameType, begin_frame, finish_frame};
use crate::performative::mandatory;
use crate::value::Symbols;
use crate::write::Writer;

/// `sasl-init`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaslInit<'a> {
    /// What the client picked.
    pub mechanism: &'a str,
    /// Its first word.
    pub initial_response: Option<&'a [u8]>,
    /// The host that it wants to reach.
    pub hostname: Option<&'a str>,
}

/// What `sasl-outcome` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SaslCode {
    /// Authenticated.
    Ok = 0,
    /// Refused.
    Auth = 1,
    /// Something failed; later attempts fail too.
    Sys = 2,
    /// Something failed for good.
    SysPerm = 3,
    /// Something failed; worth another try.
    SysTemp = 4,
}

/// A performative of the security layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sasl<'a> {
    /// The server's offer.
    Mechanisms(Symbols<'a>),
    /// The client's choice.
    Init(SaslInit<'a>),
    /// The client's further word.
    Response(&'a [u8]),
    /// The server's question.
    Challenge(&'a [u8]),
    /// The end; the code as a number.
    Outcome(u8),
}

impl<'a> Sasl<'a> {
    /// Reads the body of a SASL frame.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(mut body: &'a [u8]) -> Result<Sasl<'a>, DecodeError> {
        let (code, mut fields) = Fields::read(&mut body)?;
        let sasl = match code {
            0x40 => Sasl::Mechanisms(Symbols::read(&mut fields, "sasl-server-mechanisms")?),
            0x41 => Sasl::Init(SaslInit {
                mechanism: mandatory(fields.symbol("mechanism")?, "mechanism")?,
                initial_response: fields.binary("initial-response")?,
                hostname: fields.string("hostname")?,
            }),
            0x42 => Sasl::Challenge(mandatory(fields.binary("challenge")?, "challenge")?),
            0x43 => Sasl::Response(mandatory(fields.binary("response")?, "response")?),
            0x44 => {
                let code = mandatory(fields.ubyte("code")?, "code")?;
                fields.binary("additional-data")?;
                Sasl::Outcome(code)
            }
            _ => return Err(DecodeError::UnknownDescriptor),
        };
        fields.end()?;
        if body.is_empty() { Ok(sasl) } else { Err(DecodeError::Trailing) }
    }
}

fn write(out: &mut Vec<u8>, code: u64, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = begin_frame(out, FrameType::Sasl, 0);
    Writer::new(out).described_list(code, fill);
    finish_frame(out, start);
}

/// Appends the frame of `sasl-mechanisms`.
pub fn write_mechanisms(out: &mut Vec<u8>, names: &[&str]) {
    write(out, 0x40, |w| w.symbols(names));
}

/// Appends the frame of `sasl-init`.
pub fn write_init(out: &mut Vec<u8>, init: &SaslInit<'_>) {
    write(out, 0x41, |w| {
        w.symbol(init.mechanism);
        w.opt_binary(init.initial_response);
        w.opt_string(init.hostname);
    });
}

/// Appends the frame of `sasl-outcome`.
pub fn write_outcome(out: &mut Vec<u8>, code: SaslCode) {
    write(out, 0x44, |w| w.ubyte(code as u8));
}

/// User and password of mechanism PLAIN (RFC 4616: authorisation, user, password, with zeros between).
pub fn plain(response: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(response).ok()?;
    let mut parts = text.split('\0');
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() { None } else { Some((user, password)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::read_frame;

    /// What clients of PLAIN send.
    #[test]
    fn plain_passwords() {
        assert_eq!(plain(b"\0u\0p"), Some(("u", "p")));
        assert_eq!(plain(b"z\0u\0"), Some(("u", "")));
        for bad in [&b""[..], b"\0u", b"\0\0p", b"\0u\0p\0", b"\0\xff\0p"] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }

    /// A client's choice survives the way.
    #[test]
    fn init() {
        let init = SaslInit { mechanism: "PLAIN", initial_response: Some(b"\0u\0p"), hostname: Some("h") };
        let mut out = Vec::new();
        write_init(&mut out, &init);
        assert_eq!(Sasl::read(read_frame(&out).unwrap().body), Ok(Sasl::Init(init)));
        write_outcome(&mut out, SaslCode::Auth);
        assert!(Sasl::read(&out).is_err());
    }
}
