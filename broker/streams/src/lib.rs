//! Streams and consumer groups as replicated state: producers, offsets, owners, checkpoints.
