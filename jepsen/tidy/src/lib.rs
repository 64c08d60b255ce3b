//! Checks of the source itself, run as a test.
