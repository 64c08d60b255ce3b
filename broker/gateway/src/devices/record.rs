//! What the hub adds to each record of a device.

use fleetline_iothub::bag::SystemProperty;

/// The stamps of a connection's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The identity's generation.
    pub generation: String,
    /// How it proved itself, as `fleetline_devices::Proof::method` says.
    pub method: &'static str,
    /// Its module, or empty.
    pub module: String,
    /// The model that it announced, or empty.
    pub model: String,
}

impl Stamps {
    /// The most that [`Stamps::properties`] gives.
    pub const COUNT_MAX: usize = 4;

    /// The system properties of a record, in stored form, and how many of them count.
    pub fn properties(&self) -> ([(u8, &[u8]); Stamps::COUNT_MAX], usize) {
        let mut stamps = [
            (SystemProperty::ConnectionGenerationId.number(), self.generation.as_bytes()),
            (SystemProperty::ConnectionAuthMethod.number(), self.method.as_bytes()),
            (0, &[][..]),
            (0, &[][..]),
        ];
        let mut count = 2;
        let optional =
            [(SystemProperty::ConnectionModuleId, &self.module), (SystemProperty::ModelId, &self.model)];
        for (property, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            stamps[count] = (property.number(), value.as_bytes());
            count += 1;
        }
        (stamps, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What isn't there isn't written.
    #[test]
    fn optional_stamps() {
        let ids = |module: &str, model: &str| {
            let stamps =
                Stamps { generation: "g".into(), method: "s", module: module.into(), model: model.into() };
            let (rows, count) = stamps.properties();
            rows[..count].iter().map(|(id, _)| *id).collect::<Vec<u8>>()
        };
        assert_eq!(ids("", "").len(), 2);
        assert_eq!(ids("m", "").last(), Some(&SystemProperty::ConnectionModuleId.number()));
        assert_eq!(ids("", "dtmi:a;1").last(), Some(&SystemProperty::ModelId.number()));
        assert_eq!(ids("m", "dtmi:a;1").len(), 4);
    }
}
