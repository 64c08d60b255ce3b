"""What devices have sent, as the hub has stored it: `fleetline stream consume --json`, kept in memory.

The stream also carries what the hub says about devices (registered, connected, twin changed); that is left out.

One reader per hub, started by `hub.py`. Cases ask through `control.py` for the records of a device.
The reader is started again from the earliest offset when it ends (a node was killed under it), and
records are known by partition and offset, so none counts twice.

A line is `{"partition", "offset", "device", "body", "enqueued_ms"}`, and for the cases that look at
properties also `"system"` (routed names, see `SYSTEM_NAMES`) and `"properties"`.
"""

import json
import subprocess
import threading
import time

# The stored numbers of system properties and the names under which routes and readers know them.
SYSTEM_NAMES = {
    1: "message-id", 2: "correlation-id", 3: "user-id", 4: "to", 5: "absolute-expiry-time",
    6: "content-type", 7: "content-encoding", 8: "iothub-creation-time-utc", 9: "iothub-message-schema",
    10: "iothub-outputname", 11: "iothub-inputname", 12: "dt-subject", 13: "iothub-interface-id",
    14: "dt-dataschema", 15: "iothub-ack", 16: "iothub-operation", 17: "iothub-connection-device-id",
    18: "iothub-connection-module-id", 19: "diagnostic-id", 20: "correlation-context",
    21: "iothub-connection-auth-method", 22: "iothub-connection-auth-generation-id",
    23: "iothub-message-source", 24: "iothub-enqueuedtime",
}


def _named(system):
    if isinstance(system, list):
        system = dict(system)
    return {SYSTEM_NAMES.get(int(name), name) if str(name).isdigit() else name: value for name, value in system.items()}


class Reader:
    """Follows the stream of a hub until closed."""

    def __init__(self, binary, context, log):
        self._command = [binary, "stream", "consume", "--context", context, "--from", "earliest", "--json"]
        self._log = log
        self._records = {}
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
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [record for record in self._records.values() if _is_of(record, device)]
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
        if "system" in record:
            record["system"] = _named(record["system"])
        if isinstance(record.get("properties"), list):
            record["properties"] = dict(record["properties"])
        self.partitions[record["device"]] = record["partition"]
        if _is_event(record):
            return
        with self._changed:
            self._records[(record["partition"], record["offset"])] = record
            self._changed.notify_all()


def _is_event(record):
    """Whether the hub itself wrote it. By its source; by its shape when the reader doesn't tell the source."""
    if "system" in record:
        return record["system"].get("iothub-message-source", "Telemetry") not in ("Telemetry", "deviceMessages")
    try:
        body = json.loads(record["body"])
    except ValueError:
        return False
    return isinstance(body, dict) and (set(body) == {"sequenceNumber"} or "version" in body)


def _is_of(record, device):
    """Whether it is of the device, or, for `device/module`, of that module."""
    owner, _, module = device.partition("/")
    if record["device"] == device:
        return True
    return record["device"] == owner and record.get("system", {}).get("iothub-connection-module-id", "") == module
