//! The recording: rows of aircraft in the order of time, as `examples/flights/fetch.py` writes them, and the
//! flights that they make.
//!
//! A flight is what one connection of a device will tell: the rows of one aircraft under one callsign, without
//! a long silence between them. All rows are held in memory (140,000 rows are 8 MB).
//!
//! Not here: when a row is due (`clock`), and sending it (`replay`).

use std::collections::BTreeMap;
use std::path::Path;

use fleetline_cli::CliError;
use fleetline_iothub::names::check_device_id;
use serde_json::{Value, json};

/// An aircraft that was silent for longer begins another flight: it was out of reach, or on the ground.
const SILENCE_MS: u64 = 5 * 60 * 1000;
/// Rows of a recording: bounds what a wrong file can make the demo hold.
const ROWS_MAX: usize = 2_000_000;
/// The columns that are used; others may stand beside them.
const COLUMNS: [&str; 9] = [
    "timestamp",
    "icao24",
    "callsign",
    "latitude",
    "longitude",
    "altitude",
    "groundspeed",
    "track",
    "vertical_rate",
];

/// One row: where an aircraft was, and how it moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// Degrees.
    latitude: f64,
    /// Degrees.
    longitude: f64,
    /// Feet.
    altitude: f64,
    /// Knots.
    groundspeed: f64,
    /// Degrees from north, clockwise.
    track: f64,
    /// Feet a minute.
    vertical_rate: f64,
}

/// A flight of one aircraft.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flight {
    /// The device: the aircraft's ICAO address.
    pub(super) device: String,
    callsign: String,
    /// In the order of time. Invariant: not empty.
    pub(super) points: Vec<Point>,
}

/// A recording. Invariant: there is a flight.
#[derive(Debug)]
pub(super) struct Recording {
    /// In the order of their beginnings.
    pub(super) flights: Vec<Flight>,
    /// Time of the first row.
    pub(super) begin: u64,
    /// Time of the last row.
    pub(super) end: u64,
}

impl Flight {
    /// Time of its first row.
    pub(super) fn begin(&self) -> u64 {
        self.points.first().map_or(0, |point| point.at)
    }

    /// Time of its last row.
    pub(super) fn end(&self) -> u64 {
        self.points.last().map_or(0, |point| point.at)
    }

    /// What the aircraft says at a point.
    pub(super) fn body(&self, point: &Point) -> Value {
        json!({
            "callsign": self.callsign,
            "latitude": point.latitude,
            "longitude": point.longitude,
            "altitude": point.altitude,
            "groundspeed": point.groundspeed,
            "track": point.track,
            "vertical_rate": point.vertical_rate,
            "timestamp": point.at,
        })
    }
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// When the file can't be read or is none; the text says where, and what to do.
    pub(super) fn read(path: &Path) -> Result<Recording, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            CliError::Failed(format!(
                "the recording {} can't be read: {error}\nhint: `examples/flights/fetch.py {}` gets it (Python, pip \
                 and a package registry are needed), or name another one with --flights",
                path.display(),
                path.parent().unwrap_or(Path::new(".")).display()
            ))
        })?;
        Recording::parse(&text).map_err(|error| {
            CliError::Failed(format!(
                "{}: {error}\nhint: remove it and run `examples/flights/fetch.py` again",
                path.display()
            ))
        })
    }

    fn parse(text: &str) -> Result<Recording, String> {
        let mut lines = text.lines().enumerate();
        let (_, head) = lines.next().ok_or("it is empty")?;
        let columns = columns(head)?;
        // By device and callsign: one aircraft may fly as two.
        let mut rows: BTreeMap<&str, Vec<(&str, Point)>> = BTreeMap::new();
        for (index, line) in lines {
            let (device, callsign, point) =
                row(line, &columns).map_err(|error| format!("line {}: {error}", index + 1))?;
            if index > ROWS_MAX {
                return Err(format!("more than {ROWS_MAX} rows"));
            }
            rows.entry(device).or_default().push((callsign, point));
        }
        let mut flights: Vec<Flight> =
            rows.into_iter().flat_map(|(device, rows)| flights_of(device, rows)).collect();
        flights.sort_by(|one, other| (one.begin(), &one.device).cmp(&(other.begin(), &other.device)));
        let begin = flights.first().map(Flight::begin).ok_or("it has no rows")?;
        let end = flights.iter().map(Flight::end).max().unwrap_or(begin);
        Ok(Recording { flights, begin, end })
    }

    /// The aircraft, each once.
    pub(super) fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<&str> = self.flights.iter().map(|flight| flight.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// How many aircraft are in the air at the busiest moment.
    pub(super) fn flights_at_once(&self) -> usize {
        let mut changes: Vec<(u64, i32)> =
            self.flights.iter().flat_map(|flight| [(flight.begin(), 1), (flight.end(), -1)]).collect();
        // Who ends where another begins counts as there.
        changes.sort_by_key(|(at, change)| (*at, -change));
        let mut now = 0;
        let counts = changes.into_iter().map(|(_, change)| {
            now += change;
            now
        });
        counts.max().map_or(0, |most| usize::try_from(most).unwrap_or(0))
    }
}

/// Where the columns of [`COLUMNS`] stand.
fn columns(head: &str) -> Result<[usize; 9], String> {
    let names: Vec<&str> = head.split(',').map(str::trim).collect();
    let mut places = [0; 9];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let found = names.iter().position(|name| *name == column);
        *place = found.ok_or_else(|| format!("it has no column {column}"))?;
    }
    Ok(places)
}

