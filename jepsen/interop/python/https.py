"""The HTTPS port without an SDK: what clients send that no public SDK here does, and what shares port 443."""

import base64
import json
import socket
import ssl
import threading

from kit import case, equal, hub, main, primary_key, properties, records, runner, send_command, system, token
from kit_device import new_device
from kit_raw import opened


def as_device(identity, method, path, **options):
    text = token(identity["deviceId"], primary_key(identity), 600)
    return runner.rest(method=method, path=path, token=text, policy=None, **options)


@case("https.send")
def sends():
    """One message: system properties by header, application properties by `iothub-app-`."""
    identity = new_device("http-send")
    device_id = identity["deviceId"]
    headers = {
        "IoTHub-MessageId": "m1",
        "iothub-correlationid": "c1",
        "iothub-contenttype": "application/json",
        "iothub-contentencoding": "utf-8",
        "iothub-app-colour": "blue",
        "iothub-to": f"/devices/{device_id}/messages/events",
    }
    answer = as_device(
        identity, "POST", f"/devices/{device_id}/messages/events", body='{"a":1}', headers=headers
    )
    equal(answer["status"], 204, answer["body"][:200])
    record = records(device_id, 1)[0]
    equal((record["body"], properties(record)), ('{"a":1}', {"colour": "blue"}), "record")
    found = system(record)
    equal(
        [found.get(name) for name in ("message-id", "correlation-id", "content-type", "content-encoding")],
        ["m1", "c1", "application/json", "utf-8"],
        "system properties",
    )


@case("https.same_stamps")
def same_stamps():
    """What the hub adds to a record doesn't depend on the protocol that brought it."""
    identity = new_device("http-stamps")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.publish(f"devices/{device_id}/messages/events/", "by mqtt")
    device.close()
    answer = as_device(identity, "POST", f"/devices/{device_id}/messages/events", body="by https")
    equal(answer["status"], 204, answer["body"][:200])
    by_mqtt, by_https = records(device_id, 2)
    equal(system(by_https), system(by_mqtt), "system properties of the same device")


@case("https.send_batch")
def sends_batch():
    """`base64Encoded` is true unless said otherwise; a broken batch is a 400 and stores nothing."""
    identity = new_device("http-batch")
    device_id = identity["deviceId"]
    path, headers = f"/devices/{device_id}/messages/events", {
        "Content-Type": "application/vnd.microsoft.iothub.json"
    }
    batch = [
        {"body": base64.b64encode(b"one").decode(), "properties": {"iothub-app-n": "1"}},
        {"body": "two", "base64Encoded": False},
        {"body": base64.b64encode(b"three").decode(), "base64Encoded": True},
    ]
    equal(as_device(identity, "POST", path, body=json.dumps(batch), headers=headers)["status"], 204, "batch")
    found = records(device_id, 3)
    equal([record["body"] for record in found], ["one", "two", "three"], "bodies")
    equal(properties(found[0]), {"n": "1"}, "properties")
    for broken in ("[", '{"body":"x"}', '[{"body":"***"}]', "[]x"):
        equal(as_device(identity, "POST", path, body=broken, headers=headers)["status"], 400, broken)
    equal(len(runner.records(device=device_id, count=4, timeout_s=1)), 3, "records")


@case("https.commands")
def receives_commands():
    """Poll, complete, abandon, reject; the quoted ETag is the lock; a settled lock is 412."""
    identity = new_device("http-c2d")
    device_id = identity["deviceId"]
    base = f"/devices/{device_id}/messages/devicebound"

    def poll():
        answer = as_device(identity, "GET", base)
        if answer["status"] == 204:
            return None, None
        equal(answer["status"], 200, answer["body"])
        tag = answer["headers"]["etag"]
        assert tag.startswith('"') and tag.endswith('"'), tag
        return answer, tag.strip('"')

    equal(poll()[0], None, "an empty queue")
    send_command(device_id, "first", {"iothub-messageid": "m1", "iothub-app-x": "y"})
    send_command(device_id, "second")
    answer, lock = poll()
    named = answer["headers"]
    equal(
        (answer["body"], named["iothub-messageid"], named["iothub-app-x"], named["iothub-deliverycount"]),
        ("first", "m1", "y", "0"),
        "first",
    )
    assert named["iothub-to"].lower().startswith(f"/devices/{device_id.lower()}/messages/devicebound"), named[
        "iothub-to"
    ]
    equal(as_device(identity, "POST", f"{base}/{lock}/abandon")["status"], 204, "abandon")
    answer, lock = poll()
    equal(
        (answer["body"], answer["headers"]["iothub-deliverycount"]), ("first", "1"), "again after the abandon"
    )
    equal(
        as_device(identity, "DELETE", f"{base}/{lock}", headers={"If-Match": lock})["status"], 204, "complete"
    )
    equal(as_device(identity, "DELETE", f"{base}/{lock}")["status"], 412, "a lock that is settled")
    answer, lock = poll()
    equal(answer["body"], "second", "second")
    equal(poll()[0], None, "both are settled or locked")
    equal(
        as_device(identity, "DELETE", f"{base}/{lock}?reject=true&api-version=2020-09-30")["status"],
        204,
        "reject",
    )
    equal(poll()[0], None, "an empty queue")


