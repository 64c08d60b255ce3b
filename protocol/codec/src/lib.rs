//! Bounded reader and writer, varints and checksums for every hand-written format.
