//! Deterministic simulation of a whole cluster from one seed.
