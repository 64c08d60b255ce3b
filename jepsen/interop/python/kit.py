"""What every Python case uses: naming cases, waiting, and the runner's commands.

A case is a function under `@case(name, kind)`; a file ends with `main()`. The kinds are in `harness/hub.py`.
Nothing here knows an SDK.
"""

import base64
import hashlib
import hmac
import json
import os
import queue
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

# How long an answer may take before the case says that it is missing. Not a promise of the hub: a bound for hangs.
WAIT_S = 30
_cases = {}


def case(name, kind="single"):
    """Registers a function as the case `name`."""

    def register(function):
        assert name not in _cases, f"two cases are named {name}"
        _cases[name] = (kind, function)
        return function

    return register


def main():
    """`--list`, or the name of the case to run."""
    if sys.argv[1:] == ["--list"]:
        for name, (kind, _) in _cases.items():
            print(name, kind)
        return
    code = 0
    try:
        _cases[sys.argv[1]][1]()
    except BaseException as error:  # a case may end by any error, and each is a failure
        traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"REASON {type(error).__name__}: {text[:400]}", flush=True)
        code = 1
    # SDKs leave threads behind: the process ends now, whatever they do.
    sys.stdout.flush()
    os._exit(code)


def equal(found, wanted, what):
    """Fails with both values when they differ."""
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


def until(what, check, within_s=WAIT_S):
    """Calls `check` until it gives something true, and gives that."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {within_s} s")


class Inbox:
    """Collects what callbacks bring."""

    def __init__(self):
        self._queue = queue.Queue()

    def put(self, item):
        self._queue.put(item)

    def next(self, what, within_s=WAIT_S):
        try:
            return self._queue.get(timeout=within_s)
        except queue.Empty:
            raise AssertionError(f"{what}: nothing came within {within_s} s") from None

    def empty(self):
        return self._queue.empty()


class Runner:
    """The commands of `harness/control.py`: `runner.device(prefix="x")` and so on."""

    def __getattr__(self, name):
        def call(**arguments):
            request = urllib.request.Request(
                f"{os.environ['INTEROP_CONTROL']}/{name}", json.dumps(arguments).encode()
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"runner {name}: {json.load(error)}") from None

        return call


runner = Runner()


def hub():
    """The hub's `hub.json`."""
    with open(os.environ["INTEROP_HUB"], encoding="utf-8") as file:
        return json.load(file)


def authority():
    """The text of the certificate authority, as `server_verification_cert` wants it."""
    with open(hub()["authority"], encoding="ascii") as file:
        return file.read()


def expect(method, path, wanted=(200, 201, 204), **options):
    """A REST request that must succeed. Gives the parsed body."""
    answer = runner.rest(method=method, path=path, **options)
    if answer["status"] not in wanted:
        raise AssertionError(f"{method} {path}: {answer['status']} {answer['body'][:300]}")
    return json.loads(answer["body"]) if answer["body"].strip() else None


def send_command(device, body, headers=None):
    """Puts a cloud-to-device message into the queue of a device."""
    expect(
        "POST", f"/devices/{device}/messages/devicebound", body=body, headers=headers or {}, policy="service"
    )


def invoke(device, name, payload=None, module=None, response_s=20, connect_s=0):
    """Calls a direct method. Gives status code and parsed body of the hub's answer."""
    path = f"/twins/{device}/modules/{module}/methods" if module else f"/twins/{device}/methods"
    body = {
        "methodName": name,
        "payload": payload,
        "responseTimeoutInSeconds": response_s,
        "connectTimeoutInSeconds": connect_s,
    }
    answer = runner.rest(method="POST", path=path, body=body, policy="service")
    return answer["status"], json.loads(answer["body"]) if answer["body"].strip() else None


def patch_desired(device, desired, module=None):
    """Changes desired properties. Gives the new desired version."""
    path = f"/twins/{device}/modules/{module}" if module else f"/twins/{device}"
    twin = expect(
        "PATCH",
        path,
        body={"properties": {"desired": desired}},
        headers={"If-Match": '"*"'},
        policy="service",
    )
    return twin["properties"]["desired"]["$version"]


def records(device, count):
    """The stored records of a device, exactly `count` of them."""
    found = runner.records(device=device, count=count)
    equal(len(found), count, f"stored records of {device} ({[record['body'][:40] for record in found]})")
    return found


def properties(record):
    """The application properties of a record."""
    return record["properties"]


def system(record):
    """The system properties of a record, by routed name; the device is kept as the record's key."""
    # Each record has the generation at least: none at all means that the reader hides them.
    assert record["system"], "`device monitor --json` shows no system properties"
    return {"iothub-connection-device-id": record["device"], **record["system"]}


def token(device, key, expiry_s, policy=None):
    """A token of a device (or of `device/modules/module`), valid for `expiry_s` from now."""
    resource = urllib.parse.quote(f"localhost/devices/{device}", safe="")
    expiry = int(time.time() + expiry_s)
    mac = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(mac).decode(), safe="")
    text = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"
    return text if policy is None else f"{text}&skn={policy}"


def primary_key(identity):
    """The first key of a device or module."""
    return identity["authentication"]["symmetricKey"]["primaryKey"]