@case("https.routing")
def routing():
    """Paths in any case, a trailing slash, any api-version from 2016-11-14 on; without one 400."""
    identity = new_device("http-route")
    device_id = identity["deviceId"]
    for path in (
        f"/devices/{device_id}",
        f"/Devices/{device_id}/",
        f"/devices/{device_id}?api-version=2016-11-14",
        f"/devices/{device_id}?api-version=2024-03-31",
    ):
        equal(runner.rest(method="GET", path=path)["status"], 200, path)
    equal(runner.rest(method="GET", path="/devices/?top=1")["status"], 200, "a list with a slash")
    equal(
        runner.rest(method="GET", path=f"/devices/{device_id}?not-api-version")["status"],
        400,
        "no api-version",
    )
    equal(runner.rest(method="GET", path="/nothing/here")["status"], 404, "an unknown path")
    answer = runner.rest(method="GET", path="/devices/nobody-here")
    equal(
        (answer["status"], answer["headers"]["iothub-errorcode"]),
        (404, "DeviceNotFound"),
        "an unknown device",
    )
    assert answer["headers"]["content-type"].startswith("application/json"), answer["headers"]
    message = json.loads(answer["body"])["Message"]
    assert message.startswith("ErrorCode:DeviceNotFound;") and message.count(";") == 1, message


@case("https.refused")
def refused():
    """No token, a wrong one, one of another device, a policy without the right."""
    identity, other = new_device("http-refused"), new_device("http-other")
    path = f"/devices/{identity['deviceId']}/messages/events"
    equal(runner.rest(method="POST", path=path, body="x", policy=None)["status"], 401, "no token")
    equal(as_device(other, "POST", path, body="x")["status"], 401, "a token of another device")
    equal(
        runner.rest(method="POST", path=path, body="x", policy="registryRead")["status"],
        401,
        "a policy without DeviceConnect",
    )
    equal(
        as_device(identity, "GET", f"/devices/{identity['deviceId']}")["status"],
        401,
        "a device reads the registry",
    )
    equal(runner.records(device=identity["deviceId"], count=1, timeout_s=1), [], "records")


@case("https.too_large")
def too_large():
    identity = new_device("http-large")
    path = f"/devices/{identity['deviceId']}/messages/events"
    equal(as_device(identity, "POST", path, body="x" * 262_144)["status"], 204, "256 KiB")
    equal(as_device(identity, "POST", path, body="x" * 262_145)["status"], 413, "one more")


def handshake(subprotocols, more=""):
    """A WebSocket upgrade by hand. Gives the head of the answer."""
    context = ssl.create_default_context(cafile=hub()["authority"])
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", 443), 30), server_hostname="localhost"
    ) as stream:
        stream.sendall(
            (
                f"GET /$iothub/websocket{more} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{subprotocols}\r\n"
            ).encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := stream.recv(4096)):
                break
            head += chunk
    lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    return lines[0], lines[1:]


@case("https.websocket_upgrade")
def websocket_upgrade():
    """The subprotocol is echoed, headers are spelled as paho reads them, Java's query key is no hindrance."""
    for more in ("", "?iothub-no-client-cert=true"):
        status, lines = handshake("Sec-WebSocket-Protocol: mqtt\r\n", more)
        assert status.startswith("HTTP/1.1 101 "), status
        named = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines}
        equal(named["sec-websocket-protocol"], "mqtt", "subprotocol")
        equal(
            named["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the accept value of RFC 6455, 1.3"
        )
        assert "upgrade" in named["connection"].lower(), named
    assert not handshake("Sec-WebSocket-Protocol: unknown\r\n")[0].startswith(
        "HTTP/1.1 101"
    ), "an unknown subprotocol was taken"


@case("https.one_port_for_all")
def one_port():
    """Port 443 serves HTTPS and MQTT over WebSocket at once, on TLS 1.2 and 1.3; names and address are in the certificate."""
    identity, answers = new_device("http-demux"), []

    def upgrade():
        answers.append(handshake("Sec-WebSocket-Protocol: mqtt\r\n")[0])

    def send():
        answers.append(
            as_device(identity, "POST", f"/devices/{identity['deviceId']}/messages/events", body="x")[
                "status"
            ]
        )

    threads = [threading.Thread(target=call) for call in (upgrade, send) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    equal(sum(answer == 204 for answer in answers), 5, f"posts of {answers}")
    equal(sum(str(answer).startswith("HTTP/1.1 101") for answer in answers), 5, "upgrades")
    for port in (443, 8883):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for name in ("localhost", "127.0.0.1"):
                context = ssl.create_default_context(cafile=hub()["authority"])
                context.minimum_version = context.maximum_version = version
                with context.wrap_socket(
                    socket.create_connection(("127.0.0.1", port), 30), server_hostname=name
                ) as stream:
                    equal(
                        stream.version(),
                        "TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3",
                        f"TLS of {name}:{port}",
                    )


main()
