//! Where the binary under test is.

use std::io;
use std::path::PathBuf;

/// The `fleetline` binary: `FLEETLINE_BIN` when set, else the one beside the running test.
///
/// # Errors
/// When there is none; the text says how to build it.
pub fn fleetline_binary() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLEETLINE_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.ancestors().find(|dir| dir.join("fleetline").is_file());
    profile.map(|dir| dir.join("fleetline")).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no fleetline binary beside the test; run `cargo build -p fleetline` first",
        )
    })
}
