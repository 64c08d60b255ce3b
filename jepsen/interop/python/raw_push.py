"""Commands, methods and twins as bare MQTT: the exact topics and payloads that parsers of some SDK depend on."""

import json
import re
import threading
import urllib.parse

from kit import Inbox, case, equal, expect, invoke, main, patch_desired, runner, send_command, until
from kit_device import new_device
from kit_raw import opened

SEVEN_DECIMALS = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$")


def bag_of(topic, device_id):
    """The property bag of a command topic. Every pair must have a key and a value, and no raw slash."""
    prefix = f"devices/{device_id}/messages/devicebound/"
    assert topic.startswith(prefix), topic
    bag = topic.removeprefix(prefix)
    assert "/" not in bag, f"a raw slash in {bag}"
    pairs = [pair.split("=") for pair in bag.split("&")]
    assert all(len(pair) == 2 for pair in pairs), f"not key=value everywhere: {bag}"
    return bag, {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, value in pairs}


@case("raw.command.topic")
def command_topic():
    """`%24.to` is always there (.NET dies of an empty bag), keys and values are encoded, dates have seven decimals."""
    identity = new_device("raw-c2d")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe(f"devices/{device_id}/messages/devicebound/#")
    send_command(device_id, "bare")
    bag, found = bag_of(device.message("command")[0], device_id)
    assert f"%24.to=%2Fdevices%2F{device_id}%2Fmessages%2FdeviceBound" in bag, bag
    headers = {
        "iothub-messageid": "m=1,%",
        "iothub-correlationid": "c 1",
        "iothub-userid": "u",
        "iothub-ack": "none",
        "iothub-contenttype": "application/json",
        "iothub-contentencoding": "utf-8",
        "iothub-expiry": "2036-01-01T00:00:00Z",
        "iothub-app-a&b%": "1=2&3/4",
        "iothub-app-x": "+ %",
    }
    send_command(device_id, '{"a":1}', headers)
    topic, payload = device.message("command")
    bag, found = bag_of(topic, device_id)
    equal(payload, b'{"a":1}', "payload")
    wanted = {
        "$.mid": "m=1,%",
        "$.cid": "c 1",
        "$.uid": "u",
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "a&b%": "1=2&3/4",
        "x": "+ %",
    }
    equal({name: found.get(name) for name in wanted}, wanted, f"properties in {bag}")
    assert SEVEN_DECIMALS.match(found["$.exp"]), found["$.exp"]
    device.close()


@case("raw.command.qos")
def command_qos():
    """A command has QoS 1 when that was granted; without PUBACK it comes again after a reconnect, then no more."""
    identity = new_device("raw-c2dqos")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe(f"devices/{device_id}/messages/devicebound/#")
    got = Inbox()
    # paho acknowledges after this returns: it never does while the connection is about to die.
    hanging = threading.Event()
    device.client.on_message = lambda _c, _u, message: (
        got.put((message.qos, message.payload)),
        device.drop(),
        hanging.wait(1),
    )
    send_command(device_id, "again")
    equal(got.next("command"), (1, b"again"), "first delivery")
    device.closed.next("end")
    device = opened(identity)
    equal(device.message("second delivery")[1], b"again", "payload")
    until("completed", lambda: expect("GET", f"/devices/{device_id}")["cloudToDeviceMessageCount"] == 0)
    device.drop()
    device = opened(identity)
    device.publish(f"devices/{device_id}/messages/events/", "x")
    assert device.messages.empty(), "an acknowledged command came again"
    device.close()


@case("raw.command.order_and_limits")
def command_queue():
    """A queue holds 50, in order; the next is refused with 403004; a purge empties it."""
    identity = new_device("raw-queue")
    device_id = identity["deviceId"]
    for number in range(50):
        send_command(device_id, f"{number}")
    answer = runner.rest(
        method="POST", path=f"/devices/{device_id}/messages/devicebound", body="51", policy="service"
    )
    equal(answer["status"], 403, f"command 51 ({answer['body'][:200]})")
    assert "DeviceMaximumQueueDepthExceeded" in answer["body"], answer["body"]
    device = opened(identity)
    device.subscribe(f"devices/{device_id}/messages/devicebound/#")
    equal([device.message("command")[1].decode() for _ in range(50)], [str(n) for n in range(50)], "order")
    device.close()
    too_large = runner.rest(
        method="POST", path=f"/devices/{device_id}/messages/devicebound", body="x" * 65_537, policy="service"
    )
    equal(too_large["status"], 413, "a command of 64 KiB and one byte")


