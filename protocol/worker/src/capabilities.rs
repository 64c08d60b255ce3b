//! What a worker can do, and so which form it gets values in (§6.4).

use std::collections::BTreeMap;

/// The capabilities that change what a host sends. One counts when its value is not empty (§6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `TypedDataCollection`: batches come as collections, not as one JSON array.
    pub collections: bool,
    /// `RpcHttpBodyOnly`: a request's body is in `body` alone, as it came.
    pub body_only: bool,
    /// `RawHttpBodyBytes`: a request's body comes as bytes.
    pub body_bytes: bool,
    /// `UseNullableValueDictionaryForHttp`: headers, query and parameters are in the nullable maps.
    pub nullable_maps: bool,
    /// `IgnoreEmptyValuedRpcHttpHeaders`: headers without a value are left out.
    pub no_empty_headers: bool,
    /// `RpcHttpTriggerMetadataRemoved`: an HTTP trigger has no metadata.
    pub no_http_metadata: bool,
    /// `HandlesWorkerTerminateMessage`: ends by itself when told so.
    pub terminates: bool,
    /// `HandlesInvocationCancelMessage`: can be told to stop an invocation.
    pub cancels: bool,
    /// `WorkerStatus`: answers a status request.
    pub status: bool,
    /// `HttpUri`: wants HTTP requests past the stream, over HTTP of its own. Not offered by us, so an
    /// app that insists on it is refused with a reason.
    pub http_uri: bool,
}

impl Capabilities {
    /// Reads the map of a `WorkerInitResponse`.
    #[must_use]
    pub fn read(map: &BTreeMap<String, String>) -> Self {
        let has = |name: &str| map.get(name).is_some_and(|value| !value.is_empty());
        Self {
            collections: has("TypedDataCollection"),
            body_only: has("RpcHttpBodyOnly"),
            body_bytes: has("RawHttpBodyBytes"),
            nullable_maps: has("UseNullableValueDictionaryForHttp"),
            no_empty_headers: has("IgnoreEmptyValuedRpcHttpHeaders"),
            no_http_metadata: has("RpcHttpTriggerMetadataRemoved"),
            terminates: has("HandlesWorkerTerminateMessage"),
            cancels: has("HandlesInvocationCancelMessage"),
            status: has("WorkerStatus"),
            http_uri: has("HttpUri"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §6.4: "A capability counts when its value is non-empty."
    #[test]
    fn an_empty_value_is_no_capability() {
        let pairs = [("TypedDataCollection", ""), ("RawHttpBodyBytes", "true"), ("Unheard", "1")];
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let expected = Capabilities { body_bytes: true, ..Capabilities::default() };
        assert_eq!(Capabilities::read(&map), expected);
    }
}
