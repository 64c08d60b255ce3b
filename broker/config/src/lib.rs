//! Options of every part: loading, validation, the effective configuration.
