"""`azure-iot-hub` (Python), AMQP part: commands by `send_c2d_message`, over TCP and WebSocket.

The package is built on `uamqp`, which takes its authorities from `certifi` and has no way to name others: the
cases give `certifi` the hub's authority, as an administrator would who adds it to the machine's bundle.
"""

import os

import certifi

from kit import case, equal, hub, main

if "REQUESTS_CA_BUNDLE" in os.environ:
    certifi.where = lambda: os.environ["REQUESTS_CA_BUNDLE"]

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from uamqp import TransportType  # noqa: E402

from kit_device import client, listen, new_device, within  # noqa: E402

TRANSPORTS = {"tcp": TransportType.Amqp, "ws": TransportType.AmqpOverWebsocket}


def both(name):
    """Registers a case once for each transport."""

    def register(function):
        for label, transport in TRANSPORTS.items():
            case(f"service.amqp.python.{label}.{name}")(lambda chosen=transport: function(chosen))
        return function

    return register


def manager(transport, policy="service"):
    return IoTHubRegistryManager.from_connection_string(hub()["connectionStrings"][policy], transport)


@both("send_c2d_message")
def send_c2d_message(transport):
    identity = new_device("py-c2d-amqp")
    device = client(identity)
    within("connect", device.connect)
    commands, _, _ = listen(device)
    service = manager(transport)
    properties = {
        "messageId": "m-1",
        "correlationId": "c-1",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "colour": "blue & green/=",
    }
    within("send", lambda: service.send_c2d_message(identity["deviceId"], '{"a": 1}', properties))
    command = commands.next("command")
    equal(command.data, b'{"a": 1}', "body")
    equal((command.message_id, command.correlation_id), ("m-1", "c-1"), "ids")
    equal((command.content_type, command.content_encoding), ("application/json", "utf-8"), "content")
    equal(command.custom_properties["colour"], "blue & green/=", "application property")
    for number in range(10):
        body = f"n{number}"
        within("send", lambda text=body: service.send_c2d_message(identity["deviceId"], text))
        equal(commands.next(body).data, body.encode(), "order")
    within("shutdown", device.shutdown)


@both("refused")
def refused(transport):
    """A device that isn't there, and a policy that may not."""
    for what, device, policy in (
        ("an unknown device", "nobody-here", "service"),
        ("a policy of devices", new_device("py-c2d-no")["deviceId"], "device"),
    ):
        try:
            within(what, lambda: manager(transport, policy).send_c2d_message(device, "x"))
        except AssertionError:
            raise
        except Exception as error:  # uamqp has many kinds
            print(what, repr(error))
            continue
        raise AssertionError(f"{what}: succeeded")


main()
