//! The `fleetline` binary.
fn main() {}
