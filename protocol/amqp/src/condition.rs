//! Names of error conditions: of the standard (2.8.15 to 2.8.18), and those of the public hubs that
//! their SDKs map to errors of their own.

/// A failure inside; worth another try.
pub const INTERNAL_ERROR: &str = "amqp:internal-error";
/// No such node.
pub const NOT_FOUND: &str = "amqp:not-found";
/// Not proved, or not enough rights.
pub const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
/// Bytes can't be decoded.
pub const DECODE_ERROR: &str = "amqp:decode-error";
/// A bound is reached.
pub const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
/// Not allowed here.
pub const NOT_ALLOWED: &str = "amqp:not-allowed";
/// A field has a value that it can't have.
pub const INVALID_FIELD: &str = "amqp:invalid-field";
/// Not implemented.
pub const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
/// Somebody else has it.
pub const RESOURCE_LOCKED: &str = "amqp:resource-locked";
/// A precondition isn't met.
pub const PRECONDITION_FAILED: &str = "amqp:precondition-failed";
/// The resource is gone.
pub const RESOURCE_DELETED: &str = "amqp:resource-deleted";
/// Not possible in the present state.
pub const ILLEGAL_STATE: &str = "amqp:illegal-state";
/// A frame is too small for what has to go into it.
pub const FRAME_SIZE_TOO_SMALL: &str = "amqp:frame-size-too-small";
/// An operator, or the node's end, closes the connection.
pub const CONNECTION_FORCED: &str = "amqp:connection:forced";
/// A frame can't be read, or came on a channel without a session.
pub const FRAMING_ERROR: &str = "amqp:connection:framing-error";
/// More transfers than the window allows.
pub const WINDOW_VIOLATION: &str = "amqp:session:window-violation";
/// A link lives under this handle.
pub const HANDLE_IN_USE: &str = "amqp:session:handle-in-use";
/// No link lives under this handle.
pub const UNATTACHED_HANDLE: &str = "amqp:session:unattached-handle";
/// The link moves, or is ended by the server; the client comes again.
pub const DETACH_FORCED: &str = "amqp:link:detach-forced";
/// More transfers than credit.
pub const TRANSFER_LIMIT_EXCEEDED: &str = "amqp:link:transfer-limit-exceeded";
/// A message is larger than the link takes.
pub const MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
/// The node is elsewhere; `info` says where.
pub const LINK_REDIRECT: &str = "amqp:link:redirect";
/// Another receiver has taken the node.
pub const LINK_STOLEN: &str = "amqp:link:stolen";

/// A field of the request is wrong.
pub const ARGUMENT_ERROR: &str = "com.microsoft:argument-error";
/// A field of the request is beyond its range.
pub const ARGUMENT_OUT_OF_RANGE: &str = "com.microsoft:argument-out-of-range";
/// It took too long; worth another try.
pub const TIMEOUT: &str = "com.microsoft:timeout";
/// Slow down; worth another try.
pub const SERVER_BUSY: &str = "com.microsoft:server-busy";
/// Slow down: what device SDKs look for.
pub const DEVICE_CONTAINER_THROTTLED: &str = "com.microsoft:device-container-throttled";
/// The command's lock is gone.
pub const MESSAGE_LOCK_LOST: &str = "com.microsoft:message-lock-lost";
/// The same device has connected anew elsewhere.
pub const LINK_CREATION_CONFLICT: &str = "com.microsoft:link-creation-conflict";
/// A version doesn't fit.
pub const MS_PRECONDITION_FAILED: &str = "com.microsoft:precondition-failed";
/// A quota is used up.
pub const QUOTA_EXCEEDED: &str = "com.microsoft:quota-exceeded";
