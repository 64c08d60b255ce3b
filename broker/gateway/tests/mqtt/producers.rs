//! Producers of a partition: what was stored before isn't stored again. As `broker/streams` judges it
//! (`producer.rs`), without its bounds.

use std::collections::BTreeMap;

use fleetline_batch::BatchHeader;
use fleetline_gateway::hub::HubError;
use fleetline_types::ProducerId;

#[derive(Default)]
struct Known {
    epoch: u32,
    next: u64,
    /// First sequence, count, offset of each stored batch of this epoch.
    stored: Vec<(u64, u32, u64)>,
}

#[derive(Default)]
pub struct Producers(BTreeMap<ProducerId, Known>);

impl Producers {
    /// The offset at which the batch was stored before; `None` when it is the next one.
    pub fn judge(&self, header: &BatchHeader) -> Result<Option<u64>, HubError> {
        let (producer, count) = (header.producer, header.count);
        let given = producer.first_sequence;
        let expect = |expected| match given == expected {
            true => Ok(None),
            false => Err(HubError::OutOfSequence { expected, given }),
        };
        match self.0.get(&producer.id) {
            Some(known) if producer.epoch < known.epoch => Err(HubError::Fenced {
                what: "producer".into(),
                current: known.epoch.into(),
                given: producer.epoch.into(),
            }),
            Some(known) if producer.epoch == known.epoch => {
                let before = known.stored.iter().find(|(first, n, _)| *first == given && *n == count);
                before.map_or_else(|| expect(known.next), |(_, _, offset)| Ok(Some(*offset)))
            }
            _ => expect(0),
        }
    }

    pub fn stored(&mut self, header: &BatchHeader, offset: u64) {
        let known = self.0.entry(header.producer.id).or_default();
        if known.epoch != header.producer.epoch {
            *known = Known { epoch: header.producer.epoch, ..Known::default() };
        }
        known.next = header.producer.first_sequence + u64::from(header.count);
        known.stored.push((header.producer.first_sequence, header.count, offset));
    }

    pub fn forget_all(&mut self) {
        self.0.clear();
    }
}
