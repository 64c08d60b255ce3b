//! The IoT Hub protocol without I/O: tokens, topics, property bags, names, errors.
#![deny(missing_docs)]
