//! Where a device says that it is.
//!
//! Any device whose telemetry is a JSON object with a latitude and a longitude is on the map, at the top of
//! the object or in a member `position`, `location` or `gps`. What else is known of it (heading, altitude,
//! speed, a name) is taken where it goes by a common name.

use serde_json::{Map, Value, json};

/// Bytes of a name on the map.
const LABEL_BYTES_MAX: usize = 32;

/// A device's place at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Position {
    latitude: f64,
    longitude: f64,
    /// Degrees from north, clockwise.
    heading: Option<f64>,
    /// As the device says it: metres or feet are its own affair.
    altitude: Option<f64>,
    /// As the device says it.
    speed: Option<f64>,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    /// A name for people, when it isn't the device's id.
    label: Option<String>,
}

const LATITUDE: &[&str] = &["latitude", "lat"];
const LONGITUDE: &[&str] = &["longitude", "lon", "lng"];
const HEADING: &[&str] = &["heading", "track", "true_track", "trueTrack", "course", "bearing"];
const ALTITUDE: &[&str] = &[
    "altitude",
    "alt",
    "baroAltitude",
    "baro_altitude",
    "geoAltitude",
    "geo_altitude",
    "altitude_m",
    "elevation",
];
const SPEED: &[&str] = &["speed", "groundSpeed", "ground_speed", "velocity", "speed_mps"];
const LABEL: &[&str] = &["callsign", "flight", "label", "name"];

/// Members under which a position may stand.
const NESTS: &[&str] = &["position", "location", "gps"];

impl Position {
    /// The position that a body tells, if any.
    pub(crate) fn of(body: &[u8], at: u64) -> Option<Position> {
        // What can't be an object isn't parsed: numbers and text are the usual telemetry.
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace())?;
        if *first != b'{' {
            return None;
        }
        let Value::Object(top) = serde_json::from_slice(body).ok()? else { return None };
        let nested = NESTS.iter().filter_map(|name| top.get(*name)?.as_object());
        std::iter::once(&top).chain(nested).find_map(|place| Position::in_object(place, &top, at))
    }

    fn in_object(place: &Map<String, Value>, top: &Map<String, Value>, at: u64) -> Option<Position> {
        let latitude = number(place, LATITUDE).filter(|degrees| degrees.abs() <= 90.0)?;
        let longitude = number(place, LONGITUDE).filter(|degrees| degrees.abs() <= 180.0)?;
        let either = |names| number(place, names).or_else(|| number(top, names));
        let label = LABEL.iter().find_map(|name| top.get(*name)?.as_str()).map(str::trim);
        let label = label.filter(|label| !label.is_empty() && label.len() <= LABEL_BYTES_MAX);
        Some(Position {
            latitude,
            longitude,
            heading: either(HEADING).map(|degrees| degrees.rem_euclid(360.0)),
            altitude: either(ALTITUDE),
            speed: either(SPEED),
            at,
            label: label.map(str::to_owned),
        })
    }

    /// The compact row that the page reads: about a metre is enough for a map.
    pub(crate) fn row(&self, device: &str) -> Value {
        let to = |places: f64| move |value: f64| (value * places).round() / places;
        json!([
            device,
            to(1e5)(self.latitude),
            to(1e5)(self.longitude),
            self.heading.map(to(10.0)),
            self.altitude.map(to(10.0)),
            self.speed.map(to(10.0)),
            self.at,
            self.label,
        ])
    }
}

fn number(object: &Map<String, Value>, names: &[&str]) -> Option<f64> {
    names.iter().find_map(|name| object.get(*name)?.as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(body: &str) -> Option<Value> {
        Position::of(body.as_bytes(), 7).map(|position| position.row("d"))
    }

    /// Every common spelling, and nested objects.
    #[test]
    fn spellings() {
        let plane = r#"{"latitude":46.5,"longitude":6.25,"heading":-90,"altitude":10668.04,"velocity":230.19,
            "callsign":" SWR12 "}"#;
        assert_eq!(row(plane), Some(json!(["d", 46.5, 6.25, 270.0, 10668.0, 230.2, 7, "SWR12"])));
        let short = r#"{"lat":-43.6,"lng":1.4,"track":361}"#;
        assert_eq!(row(short), Some(json!(["d", -43.6, 1.4, 1.0, null, null, 7, null])));
        let nested = r#"{"speed":3,"gps":{"lat":1,"lon":2,"course":5}}"#;
        assert_eq!(row(nested), Some(json!(["d", 1.0, 2.0, 5.0, null, 3.0, 7, null])));
    }

    /// What is no place on earth is none on the map.
    #[test]
    fn no_position() {
        for body in [
            "",
            "21.5",
            "[1,2]",
            "{",
            "{}",
            r#"{"lat":1}"#,
            r#"{"lat":"1","lon":"2"}"#,
            r#"{"lat":91,"lon":0}"#,
            r#"{"lat":0,"lon":-181}"#,
            r#"{"position":[1,2]}"#,
            r#"{"lat":null,"lon":null,"heading":5}"#,
        ] {
            assert_eq!(row(body), None, "{body}");
        }
    }
}
