//! Twin documents: limits, merge, metadata, size, and conditions over them.
#![deny(missing_docs)]
