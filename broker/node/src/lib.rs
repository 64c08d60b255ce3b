//! Roles, start order, shutdown; the one crate that sees all others.
