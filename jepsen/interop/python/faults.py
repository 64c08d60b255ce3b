"""Faults under `azure-iot-device` (Python): connections that break, nodes that die. Kinds `relayed` and `cluster`.

This SDK subscribes once in its life. After every fault here it must still get commands, methods and
desired changes, which only a session that the hub kept can bring.
"""

import json
import threading
import time

from kit import Inbox, case, equal, main, patch_desired, records, runner, send_command, until
from kit_device import TRANSPORTS, check_reachable, client, listen, new_device, next_patch, within
from kit_raw import opened, raw

RELAYS = {"mqtt": "mqtt", "ws": "https"}
# The SDK tries again after 10 ms, then every 10 s.
RECONNECT_S = 120


def led_device(prefix):
    """A device, and the node that leads its partition; new connections go there. Gives both."""
    identity = new_device(prefix)
    node = runner.leader(device=identity["deviceId"])
    runner.target(node=node)
    return identity, node


def fail_over(node):
    """Kills a node; new connections go to the next."""
    runner.target(node=(node + 1) % runner.info()["nodes"])
    runner.kill(node=node)


def listening(identity, options):
    """A client with every subscription, shown to be reachable."""
    device = client(identity, **options)
    within("connect", device.connect)
    # Subscribes to twin replies: without that the GET which the SDK makes after a reconnect has no answer.
    within("get_twin", device.get_twin)
    inboxes = listen(device)
    check_reachable(identity, inboxes, "before")
    states = Inbox()
    device.on_connection_state_change = lambda: states.put(device.connected)
    return device, inboxes, states


def comes_back(states):
    equal(states.next("the SDK notices the break"), False, "state")
    while not states.next("connected again", RECONNECT_S):
        pass


def still_works(identity, device, inboxes, mark):
    check_reachable(identity, inboxes, mark)
    within("send", lambda: device.send_message(mark))
    until(
        f"{mark} is stored",
        lambda: mark in [record["body"] for record in runner.records(device=identity["deviceId"], count=1)],
    )


def connection_cut(options, relay):
    identity = new_device("py-cut")
    device, inboxes, states = listening(identity, options)
    for number in range(3):
        assert runner.cut(relay=relay) >= 1, "nothing was cut"
        comes_back(states)
        still_works(identity, device, inboxes, f"after cut {number}")
    within("shutdown", device.shutdown)


def node_killed(options):
    identity = new_device("py-kill")
    device, inboxes, states = listening(identity, options)
    runner.hold()
    runner.kill()
    runner.start()
    runner.release()
    comes_back(states)
    still_works(identity, device, inboxes, "after the kill")
    within("shutdown", device.shutdown)


def failover(options):
    """The node that the device is on and that leads its partition dies."""
    identity, node = led_device("py-failover")
    device, inboxes, states = listening(identity, options)
    fail_over(node)
    comes_back(states)
    still_works(identity, device, inboxes, "after the failover")
    within("shutdown", device.shutdown)


for _label, _options in TRANSPORTS.items():
    case(f"fault.python.{_label}.connection_cut", "relayed")(
        lambda options=_options, relay=RELAYS[_label]: connection_cut(options, relay)
    )
    case(f"fault.python.{_label}.node_killed", "relayed")(lambda options=_options: node_killed(options))
    case(f"cluster.python.{_label}.failover", "cluster")(lambda options=_options: failover(options))


@case("fault.python.mqtt.desired_while_away", "relayed")
def desired_while_away():
    """A desired change made while the device was away is not queued; the SDK finds it by the GET it makes on reconnect."""
    identity = new_device("py-away")
    device, (_, _, patches), states = listening(identity, {})
    runner.hold()
    runner.cut(relay="mqtt")
    equal(states.next("the SDK notices the break"), False, "state")
    # REST goes through the other relay, which is held too: it opens first, for this call only.
    runner.release()
    version = patch_desired(identity["deviceId"], {"while": "away"})
    while not states.next("connected again", RECONNECT_S):
        pass
    patch = until("the change of the absence", lambda: next_patch(patches, version))
    equal((patch["while"], patch["$version"]), ("away", version), "change")
    within("shutdown", device.shutdown)


