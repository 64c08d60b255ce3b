//! The devices of the batch that is being filled: each id once, in the order of first use.
//!
//! Called by the builder for every record, so it takes no memory per device once its buffers have
//! grown: ids lie in one buffer, in the form that the batch stores, and an open-addressed table of
//! places in it finds them.
//!
//! Ids are made by outsiders, who could choose them to fall into one slot. So the hash is keyed with
//! a number that nobody knows; it decides nothing but the search, the order of ids is that of use.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use fleetline_codec::Writer;

/// Slots of a table that was just made; a power of two, like all later sizes.
const SLOTS_MIN: usize = 64;

/// The device table of a batch in the making.
#[derive(Debug)]
pub(crate) struct DeviceTable {
    /// Ids behind their lengths, as the batch stores them.
    stored: Vec<u8>,
    /// Where each id lies in `stored`.
    ids: Vec<Range<u32>>,
    /// Index of a device plus one, or zero. Invariant: at most half of the slots are taken.
    slots: Vec<u32>,
    hash: RandomState,
}

/// The answer to [`DeviceTable::find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The device has this index.
    Known(u32),
    /// It isn't in the table; it would take this slot.
    Unknown(usize),
}

impl DeviceTable {
    pub(crate) fn new() -> DeviceTable {
        let slots = vec![0; SLOTS_MIN];
        DeviceTable { stored: Vec::new(), ids: Vec::new(), slots, hash: RandomState::new() }
    }

    /// How many devices there are.
    pub(crate) fn count(&self) -> u32 {
        self.ids.len() as u32
    }

    /// The table as the batch stores it, without the count.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.stored
    }

    fn id(&self, index: u32) -> &[u8] {
        let place = &self.ids[index as usize];
        &self.stored[place.start as usize..place.end as usize]
    }

    /// Whether the device at `index` is this one.
    pub(crate) fn is(&self, index: u32, id: &[u8]) -> bool {
        index < self.count() && self.id(index) == id
    }

    /// Looks for a device.
    pub(crate) fn find(&self, id: &[u8]) -> Found {
        let mask = self.slots.len() - 1;
        let mut slot = self.hash.hash_one(id) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Found::Unknown(slot),
                taken if self.id(taken - 1) == id => return Found::Known(taken - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Adds a device that [`DeviceTable::find`] gave this slot for, with no change between.
    pub(crate) fn add(&mut self, slot: usize, id: &[u8]) -> u32 {
        Writer::new(&mut self.stored).prefixed(id);
        let end = self.stored.len();
        self.ids.push((end - id.len()) as u32..end as u32);
        let index = self.count() - 1;
        self.slots[slot] = index + 1;
        if self.ids.len() * 2 > self.slots.len() {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(size, 0);
        for index in 0..self.count() {
            let mut slot = self.hash.hash_one(self.id(index)) as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = index + 1;
        }
    }

    /// Forgets all devices and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.stored.clear();
        self.ids.clear();
        self.slots.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The table finds what a plain map finds, gives indices in order of first use, and begins
        /// anew after each clear.
        #[test]
        fn like_a_map(rounds in prop::collection::vec(prop::collection::vec(0u32..400, 0..600), 1..3)) {
            let mut table = DeviceTable::new();
            for uses in rounds {
                let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
                for id in uses {
                    let id = if id == 0 { Vec::new() } else { id.to_string().into_bytes() };
                    let next = model.len() as u32;
                    let expected = *model.entry(id.clone()).or_insert(next);
                    let found = match table.find(&id) {
                        Found::Known(index) => index,
                        Found::Unknown(slot) => table.add(slot, &id),
                    };
                    prop_assert_eq!(found, expected);
                    prop_assert!(table.is(found, &id));
                }
                prop_assert_eq!(table.count() as usize, model.len());
                table.clear();
                prop_assert_eq!(table.count(), 0);
                prop_assert_eq!(table.find(b"1"), table.find(b"1"));
                prop_assert!(matches!(table.find(b"1"), Found::Unknown(_)));
            }
        }
    }
}
