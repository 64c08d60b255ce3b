//! The native client protocol, fleetline/1: messages, frames, error codes.
