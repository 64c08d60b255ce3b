"""`azure-iot-device` (Python) as a module: outputs, inputs, methods, twin, and methods of others."""

from azure.iot.device import MethodResponse

from kit import Inbox, case, equal, expect, invoke, main, patch_desired, records, runner, system, until
from kit_device import Message, client, new_device, next_patch, within


def new_module(prefix, name="sensor"):
    device = new_device(prefix)
    return runner.module(device=device["deviceId"], module=name)


def connected(prefix, **options):
    identity = new_module(prefix)
    module = client(identity, **options)
    within("connect", module.connect)
    return identity, module


@case("python.module.send_message")
def sends():
    """send_message() of a module is stored under its device, with the module's id."""
    identity, module = connected("py-mod")
    within("send", lambda: module.send_message("from the module"))
    record = records(identity["deviceId"], 1)[0]
    equal(record["body"], "from the module", "body")
    equal(
        (system(record)["iothub-connection-device-id"], system(record)["iothub-connection-module-id"]),
        (identity["deviceId"], "sensor"),
        "sender",
    )
    within("shutdown", module.shutdown)


@case("python.module.send_message_to_output")
def sends_to_output():
    """The output's name travels as `%24.on`."""
    identity, module = connected("py-modout")
    message = Message("out")
    message.custom_properties["k"] = "v"
    within("send", lambda: module.send_message_to_output(message, "alerts"))
    record = records(identity["deviceId"], 1)[0]
    equal((record["body"], record["properties"]), ("out", {"k": "v"}), "record")
    equal(system(record)["$.on"], "alerts", "output name")
    within("shutdown", module.shutdown)


@case("python.module.inputs")
def accepts_inputs():
    """on_message_received subscribes to inputs: accepted, and the connection lives on. Nothing routes to inputs here."""
    identity, module = connected("py-modin")
    module.on_message_received = lambda message: None
    within("send after the subscription", lambda: module.send_message("alive"))
    equal(records(identity["deviceId"], 1)[0]["body"], "alive", "telemetry")
    assert module.connected
    within("shutdown", module.shutdown)


@case("python.module.methods")
def answers_methods():
    """A method of the module reaches the module, and not its device."""
    identity, module = connected("py-modmethod")
    names = Inbox()

    def answer(request):
        names.put(request.name)
        module.send_method_response(MethodResponse(request.request_id, 200, request.payload))

    module.on_method_request_received = answer
    equal(
        invoke(identity["deviceId"], "echo", [1], module="sensor"),
        (200, {"status": 200, "payload": [1]}),
        "method",
    )
    equal(names.next("request"), "echo", "name")
    equal(invoke(identity["deviceId"], "echo", [1])[0], 404, "the device itself is away")
    within("shutdown", module.shutdown)


@case("python.module.twin")
def has_a_twin():
    """get_twin, reports and desired changes of the module's own twin; the device's stays as it was."""
    identity, module = connected("py-modtwin")
    device_id, patches = identity["deviceId"], Inbox()
    module.on_twin_desired_properties_patch_received = patches.put
    version = patch_desired(device_id, {"a": 1}, module="sensor")
    equal(
        until("desired", lambda: next_patch(patches, version)),
        {"a": 1, "$version": version},
        "desired change",
    )
    within("report", lambda: module.patch_twin_reported_properties({"r": 1}))
    equal(
        within("get_twin", module.get_twin),
        {"desired": {"a": 1, "$version": 2}, "reported": {"r": 1, "$version": 2}},
        "twin",
    )
    device = expect("GET", f"/twins/{device_id}")["properties"]
    equal((device["desired"]["$version"], device["reported"]["$version"]), (1, 1), "the device's versions")
    within("shutdown", module.shutdown)


@case("python.module.websocket")
def over_websocket():
    identity, module = connected("py-modws", websockets=True)
    within("send", lambda: module.send_message_to_output("out", "o"))
    equal(records(identity["deviceId"], 1)[0]["body"], "out", "telemetry")
    within("shutdown", module.shutdown)


@case("python.module.beside_its_device")
def beside_its_device():
    """A device and its module are two identities: both stay connected, and neither takes over the other."""
    identity, module = connected("py-modpair")
    description = expect("GET", f"/devices/{identity['deviceId']}")
    key = description["authentication"]["symmetricKey"]["primaryKey"]
    device = client(
        {"connectionString": f"HostName=localhost;DeviceId={identity['deviceId']};SharedAccessKey={key}"}
    )
    within("connect", device.connect)
    within("send", lambda: device.send_message("device"))
    within("send", lambda: module.send_message("module"))
    assert device.connected and module.connected
    equal(
        sorted(record["body"] for record in records(identity["deviceId"], 2)),
        ["device", "module"],
        "telemetry",
    )
    within("shutdown", module.shutdown)
    assert device.connected
    within("shutdown", device.shutdown)


@case("python.module.invoke_method")
def invokes_a_method():
    """invoke_method() is meant for an edge gateway. A hub may refuse it, but must answer, and no server error."""
    _, module = connected("py-modinvoke")
    other = new_device("py-modtarget")
    try:
        within(
            "invoke_method",
            lambda: module.invoke_method({"methodName": "m", "payload": None}, other["deviceId"]),
        )
    except AssertionError:
        raise
    except Exception as error:
        text = f"{error!r} {error.__cause__!r}"
        assert "500" not in text and "Timeout" not in text, text
    within("send", lambda: module.send_message("alive"))
    within("shutdown", module.shutdown)


main()
