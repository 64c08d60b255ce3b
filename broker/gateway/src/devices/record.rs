//! What the hub adds to each record of a device.

use fleetline_iothub::bag::SystemProperty;

/// How a device proved itself, as its records keep it: short, because every record has it. Who
/// shows records to readers spells it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// A token of its own key.
    Sas,
    /// A token of a policy.
    Policy,
    /// A certificate.
    Certificate,
}

impl AuthMethod {
    /// The stored form.
    pub fn code(self) -> &'static [u8] {
        match self {
            AuthMethod::Sas => b"s",
            AuthMethod::Policy => b"p",
            AuthMethod::Certificate => b"x",
        }
    }
}

/// The stamps of a connection's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The identity's generation.
    pub generation: String,
    /// How it proved itself.
    pub method: AuthMethod,
    /// Its module, or empty.
    pub module: String,
}

impl Stamps {
    /// The most that [`Stamps::write`] adds.
    pub const COUNT_MAX: usize = 3;

    /// The system properties of a record, in stored form.
    pub fn properties(&self) -> ([(u8, &[u8]); Stamps::COUNT_MAX], usize) {
        let stamps = [
            (SystemProperty::ConnectionGenerationId.number(), self.generation.as_bytes()),
            (SystemProperty::ConnectionAuthMethod.number(), self.method.code()),
            (SystemProperty::ConnectionModuleId.number(), self.module.as_bytes()),
        ];
        (stamps, if self.module.is_empty() { 2 } else { 3 })
    }
}
