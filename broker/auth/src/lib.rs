//! Certificates and join tokens: the cluster's own authority, and TLS set-up from it.
