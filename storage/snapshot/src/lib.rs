//! Snapshots: manifest, chunks, trailer hash, staging and install.
