//! History checkers: stream log, ownership, checkpoints.
