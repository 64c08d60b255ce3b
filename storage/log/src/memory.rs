//! The model of the log in memory.
