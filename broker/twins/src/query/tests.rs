//! Queries: what parses, what it means, and what hostile text does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn row() -> Value {
    json!({
        "deviceId": "d1", "moduleId": "m1", "status": "enabled", "connectionState": "Connected",
        "etag": "AAAAAAAAAAE=", "statusReason": null, "version": 3,
        "lastActivityTime": "2026-11-24T06:15:38.1230000Z", "capabilities": {"iotEdge": true},
        "tags": {"site": "north", "floor": 3, "Floor": 4, "load": 0.5, "on": true, "off": false,
                 "list": [1, 2], "nested": {"a": {"b": "deep"}}, "in": "keyword", "group": {"name": "g"},
                 "größe": 1, "nul": null, "empty": "", "a b": "space", "10": "ten"},
        "properties": {
            "desired": {"interval": 10, "$version": 4, "$metadata": {"$lastUpdated": "2026-01-01"}},
            "reported": {"interval": -5, "lastDesiredVersion": 4, "fw": "1.10"}},
        "configurations": {"a-b.c": {"status": "Applied"}},
    })
}

/// Whether the row fulfils the condition, alone and in a query.
fn holds(condition: &str) -> bool {
    let alone = parse_condition(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
    let query = parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
    assert_eq!(query.condition.as_ref(), Some(&alone), "{condition}");
    assert_eq!(query.matches(&row()), alone.matches(&row()), "{condition}");
    alone.matches(&row())
}

fn check_all(table: &[(&str, bool)]) {
    for (condition, expected) in table {
        assert_eq!(holds(condition), *expected, "{condition}");
    }
}

#[test]
fn comparisons_by_type() {
    check_all(&[
        ("deviceId = 'd1'", true),
        ("deviceId = \"d1\"", true),
        ("'d1' = deviceId", true),
        ("deviceId = 'D1'", false),
        ("deviceId != 'd2'", true),
        ("deviceId <> 'd2'", true),
        ("deviceId <> 'd1'", false),
        ("tags.floor = 3", true),
        ("tags.floor = 3.0", true),
        ("tags.floor = 0x3", true),
        ("tags.floor = 30e-1", true),
        ("tags.floor = 3.1", false),
        ("tags.floor < 4", true),
        ("tags.floor < 3", false),
        ("tags.floor <= 3", true),
        ("tags.floor > 3", false),
        ("tags.floor > 2.99", true),
        ("tags.floor >= 3", true),
        ("tags.load < 1", true),
        ("properties.reported.interval = -5", true),
        ("properties.reported.interval < 0", true),
        ("properties.reported.interval=-5", true),
        ("properties.desired.interval > properties.reported.interval", true),
        ("properties.desired.$version = properties.reported.lastDesiredVersion", true),
        ("properties.desired.$metadata.$lastUpdated < '2026-06'", true),
        ("lastActivityTime >= '2026-11-24'", true),
        ("lastActivityTime >= '2026-11-25'", false),
        // By characters, not by what they mean.
        ("properties.reported.fw < '1.9'", true),
        ("tags.on = true", true),
        ("tags.on = TRUE", true),
        ("tags.off = false", true),
        ("tags.on != false", true),
        ("tags.on > false", false),
        ("tags.on >= true", false),
        ("1 = 1", true),
        ("0 = -0", true),
        ("18446744073709551615 > 9223372036854775807", true),
        ("9007199254740993 = 9007199254740992", false),
    ]);
}

/// "Different types compare as false", objects and arrays too, and so does what isn't there.
#[test]
fn no_coercion_and_undefined_is_false() {
    for comparison in ["=", "!=", "<>", "<", "<=", ">", ">="] {
        for (left, right) in [
            ("tags.floor", "'3'"),
            ("tags.on", "1"),
            ("tags.on", "'true'"),
            ("tags.empty", "false"),
            ("tags.missing", "1"),
            ("tags.missing", "null"),
            ("tags.missing", "tags.missing"),
            ("tags.site.deeper", "'x'"),
            ("missing", "'x'"),
            ("tags.site", "undefined"),
            ("tags.missing", "undefined"),
            ("tags.list", "tags.list"),
            ("tags.nested", "tags.nested"),
            ("tags.nested", "tags.floor"),
        ] {
            assert!(!holds(&format!("{left} {comparison} {right}")), "{left} {comparison} {right}");
            assert!(!holds(&format!("{right} {comparison} {left}")), "{right} {comparison} {left}");
        }
    }
    check_all(&[("NOT tags.missing = 1", true), ("NOT tags.missing", true), ("NOT tags.floor", true)]);
}

#[test]
fn null_compares_with_everything() {
    check_all(&[
        ("statusReason = null", true),
        ("statusReason != null", false),
        ("tags.nul = NULL", true),
        ("tags.floor = null", false),
        ("tags.floor != null", true),
        ("tags.nested != null", true),
        ("tags.list = null", false),
        ("null = null", true),
        ("null <= null", false),
        ("tags.floor > null", false),
        ("IS_NULL(tags.nul)", true),
        ("IS_NULL(tags.floor)", false),
        ("IS_NULL(tags.missing)", false),
        ("IS_DEFINED(tags.nul)", true),
        ("is_defined(tags.nested.a)", true),
        ("IS_DEFINED(tags.missing)", false),
        ("NOT IS_DEFINED(tags.missing)", true),
        ("IS_DEFINED(undefined)", false),
    ]);
}

#[test]
fn lists_functions_and_bare_values() {
    check_all(&[
        ("deviceId IN ['d0', 'd1']", true),
        ("deviceId in ['d0']", false),
        ("deviceId IN []", false),
        ("deviceId NIN ['d0']", true),
        ("deviceId NIN ['d1', 'd0']", false),
        ("deviceId NIN []", true),
        ("tags.floor IN ['3', true, null, -1, 3]", true),
        ("tags.floor IN ['3']", false),
        ("tags.floor NIN ['3']", true),
        ("tags.nul IN [null]", true),
        ("tags.missing IN [undefined]", false),
        ("tags.missing NIN [1]", false),
        ("tags.list NIN [1]", false),
        ("'x' IN ['x']", true),
        ("STARTS_WITH(deviceId, 'd')", true),
        ("startswith(deviceId, 'd1')", true),
        ("STARTSWITH(deviceId, '1')", false),
        ("STARTSWITH(deviceId, '')", true),
        ("STARTSWITH(tags.floor, '3')", false),
        ("STARTSWITH(tags.missing, '')", false),
        ("STARTSWITH('abc', deviceId)", false),
        ("capabilities.iotEdge", true),
        ("capabilities.iotEdge = true", true),
        ("tags.off", false),
        ("tags.floor", false),
        ("tags.site", false),
        ("true", true),
        ("'true'", false),
        ("null", false),
        ("undefined", false),
    ]);
}

/// OR binds weakest, then AND, then NOT, then comparisons.
#[test]
fn precedence() {
    check_all(&[
        ("true OR true AND false", true),
        ("(true OR true) AND false", false),
        ("false AND true OR true", true),
        ("false AND (true OR true)", false),
        ("NOT true OR true", true),
        ("NOT (true OR true)", false),
        ("NOT false AND false", false),
        ("NOT (false AND false)", true),
        ("NOT tags.floor = 4", true),
        ("NOT NOT tags.on", true),
        ("not true or not false and not false", true),
        ("(tags.floor) = 3", true),
        ("((tags.floor)) IN [3]", true),
        ("(tags.floor = 3)", true),
        ("(tags.on) AND (deviceId) != 'd2'", true),
        ("tags.floor = 3 AND tags.site = 'south' OR tags.on", true),
    ]);
    let tree = |text| parse_condition(text).unwrap();
    let value = |name: &str| Condition::Truth(Operand::Path(Path(vec![name.to_owned()])));
    assert_eq!(
        tree("a OR b AND NOT c OR d"),
        Condition::Or(vec![
            value("a"),
            Condition::And(vec![value("b"), Condition::Not(Box::new(value("c")))]),
            value("d"),
        ])
    );
    assert_eq!(tree("NOT a AND b"), Condition::And(vec![Condition::Not(Box::new(value("a"))), value("b")]));
}

#[test]
fn paths() {
    check_all(&[
        ("tags.nested.a.b = 'deep'", true),
        ("tags['nested']['a'].b = 'deep'", true),
        ("tags.nested[\"a\"]['b'] = 'deep'", true),
        ("tags['a b'] = 'space'", true),
        ("tags.[[a b]] = 'space'", true),
        ("tags.[[group]].name = 'g'", true),
        ("[[tags]].site = 'north'", true),
        ("configurations.[[a-b.c]].status = 'Applied'", true),
        ("configurations['a-b.c'].status = 'Applied'", true),
        ("tags.in = 'keyword'", true),
        ("tags.größe = 1", true),
        ("tags . floor /* here */ = 3", true),
        ("devices.deviceId = 'd1'", true),
        ("devices.modules.moduleId = 'm1'", true),
        ("devices.tags.site = 'north'", true),
        // The twin's own fields in any case, other names only as they are spelt.
        ("DEVICEID = 'd1'", true),
        ("ConnectionState = 'Connected'", true),
        ("Tags.floor = 3", true),
        ("tags.Floor = 4", true),
        ("tags.FLOOR = 4", false),
        ("etag = 'AAAAAAAAAAE='", true),
        ("status = 'enabled'", true),
        ("modules.moduleId = 'm1'", false),
    ]);
}

#[test]
fn string_escapes() {
    for (text, expected) in [
        (r"'it\'s'", "it's"),
        (r#"'say "x"'"#, "say \"x\""),
        (r#""it's""#, "it's"),
        (r#""\"""#, "\""),
        (r"'back\\slash'", "back\\slash"),
        (r"'\u00e9\u0041'", "éA"),
        (r"'\ud83d\ude00'", "\u{1f600}"),
        ("'ü\u{1f600}\n'", "ü\u{1f600}\n"),
        ("'/* no comment */ OR'", "/* no comment */ OR"),
    ] {
        let found = parse_condition(text);
        let expected = Condition::Truth(Operand::Literal(Literal(Some(json!(expected)))));
        assert_eq!(found, Ok(expected), "{text}");
    }
}

#[test]
fn sources_and_blanks() {
    for (text, source) in [
        ("SELECT * FROM devices", Source::Devices),
        ("select*from DEVICES", Source::Devices),
        ("\t SELECT /* all */ *\r\nFROM devices /**/", Source::Devices),
        ("SELECT * FROM devices.modules", Source::Modules),
        ("SELECT * FROM Devices . Modules", Source::Modules),
    ] {
        let query = parse(text);
        assert_eq!(query, Ok(Query { source, condition: None }), "{text}");
        assert!(query.is_ok_and(|query| query.matches(&json!({}))), "{text}");
    }
}

#[test]
fn what_is_refused_is_named() {
    let query = |text: &str| parse(text).map(|_| ()).map_err(|error| error.to_string());
    for (text, expected) in [
        ("", "expected SELECT at 0, found the end"),
        ("FROM devices", "expected SELECT at 0, found FROM"),
        ("SELECT FROM devices", "expected * at 7, found FROM"),
        ("SELECT *", "expected FROM at 8, found the end"),
        ("SELECT * FROM twins", "expected devices or devices.modules at 14, found twins"),
        ("SELECT * FROM devices.x", "expected modules at 22, found x"),
        ("SELECT * FROM devices.jobs", "devices.jobs at 22 is not supported"),
        ("SELECT deviceId, tags.a AS c FROM devices", "a list of what to select at 7 is not supported"),
        ("SELECT COUNT() AS n FROM devices", "an aggregate at 7 is not supported"),
        ("SELECT TOP 5 * FROM devices", "TOP at 7 is not supported"),
        ("SELECT * FROM devices GROUP BY tags.a", "GROUP BY at 22 is not supported"),
        ("SELECT * FROM devices WHERE a = 1 GROUP BY b", "GROUP BY at 34 is not supported"),
        ("SELECT * FROM devices ORDER BY a", "expected AND, OR or the end at 22, found ORDER"),
        ("SELECT * FROM devices WHERE", "expected a value at 27, found the end"),
        ("SELECT * FROM devices; DROP", "expected a word of the query language at 21, found ?"),
    ] {
        assert_eq!(query(text), Err(expected.to_owned()), "{text}");
    }
    let condition = |text: &str| parse_condition(text).map(|_| ()).map_err(|error| error.to_string());
    for (text, expected) in [
        ("a = ", "expected a value at 4, found the end"),
        ("a = = 1", "expected a value at 4, found ="),
        ("a = b = c", "expected AND, OR or the end at 6, found ="),
        ("a AND", "expected a value at 5, found the end"),
        ("AND a", "expected a value at 0, found AND"),
        ("a b", "expected AND, OR or the end at 2, found b"),
        ("(a", "expected AND, OR or ) at 2, found the end"),
        ("a)", "expected AND, OR or the end at 1, found )"),
        ("()", "expected a value at 1, found )"),
        ("NOT", "expected a value at 3, found the end"),
        ("a.", "expected a name at 2, found the end"),
        ("a.'b'", "expected a name at 2, found a string"),
        ("a[0] = 1", "an array index at 2 is not supported"),
        ("a[b] = 1", "expected a quoted name at 2, found b"),
        ("a['b' = 1", "expected ] at 6, found ="),
        ("a.[[b = 1", "the name at 2 does not end"),
        ("a IN 'b'", "expected [ at 5, found a string"),
        ("a IN ['b'", "expected , or ] at 9, found the end"),
        ("a IN ['b',]", "expected a value at 10, found ]"),
        ("a IN [b]", "expected a constant at 6, found b"),
        ("a = 'b", "the string at 4 does not end"),
        ("a = 'b\\", "the string at 4 does not end"),
        (r"a = '\n'", "the string at 4 has an escape that is none"),
        (r"a = '\u12'", "the string at 4 has an escape without four hexadecimal digits"),
        (r"a = '\u+123'", "the string at 4 has an escape without four hexadecimal digits"),
        (r"a = '\ud83d'", "the string at 4 has half of a pair of escapes"),
        ("a = 1x", "the number at 4 is malformed or too large"),
        ("a = 01", "the number at 4 is malformed or too large"),
        ("a = 1e400", "the number at 4 is malformed or too large"),
        ("a = 0x", "the number at 4 is malformed or too large"),
        ("a = 0x11112222333344445", "the number at 4 is malformed or too large"),
        ("a = -'b'", "expected a number at 5, found a string"),
        ("a + 1 = 2", "arithmetic at 2 is not supported"),
        ("a = 1 - 2", "arithmetic at 6 is not supported"),
        ("a /* b", "the comment at 2 does not end"),
        ("LENGTH(a) = 1", "the function LENGTH at 0 is not supported"),
        ("1 = LENGTH(a)", "the function LENGTH at 4 is not supported"),
        ("IS_DEFINED()", "expected a value at 11, found )"),
        ("IS_DEFINED(a, b)", "expected ) at 12, found ,"),
        ("STARTSWITH(a)", "expected , at 12, found )"),
        ("a ! b", "expected a word of the query language at 2, found !"),
        ("a = \u{a0}1", "expected a word of the query language at 4, found \u{a0}"),
    ] {
        assert_eq!(condition(text), Err(expected.to_owned()), "{text}");
    }
}

/// Every refusal has a number, its name, and no semicolon, whatever stood in the text.
#[test]
fn refusals_can_be_answered() {
    for text in [";", "SELECT * FROM [[;]]", "a;", "a = b \u{1}", "LEN;(a)", "a IN [x['y;z']]"] {
        for error in [parse(text).err(), parse_condition(text).err()] {
            let error = error.unwrap_or_else(|| panic!("{text} was taken"));
            assert_eq!((error.code(), error.name()), (400_004, "ArgumentInvalid"));
            assert!(!error.to_string().contains(';'), "{error}");
        }
    }
}

/// Nesting at the edge, in parentheses and NOTs; what is closed again doesn't count.
#[test]
fn nesting_is_bounded() {
    let groups = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    let nots = |depth: usize| format!("{}true", "NOT ".repeat(depth));
    for text in [&groups as &dyn Fn(usize) -> String, &nots] {
        assert!(holds(&text(64)));
        let refused = parse_condition(&text(65));
        assert!(matches!(refused, Err(QueryError::TooDeep { limit: 64, .. })), "{refused:?}");
        let refused = parse_condition(&text(3000));
        assert!(matches!(refused, Err(QueryError::TooDeep { limit: 64, .. })), "{refused:?}");
    }
    assert!(holds(&vec!["(NOT (false))"; 800].join(" AND ")));
    assert!(parse_condition(&"(".repeat(TEXT_BYTES_MAX)).is_err());
}

/// The longest chains that a text has room for neither nest nor overflow, and 10,000 are too long.
#[test]
fn long_chains_are_flat() {
    let chain = |count: usize| vec!["a"; count].join(" OR ");
    let longest = chain(TEXT_BYTES_MAX.div_ceil(5));
    let Ok(Condition::Or(any)) = parse_condition(&longest) else { panic!("not a chain") };
    assert_eq!(any.len(), 3277);
    assert!(!Condition::Or(any).matches(&row()));
    let found = chain(10_000).len();
    assert_eq!(parse_condition(&chain(10_000)), Err(QueryError::TooLong { found, limit: TEXT_BYTES_MAX }));
    let path = format!("tags{}", ".a".repeat(8000));
    assert!(!holds(&path[..8000]));
    assert!(!holds(&format!("tags.floor IN [{}]", vec!["1"; 7000].join(","))));
}

#[test]
fn length_is_bounded() {
    let text = |len: usize| format!("true{}", " ".repeat(len - 4));
    assert!(parse_condition(&text(16_384)).is_ok());
    assert_eq!(parse_condition(&text(16_385)), Err(QueryError::TooLong { found: 16_385, limit: 16_384 }));
    assert_eq!(parse(&text(16_385)), Err(QueryError::TooLong { found: 16_385, limit: 16_384 }));
}

/// A formula over `true` and `false` with its value, written with the parentheses it needs.
fn formula() -> impl Strategy<Value = (String, bool)> {
    let leaf = any::<bool>().prop_map(|value| (value.to_string(), value));
    leaf.prop_recursive(5, 40, 4, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            inner.prop_map(|(text, value)| (format!("NOT ({text})"), !value)),
            many.clone().prop_map(|all| join(&all, " AND ", all.iter().all(|(_, value)| *value))),
            many.prop_map(|any| join(&any, " OR ", any.iter().any(|(_, value)| *value))),
        ]
    })
}

fn join(parts: &[(String, bool)], word: &str, value: bool) -> (String, bool) {
    let texts: Vec<_> = parts.iter().map(|(text, _)| format!("({text})")).collect();
    (texts.join(word), value)
}

proptest! {
    #[test]
    fn formulas_have_their_value((text, value) in formula()) {
        prop_assert_eq!(parse_condition(&text).map(|condition| condition.matches(&row())), Ok(value), "{}", text);
    }

    /// Without parentheses: the value by splitting at OR, then at AND, then counting NOTs.
    #[test]
    fn precedence_is_what_splitting_says(
        words in prop::collection::vec((0usize..3, any::<bool>(), any::<bool>()), 1..20)
    ) {
        let mut text = String::new();
        for (place, (nots, value, or)) in words.iter().enumerate() {
            if place > 0 {
                text.push_str(if *or { " OR " } else { " AND " });
            }
            text.push_str(&"NOT ".repeat(*nots));
            text.push_str(&value.to_string());
        }
        let one = |test: &str| test.matches("NOT").count().is_multiple_of(2) == test.ends_with("true");
        let expected = text.split(" OR ").any(|all| all.split(" AND ").all(one));
        prop_assert_eq!(parse_condition(&text).map(|condition| condition.matches(&row())), Ok(expected), "{}", text);
    }

    /// Any text is answered.
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse_condition(&text);
    }

    /// So is text that looks like a query.
    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(vec![
        "a", "tags.b", "[[", "]]", "[", "]", "(", ")", ".", ",", "=", "!=", "<", "-", "1", "0x", "1e", "'s'", "'",
        "\\", "\"", "/*", "*/", "AND", "OR", "NOT", "IN", "NIN", "IS_DEFINED", "STARTSWITH", "null", "ü", " ", "'\\u",
    ]), 0..30)) {
        for text in [words.concat(), words.join(" ")] {
            if let Ok(condition) = parse_condition(&text) {
                condition.matches(&row());
            }
            let _ = parse(&format!("SELECT * FROM devices WHERE {text}"));
        }
    }
}
