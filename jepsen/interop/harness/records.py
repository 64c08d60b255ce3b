"""What devices have sent, as the hub has stored it: `fleetline device monitor --json`, kept in memory.

One reader per hub, started by `hub.py`. Cases ask through `control.py` for the records of a device.
The reader is started again from the earliest offset when it ends (a node was killed under it), and
records are known by partition and offset, so none counts twice.

A line has `partition`, `offset`, `device`, `body` (or `bodyBase64`), `properties` and `system`; the latter by
the names that the tool shows (routed names; `$.on` for the output of a module). What the hub itself says about
devices (registered, connected, twin changed) tells where a device is, and is no record.
"""

import json
import subprocess
import threading
import time

# Application properties that every record of the hub itself has.
OF_EVENTS = ("opType", "operationTimestamp", "iothub-message-schema")


class Reader:
    """Follows the stream of a hub until closed."""

    def __init__(self, binary, context, log):
        self._command = [
            binary,
            "device",
            "monitor",
            "--context",
            context,
            "--from",
            "earliest",
            "--events",
            "--json",
        ]
        self._log = log
        self._records, self._made = {}, {}
        # Where each device is, once the stream has said anything about it.
        self.partitions = {}
        self._changed = threading.Condition()
        self._closed = False
        self._process = None
        threading.Thread(target=self._run, daemon=True).start()

    def of_device(self, device, count, timeout_s):
        """The records of `device` in the order of their offsets, as soon as there are `count` of them.

        Gives what there is after `timeout_s`: the caller compares, and says what is missing.
        """
        return self._wait(self._records, lambda record: record["device"] == device, count, timeout_s)

    def of_source(self, device, source, count, timeout_s):
        """The same of records that functions have made (`functionPoison`, `functionOutput`)."""

        def fits(record):
            return record["device"] == device and record["system"].get("iothub-message-source") == source

        return self._wait(self._made, fits, count, timeout_s)

    def _wait(self, records, fits, count, timeout_s):
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [record for record in records.values() if fits(record)]
                left = end - time.monotonic()
                if len(found) >= count or left <= 0:
                    return sorted(found, key=lambda record: (record["partition"], record["offset"]))
                self._changed.wait(left)

    def close(self):
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def _run(self):
        with open(self._log, "ab") as log:
            while not self._closed:
                self._process = subprocess.Popen(
                    self._command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL
                )
                for line in self._process.stdout:
                    self._add(json.loads(line))
                self._process.wait()
                time.sleep(0.3)

    def _add(self, record):
        record.setdefault("body", record.get("bodyBase64"))
        self.partitions[record["device"]] = record["partition"]
        if _is_event(record):
            if record["system"].get("iothub-message-source", "").startswith("function"):
                with self._changed:
                    self._made[(record["partition"], record["offset"])] = record
                    self._changed.notify_all()
            return
        with self._changed:
            self._records[(record["partition"], record["offset"])] = record
            self._changed.notify_all()


def _is_event(record):
    """Whether the hub itself says it: by its source, or by what all its events have."""
    source = record["system"].get("iothub-message-source")
    if source is not None:
        return source != "Telemetry"
    return all(name in record["properties"] for name in OF_EVENTS)
