//! The table of error codes: the numbers and names that IoT Hub documents.
//!
//! The first three digits are the HTTP status. Beware of two neighbours: 412001 is a failed precondition,
//! 412002 a lost message lock.

use std::fmt;

macro_rules! error_codes {
    ($($name:ident = $number:literal;)*) => {
        /// A documented error. The discriminant is its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum ErrorCode {
            $(
                #[doc = concat!(stringify!($number), " ", stringify!($name))]
                $name = $number,
            )*
        }

        impl ErrorCode {
            /// All of them, by number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The name, as bodies and headers carry it.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                }
            }

            /// The code of a name; exact spelling.
            pub fn from_name(name: &str) -> Option<ErrorCode> {
                match name {
                    $(stringify!($name) => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }

            /// The code of a number.
            pub fn from_number(number: u32) -> Option<ErrorCode> {
                match number {
                    $($number => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    GenericBadRequest = 400_000;
    InvalidProtocolVersion = 400_001;
    InvalidOperation = 400_003;
    ArgumentInvalid = 400_004;
    ArgumentNull = 400_005;
    IotHubFormatError = 400_006;
    BlobContainerValidationError = 400_008;
    ImportWarningExistsError = 400_009;
    InvalidSchemaVersion = 400_010;
    DeviceDefinedMultipleTimes = 400_011;
    DeserializationError = 400_012;
    BulkRegistryOperationFailure = 400_013;
    DefaultStorageEndpointNotConfigured = 400_014;
    InvalidFileUploadCorrelationId = 400_015;
    ExpiredFileUploadCorrelationId = 400_016;
    InvalidStorageEndpoint = 400_017;
    InvalidMessagingEndpoint = 400_018;
    InvalidFileUploadCompletionStatus = 400_019;
    InvalidStorageEndpointOrBlob = 400_020;
    RequestCanceled = 400_021;
    EtagDoesNotMatch = 400_023;
    RequestTimedOut = 400_024;
    NullMessage = 400_026;
    ConnectionForcefullyClosedOnNewConnection = 400_027;
    InvalidDeviceScope = 400_028;
    BulkRegenerateDeviceKeyOperationFailure = 400_036;
    InvalidRouteTestInput = 400_100;
    InvalidSourceOnRoute = 400_101;
    RoutingNotEnabled = 400_102;
    InvalidContentEncodingOrType = 400_103;
    CannotRegisterModuleToModule = 400_301;
    InvalidConfigurationTargetCondition = 400_401;
    InvalidConfigurationContent = 400_402;
    CannotModifyImmutableConfigurationContent = 400_403;
    InvalidConfigurationCustomMetricsQuery = 400_404;
    InvalidPnPInterfaceDefinition = 400_501;
    InvalidPnPDesiredProperties = 400_502;
    InvalidPnPReportedProperties = 400_503;
    InvalidPnPWritableReportedProperties = 400_504;
    InvalidDigitalTwinJsonPatch = 400_505;
    InvalidDigitalTwinPayload = 400_506;
    InvalidDigitalTwinPatch = 400_507;
    InvalidDigitalTwinPatchPath = 400_508;
    GenericUnauthorized = 401_000;
    IotHubNotFound = 401_001;
    IotHubUnauthorizedAccess = 401_002;
    IotHubUnauthorized = 401_003;
    SystemModuleModifyUnauthorizedAccess = 401_100;
    GenericForbidden = 403_000;
    IotHubSuspended = 403_001;
    IotHubQuotaExceeded = 403_002;
    JobQuotaExceeded = 403_003;
    DeviceMaximumQueueDepthExceeded = 403_004;
    IotHubMaxCbsTokenExceeded = 403_005;
    DeviceMaximumActiveFileUploadLimitExceeded = 403_006;
    DeviceMaximumQueueSizeExceeded = 403_007;
    RoutingEndpointResponseForbidden = 403_008;
    InvalidMessageExpiryTime = 403_009;
    OperationNotAvailableInCurrentTier = 403_010;
    DeviceDisabled = 403_012;
    DeviceMaximumInflightMethodExceeded = 403_800;
    GenericNotFound = 404_000;
    DeviceNotFound = 404_001;
    JobNotFound = 404_002;
    ModuleNotFound = 404_010;
    IotHubFailingOver = 404_012;
    FeatureNotSupported = 404_013;
    DigitalTwinInterfaceNotFound = 404_014;
    QueryStoreClusterNotFound = 404_101;
    DeviceNotOnline = 404_103;
    DeviceConnectionClosedRemotely = 404_104;
    ConfigurationNotFound = 404_301;
    GroupNotFound = 404_302;
    DigitalTwinModelNotFound = 404_401;
    GenericMethodNotAllowed = 405_000;
    OperationNotAllowedInCurrentState = 405_102;
    ImportDevicesNotSupported = 405_103;
    BulkAddDevicesNotSupported = 405_104;
    GenericConflict = 409_000;
    DeviceAlreadyExists = 409_001;
    LinkCreationConflict = 409_002;
    CallbackSubscriptionConflict = 409_003;
    DeviceLocked = 409_102;
    DeviceJobAlreadyExists = 409_103;
    JobAlreadyExists = 409_104;
    ModuleAlreadyExistsOnDevice = 409_301;
    ConfigurationAlreadyExists = 409_401;
    ApplyConfigurationAlreadyInProgressOnDevice = 409_402;
    GenericPreconditionFailed = 412_000;
    PreconditionFailed = 412_001;
    DeviceMessageLockLost = 412_002;
    JobRunPreconditionFailed = 412_003;
    InflightMessagesInLink = 412_004;
    MessageTooLarge = 413_001;
    TooManyDevices = 413_002;
    TooManyModulesOnDevice = 413_003;
    ConfigurationCountLimitExceeded = 413_101;
    GenericUnsupportedMediaType = 415_000;
    IncompatibleDataType = 415_101;
    GenericTooManyRequests = 429_000;
    ThrottlingException = 429_001;
    ThrottleBacklogLimitExceeded = 429_002;
    ThrottlingBacklogTimeout = 429_003;
    ThrottlingMaxActiveJobCountExceeded = 429_004;
    DeviceThrottlingLimitExceeded = 429_005;
    ClientClosedRequest = 499_000;
    ServerError = 500_001;
    JobCancelled = 500_002;
    GenericTimeout = 500_008;
    GenericBadGateway = 502_000;
    GenericServiceUnavailable = 503_000;
    ServiceUnavailable = 503_001;
    PartitionNotFound = 503_003;
    ServerBusy = 503_005;
    IotHubRestoring = 503_006;
    ReceiveLinkOpensThrottled = 503_008;
    GenericGatewayTimeout = 504_000;
    GatewayTimeout = 504_101;
}

impl ErrorCode {
    /// The six-digit number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The HTTP status: the first three digits.
    pub fn http_status(self) -> u16 {
        u16::try_from(self.number() / 1_000).expect("error numbers have six digits")
    }
}

impl fmt::Display for ErrorCode {
    /// `404001 DeviceNotFound`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_leads_back_and_has_an_error_status() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
        let rising = ErrorCode::ALL.is_sorted_by(|one, next| one.number() < next.number());
        assert!(rising, "the table is sorted and has no number twice");
    }

    #[test]
    fn numbers_that_are_easily_confused() {
        for (number, name, status) in [
            (404_001, "DeviceNotFound", 404),
            (404_103, "DeviceNotOnline", 404),
            (409_001, "DeviceAlreadyExists", 409),
            (412_001, "PreconditionFailed", 412),
            (412_002, "DeviceMessageLockLost", 412),
            (504_101, "GatewayTimeout", 504),
        ] {
            let code = ErrorCode::from_number(number).unwrap();
            assert_eq!((code.name(), code.http_status()), (name, status));
        }
        assert_eq!(ErrorCode::from_name("devicenotfound"), None);
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::DeviceDisabled.to_string(), "403012 DeviceDisabled");
    }
}
