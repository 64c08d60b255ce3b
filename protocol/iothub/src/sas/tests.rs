//! Tokens of the SDKs, and of those who'd like to be somebody else.

use proptest::prelude::*;

use super::*;

/// `0123456789abcdef` twice.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TOKEN: &str = "SharedAccessSignature sr=hub.example.com%2Fdevices%2Fdev1\
                     &sig=lV6%2FWrEGh5pBUYRNR6X4Icql233xYcnwCj5uCq0YHS0%3D&se=1767225600";

fn key() -> SasKey {
    SasKey::from_base64(KEY).unwrap()
}

fn with_resource(resource: &str) -> SasToken {
    SasToken::parse(&format!("SharedAccessSignature sr={resource}&sig=AAAA&se=1")).unwrap()
}

fn is_hub(host: &str) -> bool {
    host == "hub.example.com"
}

fn covers(resource: &str, path: ResourcePath<'_>) -> bool {
    with_resource(resource).covers(&is_hub, &path)
}

/// Expected values come from Python's `hmac` over the literal `sr`, a line feed and the literal `se`.
#[test]
fn known_signatures_verify() {
    for (sr, sig, se) in [
        ("hub.example.com%2Fdevices%2Fdev1", "lV6/WrEGh5pBUYRNR6X4Icql233xYcnwCj5uCq0YHS0=", "1767225600"),
        ("hub.example.com%2fdevices%2fdev1", "lersxBr/AnqjK/pHnVoP6R71tDchEKKRK8IdjoKMZDY=", "1767225600"),
        ("hub.example.com", "KalMGv8t6T+hHHpVLZl2dBErYPErLB6x5UwcCQc1dFA=", "0001767225600"),
    ] {
        let token = format!("SharedAccessSignature sr={sr}&sig={sig}&se={se}");
        let token = SasToken::parse(&token).unwrap();
        assert!(token.verify(&key()), "{sr}");
        assert_eq!(token.expiry, 1_767_225_600);
    }
    assert_eq!(generate_token("hub.example.com/devices/dev1", &key(), 1_767_225_600, None), TOKEN);
}

#[test]
fn takes_all_fields_in_any_order() {
    let token = SasToken::parse(
        "sharedaccesssignature  skn=device%20two&se=7&sig=%2b%2F%3d%3D&sr=Hub%3A8883%2Fdevices%2Fa%252Fb",
    );
    assert_eq!(token, Err(SasError::BadField { field: "sig" }));
    let token = SasToken::parse(
        "sharedaccesssignature  skn=device%20two&se=7&sig=%2b%2F8%3d&sr=Hub%3A8883%2Fdevices%2Fa%252Fb",
    )
    .unwrap();
    assert_eq!(token.resource_raw, "Hub%3A8883%2Fdevices%2Fa%252Fb");
    assert_eq!(token.resource, "Hub:8883/devices/a%2Fb");
    assert_eq!(token.signature, [0xfb, 0xff]);
    assert_eq!((token.expiry, token.policy.as_deref()), (7, Some("device two")));
    // The C SDK sends an empty policy with the key of a device.
    let token = SasToken::parse("SharedAccessSignature sr=h&sig=AAAA&se=7&skn=").unwrap();
    assert_eq!(token.policy, None);
}

