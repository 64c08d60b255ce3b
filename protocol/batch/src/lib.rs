//! The record batch: one set of bytes from producer to consumer.
