//! The replicated state machine of one partition, and reads of its stream.
