//! Routes of HTTP triggers: `products/{category:alpha}/{id:int?}`, `files/{*path}`.
//!
//! Pure matching of decoded paths. Of several routes that fit, the more specific one is taken: segment by
//! segment, text before a constrained parameter before a free one before the rest.

use std::cmp::Ordering;

/// Segments of a route; deeper addresses aren't routes of functions.
const SEGMENTS_MAX: usize = 32;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    segments: Vec<Segment>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Parameter { name: String, constraints: Vec<Constraint>, optional: bool, default: Option<String> },
    Rest { name: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Constraint {
    Alpha,
    Bool,
    Integer,
    Number,
    Guid,
    Length(usize, usize),
    Range(i64, i64),
    /// Constraints that are not checked: dates and patterns.
    Free,
}

impl Route {
    /// Reads a route.
    pub(crate) fn parse(text: &str) -> Result<Route, String> {
        let mut segments = Vec::new();
        for part in text.trim_matches('/').split('/').filter(|part| !part.is_empty()) {
            if matches!(segments.last(), Some(Segment::Rest { .. })) {
                return Err(format!("route {text:?} goes on behind its rest"));
            }
            segments.push(segment(part).map_err(|reason| format!("route {text:?}: {reason}"))?);
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(format!("route {text:?} has more than {SEGMENTS_MAX} segments"));
        }
        Ok(Route { segments, text: text.trim_matches('/').to_owned() })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The parameters, when the decoded segments of a path fit.
    pub(crate) fn matches(&self, path: &[String]) -> Option<Vec<(String, String)>> {
        let mut parameters = Vec::new();
        let mut path = path.iter();
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => {
                    if !path.next()?.eq_ignore_ascii_case(text) {
                        return None;
                    }
                }
                Segment::Parameter { name, constraints, optional, default } => match path.next() {
                    Some(value) => {
                        if !constraints.iter().all(|constraint| constraint.fits(value)) {
                            return None;
                        }
                        parameters.push((name.clone(), value.clone()));
                    }
                    None => match default {
                        Some(default) => parameters.push((name.clone(), default.clone())),
                        None if *optional => {}
                        None => return None,
                    },
                },
                Segment::Rest { name } => {
                    let rest: Vec<&str> = path.by_ref().map(String::as_str).collect();
                    parameters.push((name.clone(), rest.join("/")));
                }
            }
        }
        path.next().is_none().then_some(parameters)
    }

    /// The more specific route is less.
    pub(crate) fn by_precision(&self, other: &Route) -> Ordering {
        let ranks = |route: &Route| route.segments.iter().map(Segment::rank).collect::<Vec<u8>>();
        ranks(self).cmp(&ranks(other)).then_with(|| self.text.cmp(&other.text))
    }
}

impl Segment {
    fn rank(&self) -> u8 {
        match self {
            Segment::Text(_) => 0,
            Segment::Parameter { constraints, .. } if !constraints.is_empty() => 1,
            Segment::Parameter { .. } => 2,
            Segment::Rest { .. } => 3,
        }
    }
}

fn segment(part: &str) -> Result<Segment, String> {
    let Some(inner) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return match part.contains(['{', '}']) {
            true => Err(format!("segment {part:?} mixes text and parameters, which is not supported")),
            false => Ok(Segment::Text(part.to_owned())),
        };
    };
    if let Some(name) = inner.strip_prefix('*') {
        return Ok(Segment::Rest { name: name.trim_start_matches('*').to_owned() });
    }
    let (inner, default) = match inner.split_once('=') {
        Some((inner, default)) => (inner, Some(default.to_owned())),
        None => (inner, None),
    };
    let (inner, optional) = match inner.strip_suffix('?') {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    let mut parts = inner.split(':');
    let name = parts.next().unwrap_or_default().trim().to_owned();
    if name.is_empty() || name.contains(['{', '}']) {
        return Err(format!("segment {part:?} has no name"));
    }
    let constraints = parts.map(constraint).collect::<Result<Vec<_>, _>>()?;
    Ok(Segment::Parameter { name, constraints, optional, default })
}

