//! One openraft group: type config, adapters onto storage, proposals and reads.
