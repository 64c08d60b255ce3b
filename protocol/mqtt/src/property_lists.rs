//! Properties that may come many times: user properties and subscription identifiers.
//!
//! Decoded, they are the property block of the packet, walked again when asked for, so that no list
//! has to be built. To encode, they are made from a slice of the caller's. Both sorts compare equal if
//! they hold the same.

use std::fmt;
use std::slice;

use crate::properties::Property;
use crate::reader::Reader;

/// The user properties of a packet or will: names and values, in order, names may repeat.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a, (&'a str, &'a str)>);

/// The subscription identifiers of a PUBLISH from a server.
#[derive(Clone, Copy)]
pub struct SubscriptionIds<'a>(Source<'a, u32>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// A property block that was walked once without an error and holds at least one of these.
    Block(&'a [u8]),
    Slice(&'a [T]),
}

impl<'a> UserProperties<'a> {
    /// Those in a property block that has been checked.
    pub(crate) fn of_block(block: &'a [u8], count: usize) -> UserProperties<'a> {
        if count == 0 { UserProperties::default() } else { UserProperties(Source::Block(block)) }
    }

    /// Name and value of each.
    pub fn iter(&self) -> UserPropertyIter<'a> {
        UserPropertyIter(SourceIter::new(&self.0))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first with this name.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

impl<'a> SubscriptionIds<'a> {
    /// Those in a property block that has been checked.
    pub(crate) fn of_block(block: &'a [u8], count: usize) -> SubscriptionIds<'a> {
        if count == 0 { SubscriptionIds::default() } else { SubscriptionIds(Source::Block(block)) }
    }

    /// Each identifier.
    pub fn iter(&self) -> SubscriptionIdIter<'a> {
        SubscriptionIdIter(SourceIter::new(&self.0))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Source<'_, T> {
    fn is_empty(&self) -> bool {
        match self {
            Source::Block(_) => false,
            Source::Slice(slice) => slice.is_empty(),
        }
    }
}

/// Walks [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertyIter<'a>(SourceIter<'a, (&'a str, &'a str)>);

/// Walks [`SubscriptionIds`].
#[derive(Clone)]
pub struct SubscriptionIdIter<'a>(SourceIter<'a, u32>);

#[derive(Clone)]
enum SourceIter<'a, T> {
    Block(Reader<'a>),
    Slice(slice::Iter<'a, T>),
}

impl<'a, T: Copy> SourceIter<'a, T> {
    fn new(source: &Source<'a, T>) -> SourceIter<'a, T> {
        match source {
            Source::Block(block) => SourceIter::Block(Reader::new(block)),
            Source::Slice(slice) => SourceIter::Slice(slice.iter()),
        }
    }

    fn next(&mut self, pick: impl Fn(Property<'a>) -> Option<T>) -> Option<T> {
        match self {
            // The block was walked before without an error: an error here is its end.
            SourceIter::Block(block) => loop {
                if let Some(found) = pick(Property::read(block).ok()?) {
                    return Some(found);
                }
            },
            SourceIter::Slice(slice) => slice.next().copied(),
        }
    }
}

impl<'a> Iterator for UserPropertyIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        self.0.next(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

impl Iterator for SubscriptionIdIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.next(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        })
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertyIter<'a>;

    fn into_iter(self) -> UserPropertyIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for SubscriptionIds<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdIter<'a>;

    fn into_iter(self) -> SubscriptionIdIter<'a> {
        self.iter()
    }
}

impl<'a> From<&'a [(&'a str, &'a str)]> for UserProperties<'a> {
    fn from(pairs: &'a [(&'a str, &'a str)]) -> UserProperties<'a> {
        UserProperties(Source::Slice(pairs))
    }
}

impl<'a> From<&'a [u32]> for SubscriptionIds<'a> {
    fn from(ids: &'a [u32]) -> SubscriptionIds<'a> {
        SubscriptionIds(Source::Slice(ids))
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        UserProperties(Source::Slice(&[]))
    }
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        SubscriptionIds(Source::Slice(&[]))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
