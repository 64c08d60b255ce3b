//! Twin documents: limits, merge, metadata, size, and conditions over them.
//!
//! A twin has three documents: tags (the service writes and reads them), desired (the service
//! writes, the device reads) and reported (the device writes, the service reads). The front ends
//! call [`parse_patch`] before they propose anything; `broker/devices` calls [`Section::merge`] and
//! its neighbours inside `apply`; whoever lists devices calls [`query::parse`].
//!
//! Invariants:
//! 1. Everything is a function of its arguments: no clock, no randomness, no input or output. The
//!    time of a change comes in with the command, so every replica computes the same bytes.
//! 2. A refused change leaves the document as it was.
//! 3. Nothing recurses deeper than input was checked to be: text is bounded by
//!    [`TEXT_DEPTH_MAX`] before it is parsed, queries by [`query::NESTING_MAX`].
//!
//! Not here: etags, identities, who may change what, sending changes to devices, and the state rows.
#![deny(missing_docs)]

mod error;
mod limits;
mod merge;
mod metadata;
mod parse;
pub mod query;
mod section;
mod tags;
#[cfg(test)]
mod testing;
mod time;

pub use error::TwinError;
pub use limits::{DocumentLimits, INTEGER_MAX, INTEGER_MIN, counted_size};
pub use metadata::Metadata;
pub use parse::{TEXT_DEPTH_MAX, check_patch, parse_object, parse_patch};
pub use section::{SECTION_BYTES_MAX, Section};
pub use tags::{merge_tags, replace_tags};
pub use time::format_time;