#[test]
fn refuses_malformed_tokens() {
    let unknown = SasError::UnknownField;
    let missing = |field| SasError::MissingField { field };
    let bad = |field| SasError::BadField { field };
    for (token, error) in [
        ("", SasError::BadPrefix),
        ("SharedAccessSignature", SasError::BadPrefix),
        ("SharedAccessSignaturesr=h&sig=AAAA&se=1", SasError::BadPrefix),
        ("Bearer sr=h&sig=AAAA&se=1", SasError::BadPrefix),
        ("SharedAccessSignatur\u{e9} sr=h&sig=AAAA&se=1", SasError::BadPrefix),
        ("SharedAccessSignature &sr=h&sig=AAAA&se=1", unknown),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&", unknown),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&st=0", unknown),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&SR=h", unknown),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&sr=x", SasError::DuplicateField { field: "sr" }),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&se=2", SasError::DuplicateField { field: "se" }),
        ("SharedAccessSignature sig=AAAA&se=1", missing("sr")),
        ("SharedAccessSignature sr=&sig=AAAA&se=1", missing("sr")),
        ("SharedAccessSignature sr=h&se=1", missing("sig")),
        ("SharedAccessSignature sr=h&sig=&se=1", missing("sig")),
        ("SharedAccessSignature sr=h&sig=AAAA", missing("se")),
        ("SharedAccessSignature sr=h%2&sig=AAAA&se=1", bad("sr")),
        ("SharedAccessSignature sr=%ff&sig=AAAA&se=1", bad("sr")),
        ("SharedAccessSignature sr=h&sig=A%zzA&se=1", bad("sig")),
        ("SharedAccessSignature sr=h&sig=not-base64&se=1", bad("sig")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=-1", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=+1", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1.5", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=%31", bad("se")),
        // Beyond i64, beyond u64, beyond the year 9999.
        ("SharedAccessSignature sr=h&sig=AAAA&se=9223372036854775808", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=18446744073709551616", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=253402300800", bad("se")),
        ("SharedAccessSignature sr=h&sig=AAAA&se=1&skn=%", bad("skn")),
    ] {
        assert_eq!(SasToken::parse(token), Err(error), "{token}");
    }
    let long = format!("SharedAccessSignature sr={}&sig=AAAA&se=1", "a".repeat(5_000));
    assert!(matches!(SasToken::parse(&long), Err(SasError::TooLong { limit: 4_096, .. })));
}

#[test]
fn only_the_same_key_text_and_signature_verify() {
    let good = SasToken::parse(TOKEN).unwrap();
    assert!(good.verify(&key()));
    assert!(!good.verify(&SasKey::new(b"another key").unwrap()));
    for (from, to) in [
        ("dev1", "dev2"),             // another device
        ("dev1", "dev1%2Fmodules"),   // a longer resource
        ("%2F", "%2f"),               // the same resource, but not the text that was signed
        ("1767225600", "1767225601"), // a longer life
        ("1767225600", "01767225600"),
        ("lV6", "lv6"), // Base64 in another case
    ] {
        let token = SasToken::parse(&TOKEN.replacen(from, to, 1)).unwrap();
        assert!(!token.verify(&key()), "{from} -> {to}");
    }
    for signature in [&good.signature[..31], &[], &[good.signature.as_slice(), &[0]].concat()] {
        let forged = SasToken { signature: signature.to_vec(), ..good.clone() };
        assert!(!forged.verify(&key()));
    }
}

#[test]
fn keys_are_checked_and_keep_their_secret() {
    assert_eq!(SasKey::from_base64("").unwrap_err(), SasError::EmptyKey);
    assert_eq!(SasKey::new(b"").unwrap_err(), SasError::EmptyKey);
    assert_eq!(SasKey::from_base64("***").unwrap_err(), SasError::BadKey);
    assert_eq!(format!("{:?}", key()), "SasKey(..)");
    let shown = format!("{:?}", SasToken::parse(TOKEN).unwrap());
    assert!(shown.contains("dev1") && !shown.contains("lV6") && !shown.contains("149, 94"), "{shown}");
}

#[test]
fn expiry_has_a_skew_and_cannot_overflow() {
    let token = SasToken::parse("SharedAccessSignature sr=h&sig=AAAA&se=1000").unwrap();
    assert!(!token.is_expired(0, 0));
    assert!(!token.is_expired(1_000, 0));
    assert!(token.is_expired(1_001, 0));
    assert!(!token.is_expired(1_300, 300));
    assert!(token.is_expired(1_301, 300));
    assert!(!token.is_expired(u64::MAX, u64::MAX));
}

