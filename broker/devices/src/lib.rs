//! Devices as replicated state: identities, twins, command queues, sessions, fences.
#![deny(missing_docs)]
