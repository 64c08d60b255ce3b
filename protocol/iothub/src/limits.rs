//! Every bound of the protocol, and where it comes from.
//!
//! The documented numbers of the public hub are the defaults of the product; what a cluster really
//! enforces is configuration (`broker/config`). Bounds of the parsers in this crate are fixed.

/// Bytes of a device-to-cloud message, or of a batch of them: body, values of system properties, names
/// and values of application properties. Beyond: 413001, or the MQTT connection ends.
pub const D2C_MESSAGE_BYTES_MAX: usize = 262_144;
/// Bytes of a cloud-to-device message, counted alike. Beyond: 413001.
pub const C2D_MESSAGE_BYTES_MAX: usize = 65_536;
/// Cloud-to-device messages that wait for one device. Beyond: 403004.
pub const C2D_QUEUE_MAX: usize = 50;
/// Milliseconds that a cloud-to-device message lives unless its sender says otherwise (one hour).
pub const C2D_TTL_MS_DEFAULT: u64 = 3_600_000;
/// Milliseconds that a cloud-to-device message lives at most (two days).
pub const C2D_TTL_MS_MAX: u64 = 172_800_000;
/// Deliveries of a cloud-to-device message before it is given up, unless configured.
pub const C2D_DELIVERIES_DEFAULT: u32 = 10;
/// The highest number of deliveries that may be configured; the lowest is 1.
pub const C2D_DELIVERIES_MAX: u32 = 100;
/// Milliseconds that a delivered cloud-to-device message stays invisible until it is settled.
pub const C2D_LOCK_MS: u64 = 60_000;

/// Characters of a device or module id.
pub const ID_CHARS_MAX: usize = 128;
/// Characters of a message id or correlation id.
pub const MESSAGE_ID_CHARS_MAX: usize = 128;
/// Properties of a message, system and application together.
pub const PROPERTIES_MAX: usize = 100;
/// Characters of a device's `statusReason`.
pub const STATUS_REASON_CHARS_MAX: usize = 128;

/// Bytes of a method's payload, each way.
pub const METHOD_PAYLOAD_BYTES_MAX: usize = 131_072;
/// Seconds that a device has for its answer to a method, unless the caller says otherwise.
pub const METHOD_RESPONSE_SECS_DEFAULT: u32 = 30;
/// The shortest response time that a caller may ask for, in seconds.
pub const METHOD_RESPONSE_SECS_MIN: u32 = 5;
/// The longest response or connect time that a caller may ask for, in seconds.
pub const METHOD_RESPONSE_SECS_MAX: u32 = 300;
/// Characters of a method's name; ours, the public hub names none.
pub const METHOD_NAME_CHARS_MAX: usize = 128;

/// Bytes of a twin's desired section, counted by the rules of the twin.
pub const TWIN_DESIRED_BYTES_MAX: usize = 32_768;
/// Bytes of a twin's reported section.
pub const TWIN_REPORTED_BYTES_MAX: usize = 32_768;
/// Bytes of a twin's tags.
pub const TWIN_TAGS_BYTES_MAX: usize = 8_192;
/// Levels of objects in a twin's section.
pub const TWIN_DEPTH_MAX: usize = 10;
/// Bytes (UTF-8) of a key in a twin.
pub const TWIN_KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a string value in a twin.
pub const TWIN_STRING_BYTES_MAX: usize = 4_096;
/// The smallest integer in a twin.
pub const TWIN_INTEGER_MIN: i64 = -4_503_599_627_370_496;
/// The largest integer in a twin.
pub const TWIN_INTEGER_MAX: i64 = 4_503_599_627_370_495;

/// File uploads that a device has open at a time. Beyond: 403006.
pub const FILE_UPLOADS_MAX: usize = 10;
/// Subscriptions of an MQTT session.
pub const MQTT_SUBSCRIPTIONS_MAX: usize = 5;
/// Bytes of an MQTT packet to a device: the decoder of the .NET SDK takes less than this.
pub const MQTT_PACKET_TO_DEVICE_BYTES_BELOW: usize = 262_144;
/// Bytes of an MQTT topic name (MQTT 3.1.1 §1.5.3).
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Bytes of a request id (`$rid`) that a device chose; ours. It is echoed in every answer.
pub const RID_BYTES_MAX: usize = 256;

/// Bytes of a shared access signature token; ours. The SDKs make tokens of about 300 bytes.
pub const SAS_TOKEN_BYTES_MAX: usize = 4_096;
/// The latest expiry of a token in Unix seconds, the end of the year 9999: the public hub's date type
/// has no later moment, and the number of milliseconds still fits everywhere.
pub const SAS_EXPIRY_SECS_MAX: u64 = 253_402_300_799;
/// Bytes of a connection string; ours.
pub const CONNECTION_STRING_BYTES_MAX: usize = 4_096;
/// Bytes of an MQTT user name that is looked at; ours. The SDKs send about 200.
pub const USER_NAME_BYTES_MAX: usize = 8_192;
