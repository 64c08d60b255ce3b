//! The FunctionRpc messages, as `proto/worker.proto` draws them.
//!
//! Used by `convert` and by the host's end of the stream (`broker/workers`). [`DESCRIPTOR`] is what
//! the launchers of other languages make their message classes of.

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/azure_functions_rpc_messages.rs"));

/// The `FileDescriptorSet` of the protocol, with what it imports.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/worker.descriptor"));

/// The source of the protocol, for a library that reads that.
pub const PROTO: &str = include_str!("../proto/worker.proto");

/// The method that a worker calls.
pub const EVENT_STREAM: &str = "/AzureFunctionsRpcMessages.FunctionRpc/EventStream";

pub use streaming_message::Content;

impl From<Content> for StreamingMessage {
    fn from(content: Content) -> Self {
        Self { request_id: String::new(), content: Some(content) }
    }
}
