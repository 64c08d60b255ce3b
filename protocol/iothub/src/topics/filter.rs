//! The filters that devices subscribe to. Each has one spelling; nothing is matched in general.

use super::TopicError;
use super::publish::{after_identity, other_or_unknown};
use crate::names::Identity;

/// What a filter asks for. A session stores these instead of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscription {
    /// `devices/{d}/messages/devicebound/#`: messages to a device.
    Commands,
    /// `$iothub/methods/POST/#`: method calls.
    Methods,
    /// `$iothub/twin/res/#`: answers to twin requests.
    TwinResponses,
    /// `$iothub/twin/PATCH/properties/desired/#`: changes of desired properties.
    DesiredChanges,
    /// `devices/{d}/modules/{m}/inputs/#`: inputs of a module.
    Inputs,
    /// `devices/{d}/modules/{m}/#`: inputs of a module too, as .NET and C ask for them.
    ModuleAll,
    /// `devices/{d}/modules/{m}/messages/devicebound/#`: messages to a module.
    ModuleCommands,
}

impl Subscription {
    /// All of them.
    pub const ALL: [Subscription; 7] = [
        Subscription::Commands,
        Subscription::Methods,
        Subscription::TwinResponses,
        Subscription::DesiredChanges,
        Subscription::Inputs,
        Subscription::ModuleAll,
        Subscription::ModuleCommands,
    ];

    /// What stands behind the identity, if the filter has one, or the whole filter.
    fn text(self) -> &'static str {
        match self {
            Subscription::Commands | Subscription::ModuleCommands => "messages/devicebound/#",
            Subscription::Methods => "$iothub/methods/POST/#",
            Subscription::TwinResponses => "$iothub/twin/res/#",
            Subscription::DesiredChanges => "$iothub/twin/PATCH/properties/desired/#",
            Subscription::Inputs => "inputs/#",
            Subscription::ModuleAll => "#",
        }
    }

    /// Whether a connection of this identity may hold it.
    pub fn is_for(self, identity: Identity<'_>) -> bool {
        match self {
            Subscription::Commands => identity.module.is_none(),
            Subscription::Inputs | Subscription::ModuleAll | Subscription::ModuleCommands => {
                identity.module.is_some()
            }
            Subscription::Methods | Subscription::TwinResponses | Subscription::DesiredChanges => true,
        }
    }
}

/// What the filter of a SUBSCRIBE or UNSUBSCRIBE asks for. Exact spelling, own identity only.
pub fn parse_filter(filter: &str, identity: Identity<'_>) -> Result<Subscription, TopicError> {
    let is_own = |subscription: &Subscription| subscription.is_for(identity);
    let Some(rest) = filter.strip_prefix("devices/") else {
        let mut shared = Subscription::ALL.into_iter().filter(|found| found.text().starts_with('$'));
        return shared.find(|found| found.text() == filter).ok_or(TopicError::Unknown);
    };
    let rest = after_identity(rest, identity).ok_or(TopicError::OtherIdentity)?;
    let mut own = Subscription::ALL.into_iter().filter(is_own);
    own.find(|found| found.text() == rest).ok_or_else(|| other_or_unknown(rest))
}

/// Appends the filter of `subscription` as a client of `identity` spells it. The inverse of
/// [`parse_filter`] where [`Subscription::is_for`] holds.
pub fn write_filter(out: &mut String, subscription: Subscription, identity: Identity<'_>) {
    if !subscription.text().starts_with('$') {
        super::send::identity_prefix(out, &identity);
    }
    out.push_str(subscription.text());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: Identity<'_> = Identity { device: "A", module: None };
    const MODULE: Identity<'_> = Identity { device: "A", module: Some("m") };

    #[test]
    fn every_filter_of_the_sdks() {
        for (filter, of_device, of_module) in [
            ("devices/A/messages/devicebound/#", Some(Subscription::Commands), None),
            ("$iothub/methods/POST/#", Some(Subscription::Methods), Some(Subscription::Methods)),
            ("$iothub/twin/res/#", Some(Subscription::TwinResponses), Some(Subscription::TwinResponses)),
            (
                "$iothub/twin/PATCH/properties/desired/#",
                Some(Subscription::DesiredChanges),
                Some(Subscription::DesiredChanges),
            ),
            ("devices/A/modules/m/inputs/#", None, Some(Subscription::Inputs)),
            ("devices/A/modules/m/#", None, Some(Subscription::ModuleAll)),
            ("devices/A/modules/m/messages/devicebound/#", None, Some(Subscription::ModuleCommands)),
        ] {
            for (identity, expected) in [(DEVICE, of_device), (MODULE, of_module)] {
                let found = parse_filter(filter, identity);
                assert_eq!(found, expected.ok_or(TopicError::OtherIdentity), "{filter} of {identity}");
                if let Ok(subscription) = found {
                    let mut written = String::new();
                    write_filter(&mut written, subscription, identity);
                    assert_eq!(written, filter);
                    assert!(subscription.is_for(identity));
                }
            }
        }
    }

    #[test]
    fn other_filters_are_refused() {
        for (filter, error) in [
            ("", TopicError::Unknown),
            ("#", TopicError::Unknown),
            ("devices/#", TopicError::OtherIdentity),
            ("devices/+/messages/devicebound/#", TopicError::OtherIdentity),
            ("devices/B/messages/devicebound/#", TopicError::OtherIdentity),
            ("devices/AB/messages/devicebound/#", TopicError::OtherIdentity),
            ("devices/A/#", TopicError::Unknown),
            ("devices/A/messages/deviceBound/#", TopicError::Unknown),
            ("devices/A/messages/devicebound/", TopicError::Unknown),
            ("devices/A/messages/events/#", TopicError::Unknown),
            ("devices/A/inputs/#", TopicError::Unknown),
            ("devices/A/modules/m2/#", TopicError::OtherIdentity),
            ("$iothub/#", TopicError::Unknown),
            ("$iothub/twin/#", TopicError::Unknown),
            ("$iothub/twin/PATCH/properties/reported/#", TopicError::Unknown),
            ("$iothub/methods/post/#", TopicError::Unknown),
            ("messages/devicebound/#", TopicError::Unknown),
            ("inputs/#", TopicError::Unknown),
        ] {
            assert_eq!(parse_filter(filter, DEVICE), Err(error), "{filter}");
        }
        assert_eq!(parse_filter("devices/A/modules/m/inputs/x", MODULE), Err(TopicError::Unknown));
    }

    #[test]
    fn ids_with_wildcards_in_them_stay_ids() {
        let odd = Identity::of_device("+");
        assert_eq!(parse_filter("devices/+/messages/devicebound/#", odd), Ok(Subscription::Commands));
        assert_eq!(parse_filter("devices/A/messages/devicebound/#", odd), Err(TopicError::OtherIdentity));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), tail in "[a-z#+/]{0,30}") {
            let _ = parse_filter(&text, MODULE);
            let _ = parse_filter(&format!("devices/A/{tail}"), DEVICE);
        }
    }
}