@case("raw.command.unsubscribed")
def command_waits_for_a_subscription():
    identity = new_device("raw-unsub")
    device_id = identity["deviceId"]
    commands = f"devices/{device_id}/messages/devicebound/#"
    device = opened(identity)
    device.subscribe(commands)
    device.unsubscribe(commands)
    send_command(device_id, "later")
    device.publish(f"devices/{device_id}/messages/events/", "x")
    assert device.messages.empty(), "pushed without a subscription"
    device.subscribe(commands)
    equal(device.message("command")[1], b"later", "payload")
    device.close()


def method_in_background(device_id, name, payload=None):
    """Calls a method while the case plays the device. Gives an inbox with the answer."""
    answer = Inbox()
    threading.Thread(target=lambda: answer.put(invoke(device_id, name, payload)), daemon=True).start()
    return answer


@case("raw.method.wire")
def method_wire():
    """`$rid` ends the topic and needs no escape; no payload is `null`; status may be negative, an empty answer is null."""
    identity = new_device("raw-method")
    device = opened(identity)
    device.subscribe(("$iothub/methods/POST/#", 0))
    for payload, wanted, status, reply, shown in (
        (None, b"null", 200, b'{"a":1}', {"a": 1}),
        ({"x": "ü"}, None, -7, b"", None),
        (5, b"5", 404, b"null", None),
    ):
        answer = method_in_background(identity["deviceId"], "set.rate-1", payload)
        topic, got = device.message("method request")
        found = re.fullmatch(r"\$iothub/methods/POST/set\.rate-1/\?\$rid=([A-Za-z0-9-]+)", topic)
        assert found, topic
        if wanted is not None:
            equal(got, wanted, "request payload")
        else:
            equal(json.loads(got), payload, "request payload")
        device.publish(f"$iothub/methods/res/{status}/?$rid={found[1]}", reply)
        equal(answer.next("answer"), (200, {"status": status, "payload": shown}), "answer to the service")
    # An answer to nothing is dropped quietly.
    device.publish("$iothub/methods/res/200/?$rid=unknown", b"{}")
    device.publish(f"devices/{identity['deviceId']}/messages/events/", "alive")
    device.close()


@case("raw.method.bad_answer")
def method_bad_answer():
    """An answer that is not JSON is an error of the call (502), not of the connection."""
    identity = new_device("raw-badmethod")
    device = opened(identity)
    device.subscribe(("$iothub/methods/POST/#", 1))
    answer = method_in_background(identity["deviceId"], "m")
    rid = device.message("method request")[0].rpartition("$rid=")[2]
    device.publish(f"$iothub/methods/res/200/?$rid={rid}", b"not json")
    status, _ = answer.next("answer")
    equal(status, 502, "status of the call")
    device.publish(f"devices/{identity['deviceId']}/messages/events/", "alive")
    device.close()


@case("raw.method.concurrent")
def methods_at_once():
    """Five calls at once get the answers that belong to them, though the device answers in reverse."""
    identity = new_device("raw-methods")
    device = opened(identity)
    device.subscribe("$iothub/methods/POST/#")
    answers = [method_in_background(identity["deviceId"], "m", number) for number in range(5)]
    requests = [device.message("method request") for _ in range(5)]
    for topic, payload in reversed(requests):
        device.publish(f"$iothub/methods/res/200/?$rid={topic.rpartition('$rid=')[2]}", payload)
    equal([answer.next("answer")[1]["payload"] for answer in answers], list(range(5)), "answers")
    device.close()


def twin_request(device, topic, payload):
    """One twin request. Gives topic and payload of its reply."""
    device.publish(topic, payload)
    return device.message(f"reply to {topic}")


@case("raw.twin.wire")
def twin_wire():
    """Reply topics byte for byte: `$rid` first and echoed, `$version` after it, an empty body for 204."""
    identity = new_device("raw-twin")
    device = opened(identity)
    device.subscribe(("$iothub/twin/res/#", 0))
    for rid in ("1", "f0e2-ab", "A%20b"):
        topic, payload = twin_request(device, f"$iothub/twin/GET/?$rid={rid}", b"")
        equal(topic, f"$iothub/twin/res/200/?$rid={rid}", "topic")
        equal(json.loads(payload), {"desired": {"$version": 1}, "reported": {"$version": 1}}, "twin")
    report = "$iothub/twin/PATCH/properties/reported/?$rid="
    equal(
        twin_request(device, f"{report}2", b'{"a":1}'),
        ("$iothub/twin/res/204/?$rid=2&$version=2", b""),
        "report",
    )
    equal(
        twin_request(device, f"{report}3&$version=2", b'{"a":2}'),
        ("$iothub/twin/res/204/?$rid=3&$version=3", b""),
        "report on condition of the version, as Java sends it",
    )
    topic, payload = twin_request(device, f"{report}4&$version=2", b'{"a":3}')
    equal(topic.split("?")[0], "$iothub/twin/res/412/", "a version of the past")
    assert json.loads(payload)["errorCode"], payload
    device.close()


