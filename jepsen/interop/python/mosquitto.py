"""`mosquitto_pub` and `mosquitto_sub`, as in the public MQTT walk-throughs: no SDK, a token on the command line."""

import subprocess

from kit import case, equal, hub, main, primary_key, properties, records, send_command, token
from kit_device import new_device
from kit_raw import user_of


def command(program, identity, *more):
    device_id = identity["deviceId"]
    return [
        program,
        "-h",
        "localhost",
        "-p",
        "8883",
        "--cafile",
        hub()["authority"],
        "-V",
        "mqttv311",
        "-i",
        device_id,
        "-u",
        user_of(device_id),
        "-P",
        token(device_id, primary_key(identity), 600),
        *more,
    ]


@case("mosquitto.pub")
def publishes():
    identity = new_device("mosq-pub")
    device_id = identity["deviceId"]
    topic = f"devices/{device_id}/messages/events/colour=blue&%24.ct=text%2Fplain"
    done = subprocess.run(
        command("mosquitto_pub", identity, "-q", "1", "-t", topic, "-m", "hello"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    equal(done.returncode, 0, f"mosquitto_pub: {done.stderr}")
    record = records(device_id, 1)[0]
    equal((record["body"], properties(record)), ("hello", {"colour": "blue"}), "record")


@case("mosquitto.sub")
def subscribes():
    """A persistent session (-c) gets what was queued before, and the call ends after one message (-C 1)."""
    identity = new_device("mosq-sub")
    device_id = identity["deviceId"]
    send_command(device_id, "to mosquitto")
    done = subprocess.run(
        command(
            "mosquitto_sub",
            identity,
            "-c",
            "-q",
            "1",
            "-C",
            "1",
            "-t",
            f"devices/{device_id}/messages/devicebound/#",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    equal((done.returncode, done.stdout), (0, "to mosquitto\n"), f"mosquitto_sub: {done.stderr}")


@case("mosquitto.refused")
def refused():
    """A wrong key: `mosquitto_pub` ends with CONNACK 5 as its code."""
    identity, other = new_device("mosq-bad"), new_device("mosq-other")
    identity["authentication"] = other["authentication"]
    topic = f"devices/{identity['deviceId']}/messages/events/"
    done = subprocess.run(
        command("mosquitto_pub", identity, "-q", "1", "-t", topic, "-m", "x"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    equal(done.returncode, 5, f"mosquitto_pub: {done.stderr}")


main()
