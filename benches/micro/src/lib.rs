//! Micro benches of codecs, log append and apply, with tiny inputs under test.