@case("raw.twin.errors")
def twin_errors():
    """Every refusal is a 400 whose body has `errorCode`, `message`, `trackingId` and `timestampUtc`; Node sees no other sign."""
    identity = new_device("raw-twinerr")
    device = opened(identity)
    device.subscribe(("$iothub/twin/res/#", 0))
    # Ten nested objects are allowed, whatever the last of them holds.
    deep = {"leaf": 1}
    for level in range(11):
        deep = {f"l{level}": deep}
    bad = [
        b"",
        b"not json",
        b"[1]",
        b'"text"',
        json.dumps(deep).encode(),
        json.dumps({f"k{n}": "x" * 4000 for n in range(9)}).encode(),
        b'{"a.b":1}',
        b'{"a b":1}',
        b'{"$x":1}',
        json.dumps({"k": "x" * 4097}).encode(),
        b'{"n":4503599627370496}',
        json.dumps({"k" * 1025: 1}).encode(),
    ]
    for number, payload in enumerate(bad):
        topic, body = twin_request(device, f"$iothub/twin/PATCH/properties/reported/?$rid={number}", payload)
        equal(topic, f"$iothub/twin/res/400/?$rid={number}", f"reply to {payload[:40]!r}")
        error = json.loads(body)
        assert (
            400000 <= error["errorCode"] < 500000
            and error["message"]
            and error["trackingId"]
            and error["timestampUtc"]
        ), error
    _, twin = twin_request(device, "$iothub/twin/GET/?$rid=end", b"")
    equal(json.loads(twin)["reported"], {"$version": 1}, "nothing has changed")
    ten = {"leaf": 1}
    for level in range(10):
        ten = {f"l{level}": ten}
    topic, _ = twin_request(
        device, "$iothub/twin/PATCH/properties/reported/?$rid=ten", json.dumps(ten).encode()
    )
    equal(topic, "$iothub/twin/res/204/?$rid=ten&$version=2", "ten levels")
    device.close()


@case("raw.twin.unsubscribed")
def twin_without_subscription():
    """A report without the reply filter is carried out and answered by nothing."""
    identity = new_device("raw-twinmute")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":1}')
    until("reported", lambda: expect("GET", f"/twins/{device_id}")["properties"]["reported"].get("a") == 1)
    device.subscribe("$iothub/twin/res/#")
    topic, _ = twin_request(device, "$iothub/twin/GET/?$rid=2", b" ")
    equal(topic, "$iothub/twin/res/200/?$rid=2", "the first reply")
    device.close()


@case("raw.twin.desired_topic")
def desired_topic():
    """`?$version=` in the topic and `$version` in the body; only for who is connected and subscribed."""
    identity = new_device("raw-desired")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe("$iothub/twin/PATCH/properties/desired/#")
    version = patch_desired(device_id, {"a": {"b": 1}})
    topic, payload = device.message("desired change")
    equal(topic, f"$iothub/twin/PATCH/properties/desired/?$version={version}", "topic")
    equal(json.loads(payload), {"a": {"b": 1}, "$version": version}, "body")
    device.close()
    patch_desired(device_id, {"while": "away"})
    device = opened(identity)
    version = patch_desired(device_id, {"back": True})
    topic, payload = device.message("desired change")
    equal(json.loads(payload), {"back": True, "$version": version}, "changes of the absence are not queued")
    device.close()


@case("raw.twin.get_after_patch")
def get_is_not_older():
    """A GET that follows a notification on the same connection is never older than it."""
    identity = new_device("raw-linear")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe("$iothub/twin/PATCH/properties/desired/#", "$iothub/twin/res/#")
    for number in range(20):
        patch_desired(device_id, {"n": number})
        topic, payload = device.message("desired change")
        noticed = json.loads(payload)["$version"]
        _, twin = twin_request(device, f"$iothub/twin/GET/?$rid={number}", b"")
        found = json.loads(twin)["desired"]
        assert found["$version"] >= noticed and found["n"] == number, (found, noticed)
    device.close()


main()
