//! Every form of bag that an SDK makes, and some that nobody should.

use proptest::prelude::*;

use super::*;
use SystemProperty as P;

type System<'a> = &'a [(SystemProperty, &'a str)];
type Application<'a> = &'a [(&'a str, &'a str)];

fn parse(text: &str) -> Result<Bag<'_>, BagError> {
    let mut bag = Bag::new();
    parse_into(text, &mut bag).map(|()| bag)
}

fn check(text: &str, system: System<'_>, application: Application<'_>) {
    let bag = parse(text).unwrap();
    let found: Vec<_> = bag.system.iter().map(|(property, value)| (*property, value.as_ref())).collect();
    assert_eq!(found, system, "{text}");
    let found: Vec<_> = bag.application.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    assert_eq!(found, application, "{text}");
    // Written and read again it is the same.
    let mut written = String::new();
    write(&mut written, system, application);
    assert_eq!(parse(&written).unwrap(), bag, "{text}");
}

/// The table of the device protocol's telemetry section, row by row.
#[test]
fn forms_of_the_sdks() {
    let json = &[(P::ContentType, "application/json"), (P::ContentEncoding, "utf-8")];
    check("%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%2Bd%2Fe", json, &[("a b", "c+d/e")]);
    check("$.mid=m-1&$.cid=c", &[(P::MessageId, "m-1"), (P::CorrelationId, "c")], &[]);
    check("k=v&%24.ct=application/json", &json[..1], &[("k", "v")]);
    check("k=a/b c+d&l=x/y", &[], &[("k", "a/b c+d"), ("l", "x/y")]);
    check("%24.on=alerts/", &[(P::OutputName, "alerts")], &[]);
    check("k=v/", &[], &[("k", "v")]);
    check("k=v//", &[], &[("k", "v/")]);
    check("?k=v", &[], &[("k", "v")]);
    check("?k=v/", &[], &[("k", "v")]);
    check("bare&k=v", &[], &[("bare", ""), ("k", "v")]);
    check("k=&l", &[], &[("k", ""), ("l", "")]);
    check("k=a=b==", &[], &[("k", "a=b==")]);
    for empty in ["", "/", "?", "?/", "&", "&&"] {
        check(empty, &[], &[]);
    }
}

#[test]
fn names_are_known_in_every_spelling() {
    for name in ["%24.sub", "$.sub", "%24%2Esub", "$%2esub", "%24.su%62"] {
        check(&format!("{name}=thermo"), &[(P::Component, "thermo")], &[]);
    }
    check("iothub-ack=full&iothub-operation=d2c", &[(P::Ack, "full"), (P::Operation, "d2c")], &[]);
    check("%24.new=1&$.MID=2", &[], &[("$.new", "1"), ("$.MID", "2")]);
    // Decoded once only.
    check("%2524.mid=1&k=%252F", &[], &[("%24.mid", "1"), ("k", "%2F")]);
    check("%24.ct=application%252Fjson", &[(P::ContentType, "application%2Fjson")], &[]);
    check("na%C3%AFve=%E2%82%AC", &[], &[("naïve", "€")]);
}

#[test]
fn the_first_of_equal_names_counts() {
    check("k=1&K=2&k=3&%6b=4", &[], &[("k", "1"), ("K", "2")]);
    check("$.mid=1&%24.mid=2", &[(P::MessageId, "1")], &[]);
}

#[test]
fn what_only_the_server_may_say_is_dropped() {
    check(
        "$.cdid=other&%24.cmid=m&iothub-connection-device-id=x&IOTHUB-ENQUEUEDTIME=y\
         &iothub%2Dmessage-source=z&iothub-connection-auth-method=a\
         &iothub-connection-auth-generation-id=g&iothub-connection-module-id=n&k=v",
        &[],
        &[("k", "v")],
    );
}

#[test]
fn plain_text_is_borrowed() {
    let bag = parse("%24.ct=application%2Fjson&$.mid=1&k=v").unwrap();
    assert!(bag.system.iter().all(|(_, value)| matches!(value, Cow::Borrowed(_))));
    let borrowed = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
    assert!(bag.application.iter().all(|(name, value)| borrowed(name) && borrowed(value)));
}

#[test]
fn memory_is_handed_on() {
    let first = "a=1&b=2&c=3&$.mid=1&$.cid=2".to_owned();
    let mut bag = Bag::new();
    parse_into(&first, &mut bag).unwrap();
    let before = (bag.system.as_ptr() as usize, bag.application.as_ptr() as usize);
    let mut bag = bag.recycle();
    drop(first);
    assert!(bag.system.is_empty() && bag.application.is_empty());
    let second = "d=4&$.to=x".to_owned();
    parse_into(&second, &mut bag).unwrap();
    assert_eq!((bag.system.as_ptr() as usize, bag.application.as_ptr() as usize), before);
    assert_eq!(bag.application_value("d"), Some("4"));
    assert_eq!(bag.system_value(P::To), Some("x"));
}

#[test]
fn refuses_what_is_no_bag() {
    for (text, error) in [
        ("a=1&=2", BagError::EmptyName { index: 1 }),
        ("=", BagError::EmptyName { index: 0 }),
        ("a=%", BagError::BadEscape { index: 0 }),
        ("a=1&b=%4", BagError::BadEscape { index: 1 }),
        ("a=1&%zz=1", BagError::BadEscape { index: 1 }),
        ("$.mid=%ff", BagError::BadEscape { index: 0 }),
        ("a=50%&b=1", BagError::BadEscape { index: 0 }),
    ] {
        let mut bag = parse("before=1").unwrap();
        assert_eq!(parse_into(text, &mut bag), Err(error), "{text}");
        assert_eq!(bag, Bag::new(), "{text}");
    }
}

#[test]
fn properties_are_counted() {
    let bag = |count: usize| (0..count).map(|index| format!("k{index}=v&")).collect::<String>();
    assert_eq!(parse(&bag(100)).unwrap().application.len(), 100);
    assert_eq!(parse(&bag(101)), Err(BagError::TooMany { limit: 100 }));
    // Repeated and dropped ones count too: they are work all the same.
    assert!(parse(&"$.cdid=1&".repeat(101)).is_err());
}

#[test]
fn the_longest_topics_are_read() {
    let long = "a".repeat(65_000);
    check(&format!("k={long}"), &[], &[("k", &long)]);
    assert_eq!(parse(&"&".repeat(65_535)).unwrap(), Bag::new());
    assert!(parse(&"%".repeat(65_535)).is_err());
    assert_eq!(parse(&"=".repeat(65_535)), Err(BagError::EmptyName { index: 0 }));
}

#[test]
fn writing_escapes_all_but_unreserved_characters() {
    let mut out = String::from("topic/");
    let system = &[(P::To, "/devices/d/x"), (P::EnqueuedTime, "no key here"), (P::Ack, "full")];
    write(&mut out, system, &[("a b", "c/d?&=%+é"), ("empty", ""), ("$.to", "forged"), ("~-._", "~-._")]);
    assert_eq!(
        out,
        "topic/%24.to=%2Fdevices%2Fd%2Fx&iothub-ack=full\
         &a%20b=c%2Fd%3F%26%3D%25%2B%C3%A9&empty=&~-._=~-._"
    );
}

fn device_property() -> impl Strategy<Value = SystemProperty> {
    let settable =
        |property: &&SystemProperty| property.mqtt_key().is_some() && !property.is_server_stamped();
    prop::sample::select(SystemProperty::ALL.iter().filter(settable).copied().collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), bagged in "[a$%.&=/?2F0-9é+]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&bagged);
    }

    #[test]
    fn what_is_written_is_read(
        system in prop::collection::btree_map(device_property(), any::<String>(), 0..8),
        application in prop::collection::btree_map(".{1,12}", any::<String>(), 0..20),
    ) {
        let system: Vec<_> = system.iter().map(|(property, value)| (*property, value.as_str())).collect();
        let application: Vec<_> = application
            .iter()
            .filter(|(name, _)| P::from_mqtt_key(name).is_none() && !is_stamped_name(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        check(&{
            let mut text = String::new();
            write(&mut text, &system, &application);
            text
        }, &system, &application);
    }
}
