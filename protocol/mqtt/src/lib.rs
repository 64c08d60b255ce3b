//! MQTT 3.1.1 and 5: packets to and from bytes.
#![deny(missing_docs)]