fn constraint(text: &str) -> Result<Constraint, String> {
    let (name, argument) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').unwrap_or(rest)),
        None => (text, ""),
    };
    let number =
        |text: &str| text.trim().parse::<i64>().map_err(|_| format!("constraint {text:?} has no number"));
    let size = |text: &str| number(text).map(|number| usize::try_from(number).unwrap_or(0));
    Ok(match name.trim().to_ascii_lowercase().as_str() {
        "alpha" => Constraint::Alpha,
        "bool" => Constraint::Bool,
        "int" | "long" => Constraint::Integer,
        "decimal" | "double" | "float" => Constraint::Number,
        "guid" => Constraint::Guid,
        "length" => match argument.split_once(',') {
            Some((least, most)) => Constraint::Length(size(least)?, size(most)?),
            None => Constraint::Length(size(argument)?, size(argument)?),
        },
        "minlength" => Constraint::Length(size(argument)?, usize::MAX),
        "maxlength" => Constraint::Length(0, size(argument)?),
        "min" => Constraint::Range(number(argument)?, i64::MAX),
        "max" => Constraint::Range(i64::MIN, number(argument)?),
        "range" => match argument.split_once(',') {
            Some((least, most)) => Constraint::Range(number(least)?, number(most)?),
            None => return Err("constraint range needs two numbers".to_owned()),
        },
        "datetime" | "regex" | "required" | "" => Constraint::Free,
        other => return Err(format!("constraint {other:?} is not known")),
    })
}

impl Constraint {
    fn fits(&self, value: &str) -> bool {
        match self {
            Constraint::Alpha => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphabetic()),
            Constraint::Bool => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Constraint::Integer => value.parse::<i64>().is_ok(),
            Constraint::Number => value.parse::<f64>().is_ok_and(f64::is_finite),
            Constraint::Guid => {
                let digits = value.bytes().filter(u8::is_ascii_hexdigit).count();
                digits == 32 && value.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
            }
            Constraint::Length(least, most) => (*least..=*most).contains(&value.chars().count()),
            Constraint::Range(least, most) => {
                value.parse::<i64>().is_ok_and(|value| (*least..=*most).contains(&value))
            }
            Constraint::Free => true,
        }
    }
}

/// Decodes the segments of a path; `None` when one can't be.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/').filter(|part| !part.is_empty()).map(decoded).collect()
}

/// Percent-decoding (RFC 3986 §2.1).
pub(crate) fn decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
    }
    String::from_utf8(out).ok()
}

/// The pairs of a query, decoded; `+` is a space (application/x-www-form-urlencoded).
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    let part = |text: &str| decoded(&text.replace('+', " ")).unwrap_or_else(|| text.to_owned());
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => (part(name), part(value)),
        None => (part(pair), String::new()),
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(route: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let found = Route::parse(route).unwrap().matches(&segments(path).unwrap());
        let expected = expected.map(|pairs| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{route} {path}");
    }

    #[test]
    fn matching() {
        check("hello", "/hello", Some(&[]));
        check("Hello", "/hello/", Some(&[]));
        check("hello", "/hello/x", None);
        check("p/{c:alpha}/{id:int?}", "p/shoes/5", Some(&[("c", "shoes"), ("id", "5")]));
        check("p/{c:alpha}/{id:int?}", "p/shoes", Some(&[("c", "shoes")]));
        check("p/{c:alpha}/{id:int?}", "p/shoes/x", None);
        check("p/{c:alpha}/{id:int?}", "p/5", None);
        check("p/{id=7}", "p", Some(&[("id", "7")]));
        check("f/{*path}", "f/a/b%20c", Some(&[("path", "a/b c")]));
        check("f/{*path}", "f", Some(&[("path", "")]));
        check("{x:range(1,9)}", "10", None);
        check("{x:length(2)}/{y:minlength(3)}", "ab/abc", Some(&[("x", "ab"), ("y", "abc")]));
        check(
            "{x:guid}",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            Some(&[("x", "0f8fad5b-d9cb-469f-a165-70867728950e")]),
        );
        // A slash that is encoded stays in its segment.
        check("{a}", "a%2Fb", Some(&[("a", "a/b")]));
    }

    #[test]
    fn refusals() {
        for text in ["{}", "{a:nope}", "a{b}", "{*rest}/more", "{x:range(1)}", "{x:min(a)}"] {
            assert!(Route::parse(text).is_err(), "{text}");
        }
        assert_eq!(segments("/%zz"), None);
        assert_eq!(segments("/%ff"), None);
    }

    #[test]
    fn text_before_parameters_before_the_rest() {
        let mut routes: Vec<Route> = ["{*all}", "p/{id}", "p/{id:int}", "p/new"]
            .iter()
            .map(|text| Route::parse(text).unwrap())
            .collect();
        routes.sort_by(Route::by_precision);
        let texts: Vec<&str> = routes.iter().map(Route::text).collect();
        assert_eq!(texts, ["p/new", "p/{id:int}", "p/{id}", "{*all}"]);
    }

    #[test]
    fn queries() {
        let pairs = [("a", "1 2"), ("b", "ü"), ("c", ""), ("d", "%zz")];
        let expected: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(query("a=1+2&b=%C3%BC&c&d=%zz"), expected);
    }
}