fn row<'a>(line: &'a str, columns: &[usize; 9]) -> Result<(&'a str, &'a str, Point), String> {
    let fields: Vec<&str> = line.split(',').collect();
    let field = |column: usize| {
        fields.get(columns[column]).map(|text| text.trim()).ok_or_else(|| format!("no {}", COLUMNS[column]))
    };
    let number = |column: usize| -> Result<f64, String> {
        let text = field(column)?;
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        value.ok_or_else(|| format!("{} is {text:?}, no number", COLUMNS[column]))
    };
    let at = field(0)?.parse().map_err(|_| "the timestamp is no number of milliseconds".to_owned())?;
    let device = field(1)?;
    check_device_id(device).map_err(|error| error.to_string())?;
    let point = Point {
        at,
        latitude: number(3)?,
        longitude: number(4)?,
        altitude: number(5)?,
        groundspeed: number(6)?,
        track: number(7)?,
        vertical_rate: number(8)?,
    };
    Ok((device, field(2)?, point))
}

/// Cuts the rows of one aircraft into flights.
fn flights_of(device: &str, mut rows: Vec<(&str, Point)>) -> Vec<Flight> {
    rows.sort_by_key(|(_, point)| point.at);
    let mut flights: Vec<Flight> = Vec::new();
    for (callsign, point) in rows {
        match flights.last_mut() {
            Some(flight) if flight.callsign == callsign && point.at - flight.end() <= SILENCE_MS => {
                flight.points.push(point);
            }
            _ => flights.push(Flight {
                device: device.to_owned(),
                callsign: callsign.to_owned(),
                points: vec![point],
            }),
        }
    }
    flights
}

/// A recording for tests: each flight is its device, its callsign and the seconds of its rows.
#[cfg(test)]
pub(super) fn recorded(flights: &[(&str, &str, &[u64])]) -> Recording {
    let mut text = COLUMNS.join(",") + "\n";
    for (device, callsign, seconds) in flights {
        for second in *seconds {
            text += &format!("{},{device},{callsign},46.5,6.25,30000,400.5,90,-128\n", second * 1000);
        }
    }
    Recording::parse(&text).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows become flights: cut at silences and at other callsigns, in the order of their beginnings.
    #[test]
    fn flights() {
        let recording = recorded(&[
            ("b", "SWR1", &[10, 20, 330, 631, 641]),
            ("a", "EZY2", &[0, 10]),
            ("a", "EZY3", &[20]),
        ]);
        let shown: Vec<(&str, &str, u64, usize)> = recording
            .flights
            .iter()
            .map(|flight| (&*flight.device, &*flight.callsign, flight.begin() / 1000, flight.points.len()))
            .collect();
        let expected =
            [("a", "EZY2", 0, 2), ("b", "SWR1", 10, 2), ("a", "EZY3", 20, 1), ("b", "SWR1", 330, 1)];
        // 310 seconds of silence are too long, 300 are not.
        assert_eq!(shown[..4], expected);
        assert_eq!(shown[4..], [("b", "SWR1", 631, 2)]);
        assert_eq!((recording.begin, recording.end), (0, 641_000));
        assert_eq!(recording.devices(), ["a", "b"]);
        assert_eq!(recorded(&[("a", "x", &[0, 300])]).flights.len(), 1);
    }

    /// The busiest moment counts who ends in the instant in which another begins.
    #[test]
    fn busiest_moment() {
        let recording =
            recorded(&[("a", "x", &[0, 10]), ("b", "x", &[10, 20]), ("c", "x", &[5, 6]), ("d", "x", &[100])]);
        assert_eq!(recording.flights_at_once(), 2);
    }

    /// What an aircraft says: the fields that the page, the functions and readers know.
    #[test]
    fn bodies() {
        let recording = recorded(&[("a", "SWR7", &[1_533_099_600])]);
        let flight = &recording.flights[0];
        let expected = json!({"callsign": "SWR7", "latitude": 46.5, "longitude": 6.25, "altitude": 30000.0,
            "groundspeed": 400.5, "track": 90.0, "vertical_rate": -128.0, "timestamp": 1_533_099_600_000u64});
        assert_eq!(flight.body(&flight.points[0]), expected);
    }

    /// A file of another kind is refused with its line.
    #[test]
    fn refusals() {
        let head = COLUMNS.join(",");
        for (text, part) in [
            (String::new(), "empty"),
            ("a,b\n".to_owned(), "no column timestamp"),
            (head.clone(), "no rows"),
            (format!("{head}\n1,a,b,1,2,3,4,5\n"), "line 2: no vertical_rate"),
            (format!("{head}\nx,a,b,1,2,3,4,5,6\n"), "line 2: the timestamp"),
            (format!("{head}\n1,a,b,1,2,3,4,5,6\n1,a,b,1,nan,3,4,5,6\n"), "line 3: longitude is \"nan\""),
            (format!("{head}\n1,a/b,b,1,2,3,4,5,6\n"), "not allowed"),
        ] {
            let error = Recording::parse(&text).map(|_| ()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = Recording::read(Path::new("/gone/flights.csv")).unwrap_err().to_string();
        assert!(error.contains("fetch.py /gone"), "{error}");
    }
}