@case("fault.python.mqtt.commands_while_down", "relayed")
def commands_survive_a_kill():
    """Commands that were queued before a SIGKILL are delivered after it, once, in order."""
    identity = new_device("py-queue")
    device_id, inbox = identity["deviceId"], Inbox()
    device = client(identity)
    within("connect", device.connect)
    device.on_message_received = inbox.put
    send_command(device_id, "first")
    equal(inbox.next("command").data, b"first", "command")
    within("disconnect", device.disconnect)
    for number in range(5):
        send_command(device_id, f"n{number}")
    runner.kill()
    runner.start()
    within("connect", device.connect)
    equal([inbox.next("command").data.decode() for _ in range(5)], [f"n{n}" for n in range(5)], "commands")
    within("shutdown", device.shutdown)


@case("fault.raw.session_after_kill", "relayed")
def session_after_kill():
    """The session is there after a SIGKILL: `session present`, filters, twin, and telemetry that was acknowledged."""
    identity = new_device("raw-kill")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe(f"devices/{device_id}/messages/devicebound/#", ("$iothub/twin/res/#", 0))
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":1}')
    equal(device.message("reply")[0], "$iothub/twin/res/204/?$rid=1&$version=2", "reply")
    for number in range(50):
        device.publish(f"devices/{device_id}/messages/events/", str(number))
    runner.kill()
    device.closed.next("end of the connection")
    runner.start()
    device = raw(identity)
    equal(device.open(), (0, 1), "resumed")
    device.publish("$iothub/twin/GET/?$rid=2", b"")
    equal(
        json.loads(device.message("reply")[1]),
        {"desired": {"$version": 1}, "reported": {"a": 1, "$version": 2}},
        "twin",
    )
    equal([record["body"] for record in records(device_id, 50)], [str(n) for n in range(50)], "records")
    device.close()


@case("cluster.python.mqtt.telemetry_survives", "cluster")
def telemetry_survives():
    """Every message that was acknowledged is stored, though its node dies under it; none needs a new client."""
    identity, node = led_device("py-survive")
    device = client(identity)
    within("connect", device.connect)
    acknowledged, stop = [], threading.Event()

    def send():
        number = 0
        while not stop.is_set():
            body = f"n{number}"
            try:
                device.send_message(body)
            except Exception as error:  # unknown or failed: it may be stored or not
                print(f"{body}: {error!r}")
                time.sleep(0.2)
            else:
                acknowledged.append(body)
            number += 1

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    until("some are acknowledged", lambda: len(acknowledged) >= 20)
    fail_over(node)
    before = len(acknowledged)
    until("more are acknowledged after the kill", lambda: len(acknowledged) >= before + 20, RECONNECT_S)
    stop.set()
    sender.join(RECONNECT_S)
    found = {
        record["body"] for record in runner.records(device=identity["deviceId"], count=len(acknowledged))
    }
    equal([body for body in acknowledged if body not in found], [], "acknowledged, not stored")
    within("shutdown", device.shutdown)


@case("cluster.raw.any_node", "cluster")
def any_node():
    """A device may connect to any node; its session, twin and commands are the same everywhere, and a takeover crosses nodes."""
    identity = new_device("raw-any")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.subscribe(f"devices/{device_id}/messages/devicebound/#", ("$iothub/twin/res/#", 0))
    for node in (1, 2, 0):
        runner.target(node=node)
        newer = raw(identity)
        equal(newer.open(), (0, 1), f"session on node {node}")
        device.expect_close(f"takeover by node {node}")
        send_command(device_id, f"on {node}")
        equal(newer.message("command")[1], f"on {node}".encode(), "command")
        newer.publish(f"devices/{device_id}/messages/events/", f"from {node}")
        device = newer
    equal([record["body"] for record in records(device_id, 3)], ["from 1", "from 2", "from 0"], "telemetry")
    device.close()


main()