#[test]
fn a_resource_covers_what_is_below_it() {
    let device = ResourcePath::device("dev1");
    let module = ResourcePath::module("dev1", "m1");
    for resource in ["hub.example.com", "HUB.example.com%3A8883%2F", "hub.example.com%2FDevices%2F"] {
        assert!(covers(resource, device) && covers(resource, module), "{resource}");
    }
    for resource in [
        "hub.example.com%2Fdevices%2Fdev1",
        "hub.example.com/devices/dev1/",
        "amqps%3A%2F%2Fhub.example.com%2Fdevices%2Fdev1",
    ] {
        assert!(covers(resource, device) && covers(resource, module), "{resource}");
    }
    let of_module = "hub.example.com%2Fdevices%2Fdev1%2FMODULES%2Fm1";
    assert!(covers(of_module, module) && !covers(of_module, device));
    assert!(covers("hub.example.com", ResourcePath::Hub));
    assert!(!covers("hub.example.com%2Fdevices", ResourcePath::Hub));
    let twin = ResourcePath::Path("/twins/Dev1/modules/M");
    assert!(covers("hub.example.com%2FTWINS%2FDev1", twin));
    assert!(!covers("hub.example.com%2Ftwins%2Fdev1", twin));
    assert!(!covers("hub.example.com%2Ftwins%2FDev1%2Fmodules%2Fm", twin));
    assert!(covers("hub.example.com%2Fmessages%2FEVENTS", ResourcePath::Path("messages/events")));
}

#[test]
fn a_resource_covers_nothing_beside_it() {
    let device = ResourcePath::device("dev1");
    for resource in [
        "hub.example.com%2Fdevices%2Fdev", // common prefix, another device
        "hub.example.com%2Fdevices%2Fdev12",
        "hub.example.com%2Fdevices%2FDEV1", // ids are case-sensitive
        "hub.example.com%2Fdev",
        "hub.example.com%2Fdevices%2Fother%3A%2F%2Fhub.example.com%2Fdevices%2Fdev1",
        "hub.example.com%2F%2Fdevices%2Fdev1",
        "hub.example.com%252Fdevices%252Fdev1", // escaped twice: a host with percent signs
        "hub.example.com%2Fdevices%2Fdev1%2Fmodules",
        "hub.example.com.evil%2Fdevices%2Fdev1",
        "evil%2Fhub.example.com%2Fdevices%2Fdev1",
        "evil%3A%2F%2Fhub.example.com%3A%2F%2Fx",
        "%2Fdevices%2Fdev1",
        "user%40hub.example.com%2Fdevices%2Fdev1",
    ] {
        assert!(!covers(resource, device), "{resource}");
    }
    // `a%2Fb` is a legal id. Neither it nor `a` may stand for the other.
    let twin = ResourcePath::device("a%2Fb");
    assert!(!covers("hub.example.com%2Fdevices%2Fa%2Fb", twin));
    assert!(!covers("hub.example.com%2Fdevices%2Fa", twin));
    assert!(covers("hub.example.com%2Fdevices%2Fa%252Fb", twin));
    assert!(!covers("hub.example.com%2Fdevices%2Fa%252Fb", ResourcePath::device("a")));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = SasToken::parse(&text);
        if let Ok(token) = SasToken::parse(&format!("SharedAccessSignature sr={text}&sig=AAAA&se=1")) {
            let _ = token.covers(&|_| true, &ResourcePath::Path(&text));
        }
    }

    #[test]
    fn made_tokens_verify(resource in ".{1,60}", secret in prop::collection::vec(any::<u8>(), 1..80),
                          expiry in 0..=limits::SAS_EXPIRY_SECS_MAX, policy in prop::option::of(".{1,20}")) {
        let key = SasKey::new(&secret).unwrap();
        let token = SasToken::parse(&generate_token(&resource, &key, expiry, policy.as_deref())).unwrap();
        prop_assert!(token.verify(&key));
        prop_assert_eq!(token.resource, resource);
        prop_assert_eq!((token.expiry, token.policy), (expiry, policy));
    }
}
