"""`azure-iot-device` (Python) as a device: every call of the checklist, over TCP (`python.mqtt.…`) and WebSocket (`python.ws.…`).

Rows: connect, send_message, on_message_received, on_method_request_received, get_twin,
patch_twin_reported_properties, desired changes, update_sastoken and its renewal, disconnect, blob upload.
Ways to make a client and refused credentials are in `credentials.py`, modules in `modules.py`.
"""

import asyncio
import json
import time
import uuid

from azure.iot.device import MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient as AsyncDeviceClient

from kit import (
    Inbox,
    authority,
    case,
    equal,
    expect,
    invoke,
    main,
    patch_desired,
    primary_key,
    properties,
    records,
    runner,
    send_command,
    system,
    token,
    until,
)
from kit_device import (
    IoTHubDeviceClient,
    Message,
    TRANSPORTS,
    check_reachable,
    client,
    listen,
    new_device,
    transfer,
    within,
)


def both(name):
    """Registers a case once per transport; it is given the options of the client."""

    def register(function):
        for transport, options in TRANSPORTS.items():
            case(f"python.{transport}.{name}")(lambda options=options: function(options))
        return function

    return register


def connected(name, options):
    identity = new_device(name)
    device = client(identity, **options)
    within("connect", device.connect)
    return identity, device


@both("connect")
def connects(options):
    """connect(), connection state in the registry, disconnect()."""
    identity, device = connected("py-connect", options)
    assert device.connected
    path = f"/devices/{identity['deviceId']}"
    until("registry says connected", lambda: expect("GET", path)["connectionState"] == "Connected")
    within("disconnect", device.disconnect)
    until("registry says disconnected", lambda: expect("GET", path)["connectionState"] == "Disconnected")
    within("connect again", device.connect)
    assert device.connected
    within("shutdown", device.shutdown)


@both("send_message")
def sends(options):
    """send_message(): bodies of text, bytes and nothing, in order, each acknowledged."""
    identity, device = connected("py-send", options)
    for body in ("one", b"two", json.dumps({"three": 3}), "", "x" * 200_000):
        within(f"send {body[:10]!r}", lambda body=body: device.send_message(body))
    found = [record["body"] for record in records(identity["deviceId"], 5)]
    equal(found[:4], ["one", "two", '{"three": 3}', ""], "bodies")
    equal(len(found[4]), 200_000, "length of the large body")
    within("shutdown", device.shutdown)


@both("send_message_properties")
def sends_properties(options):
    """Every property that the SDK can set comes out under its routed name; the hub adds its own."""
    identity, device = connected("py-props", options)
    message = Message(
        "{}", message_id=f"m-{uuid.uuid4()}", content_encoding="utf-8", content_type="application/json"
    )
    message.correlation_id, message.user_id = "c-1", "user@example"
    message.expiry_time_utc = "2036-01-01T00:00:00Z"
    message.custom_properties = {"a b": "c+d/e", "ключ": "значение & = %", "empty": "", "n": 5}
    message.set_as_security_message()
    within("send", lambda: device.send_message(message))
    record = records(identity["deviceId"], 1)[0]
    equal(
        properties(record),
        {"a b": "c+d/e", "ключ": "значение & = %", "empty": "", "n": "5"},
        "application properties",
    )
    wanted = {
        "message-id": message.message_id,
        "correlation-id": "c-1",
        "user-id": "user@example",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2036-01-01T00:00:00Z",
        "iothub-interface-id": "urn:azureiot:Security:SecurityAgent:1",
        "iothub-connection-device-id": identity["deviceId"],
        "iothub-connection-auth-generation-id": identity["generationId"],
    }
    found = system(record)
    equal({name: found.get(name) for name in wanted}, wanted, "system properties")
    assert found["iothub-connection-auth-method"], found
    within("shutdown", device.shutdown)


@both("commands")
def receives_commands(options):
    """on_message_received: properties, order, and a queue that waits for an absent device."""
    identity, device = connected("py-c2d", options)
    device_id, inbox = identity["deviceId"], Inbox()
    device.on_message_received = inbox.put
    headers = {
        "iothub-messageid": "m1",
        "iothub-correlationid": "c1",
        "iothub-ack": "full",
        "iothub-app-colour": "blue & green/=",
        "iothub-app-plain": "x",
    }
    send_command(device_id, "first", headers)
    message = inbox.next("command")
    equal(
        (message.data, message.message_id, message.correlation_id, message.ack),
        (b"first", "m1", "c1", "full"),
        "command",
    )
    equal(message.custom_properties, {"colour": "blue & green/=", "plain": "x"}, "application properties")
    for number in range(20):
        send_command(device_id, f"n{number}")
    equal([inbox.next("command").data.decode() for _ in range(20)], [f"n{n}" for n in range(20)], "order")
    within("disconnect", device.disconnect)
    for number in range(3):
        send_command(device_id, f"late{number}")
    within("connect", device.connect)
    # The session persists: the SDK sends no SUBSCRIBE now.
    equal(
        [inbox.next("queued command").data for _ in range(3)],
        [b"late0", b"late1", b"late2"],
        "queued while away",
    )
    path = f"/devices/{device_id}"
    until("queue is empty", lambda: expect("GET", path)["cloudToDeviceMessageCount"] == 0)
    within("shutdown", device.shutdown)


@both("methods")
def answers_methods(options):
    """on_method_request_received: payloads of every JSON kind, status codes, no payload at all."""
    identity, device = connected("py-method", options)
    device_id = identity["deviceId"]

    def answer(request):
        status = request.payload.get("status", 200) if isinstance(request.payload, dict) else 200
        device.send_method_response(
            MethodResponse(request.request_id, status, {"name": request.name, "got": request.payload})
        )

    device.on_method_request_received = answer
    for payload in ({"a": [1, None, "ü"]}, [1, 2], "text", 7, True, None):
        status, body = invoke(device_id, "do-it", payload)
        equal(
            (status, body),
            (200, {"status": 200, "payload": {"name": "do-it", "got": payload}}),
            f"payload {payload!r}",
        )
    status, body = invoke(device_id, "fails", {"status": 418})
    equal((status, body["status"]), (200, 418), "the device's own status")
    device.on_method_request_received = lambda request: device.send_method_response(
        MethodResponse(request.request_id, 204)
    )
    equal(invoke(device_id, "quiet"), (200, {"status": 204, "payload": None}), "no payload in the answer")
    within("shutdown", device.shutdown)


@both("methods_absent")
def methods_need_a_listener(options):
    """A method to a device that is away, or connected without a subscription, is 404 DeviceNotOnline; silence is 504."""
    identity, device = connected("py-nomethod", options)
    device_id = identity["deviceId"]
    status, body = invoke(device_id, "x")
    equal(status, 404, "connected, not subscribed")
    assert "DeviceNotOnline" in body["Message"], body
    device.on_method_request_received = lambda request: None
    equal(invoke(device_id, "x", response_s=5)[0], 504, "subscribed, silent")
    within("disconnect", device.disconnect)
    until(
        "registry says disconnected",
        lambda: expect("GET", f"/devices/{device_id}")["connectionState"] == "Disconnected",
    )
    equal(invoke(device_id, "x")[0], 404, "away")
    within("shutdown", device.shutdown)


@both("twin")
def reads_and_reports(options):
    """get_twin() and patch_twin_reported_properties(): merge, removal by null, versions, no metadata on the device."""
    identity, device = connected("py-twin", options)
    device_id = identity["deviceId"]
    equal(
        within("get_twin", device.get_twin),
        {"desired": {"$version": 1}, "reported": {"$version": 1}},
        "new twin",
    )
    patch_desired(device_id, {"interval": 5, "nested": {"a": 1, "b": None}})
    within(
        "report",
        lambda: device.patch_twin_reported_properties(
            {"fw": {"major": 1, "minor": 2}, "list": [1, {"x": 2}]}
        ),
    )
    within("report", lambda: device.patch_twin_reported_properties({"fw": {"minor": None}, "ok": True}))
    wanted = {
        "desired": {"interval": 5, "nested": {"a": 1}, "$version": 2},
        "reported": {"fw": {"major": 1}, "list": [1, {"x": 2}], "ok": True, "$version": 3},
    }
    equal(within("get_twin", device.get_twin), wanted, "twin")
    reported = expect("GET", f"/twins/{device_id}")["properties"]["reported"]
    assert "$lastUpdated" in reported["$metadata"]["fw"]["major"], reported
    del reported["$metadata"]
    equal(reported, wanted["reported"], "the service's view")
    within("shutdown", device.shutdown)


@both("twin_refused")
def refuses_bad_reports(options):
    """A report that breaks a limit is an error of the call, changes nothing and leaves the connection up."""
    identity, device = connected("py-twinbad", options)
    deep = {"leaf": 1}
    for level in range(11):
        deep = {f"l{level}": deep}
    for what, patch in (
        ("11 levels", deep),
        ("33 KiB", {f"k{n}": "x" * 4000 for n in range(9)}),
        ("a dot", {"a.b": 1}),
    ):
        try:
            within(what, lambda patch=patch: device.patch_twin_reported_properties(patch))
        except Exception as error:
            assert type(error).__name__ in ("ClientError", "ServiceError"), repr(error)
        else:
            raise AssertionError(f"{what}: was accepted")
    equal(within("get_twin", device.get_twin)["reported"], {"$version": 1}, "reported after refusals")
    assert device.connected
    within("shutdown", device.shutdown)


@both("desired_changes")
def hears_desired_changes(options):
    """on_twin_desired_properties_patch_received: each change once, in order, with $version; a replacement is whole."""
    identity, device = connected("py-desired", options)
    device_id, inbox = identity["deviceId"], Inbox()
    device.on_twin_desired_properties_patch_received = inbox.put
    for number in range(5):
        version = patch_desired(device_id, {"n": number, "gone": None})
        equal(inbox.next("desired change"), {"n": number, "gone": None, "$version": version}, "patch")
    expect(
        "PUT",
        f"/twins/{device_id}",
        body={"properties": {"desired": {"whole": 1}}},
        headers={"If-Match": "*"},
    )
    equal(inbox.next("replacement"), {"whole": 1, "$version": version + 1}, "replacement")
    # Tags are no business of the device.
    expect("PATCH", f"/twins/{device_id}", body={"tags": {"floor": 1}}, headers={"If-Match": "*"})
    last = patch_desired(device_id, {"n": "last"})
    equal(inbox.next("last change"), {"n": "last", "$version": last}, "patch after the tags")
    within("shutdown", device.shutdown)


@both("update_sastoken")
def takes_a_new_token(options):
    """update_sastoken(): DISCONNECT, CONNECT, no SUBSCRIBE; every subscription must have lived on."""
    identity = new_device("py-newtoken")
    device_id, key = identity["deviceId"], primary_key(identity)
    device = IoTHubDeviceClient.create_from_sastoken(
        token(device_id, key, 600), server_verification_cert=authority(), **options
    )
    within("connect", device.connect)
    inboxes = listen(device)
    check_reachable(identity, inboxes, "before")
    within("update_sastoken", lambda: device.update_sastoken(token(device_id, key, 900)))
    until("connected again", lambda: device.connected)
    check_reachable(identity, inboxes, "after")
    within("shutdown", device.shutdown)


@both("token_renewal")
def renews_by_itself(options):
    """The SDK renews its token 120 s before the end; a life of 125 s makes that happen after 5 s."""
    identity = new_device("py-renew")
    device = client(identity, sastoken_ttl=125, **options)
    states = Inbox()
    device.on_connection_state_change = lambda: states.put(device.connected)
    within("connect", device.connect)
    inboxes = listen(device)
    equal(states.next("connected"), True, "state")
    equal(states.next("renewal drops the connection"), False, "state")
    equal(states.next("renewed"), True, "state")
    check_reachable(identity, inboxes, "renewed")
    within("send", lambda: device.send_message("after"))
    equal(records(identity["deviceId"], 1)[0]["body"], "after", "telemetry after the renewal")
    within("shutdown", device.shutdown)


@both("blob_upload")
def uploads_a_blob(options):
    """get_storage_info_for_blob(), a PUT to where it says, and notify_blob_upload_status() with the id in the body."""
    identity = new_device("py-blob")
    device = client(identity, **options)
    info = within("storage info", lambda: device.get_storage_info_for_blob("folder/file.bin"))
    equal(info["blobName"], f"{identity['deviceId']}/folder/file.bin", "blob name")
    assert info["correlationId"] and info["containerName"] and info["hostName"], info
    assert info["sasToken"].startswith("?"), info
    transfer("PUT", info, b"content of the file")
    within("notify", lambda: device.notify_blob_upload_status(info["correlationId"], True, 201, "created"))
    equal(transfer("GET", info), b"content of the file", "the file")
    info = within("storage info", lambda: device.get_storage_info_for_blob("never-sent.bin"))
    within(
        "notify of a failure",
        lambda: device.notify_blob_upload_status(info["correlationId"], False, 500, "gave up"),
    )


@both("async_client")
def async_client_works(options):
    """The asyncio flavour of the SDK: send, command, method, twin."""
    identity = new_device("py-async")
    device_id, loop_inbox = identity["deviceId"], Inbox()

    async def run():
        device = AsyncDeviceClient.create_from_connection_string(
            identity["connectionString"], server_verification_cert=authority(), **options
        )
        await device.connect()
        await asyncio.gather(*(device.send_message(f"m{n}") for n in range(50)))

        async def on_method(request):
            await device.send_method_response(MethodResponse(request.request_id, 200, request.payload))

        device.on_method_request_received = on_method
        device.on_message_received = loop_inbox.put
        equal((await device.get_twin())["desired"], {"$version": 1}, "twin")
        await device.patch_twin_reported_properties({"async": True})
        answer = await asyncio.to_thread(invoke, device_id, "echo", [1], None, 20, 20)
        equal(answer, (200, {"status": 200, "payload": [1]}), "method")
        await asyncio.to_thread(send_command, device_id, "to async")
        message = await asyncio.to_thread(loop_inbox.next, "command")
        equal(message.data, b"to async", "command")
        await device.shutdown()

    asyncio.run(asyncio.wait_for(run(), 120))
    equal(
        sorted(record["body"] for record in records(device_id, 50)),
        sorted(f"m{n}" for n in range(50)),
        "telemetry",
    )


@case("python.mqtt.gateway_hostname")
def connects_by_gateway_name():
    """gateway_hostname: TCP and TLS go to it, user name and `sr` keep the host name."""
    identity = new_device("py-gateway")
    device_id = identity["deviceId"]
    text = token(device_id, primary_key(identity), 600)
    device = IoTHubDeviceClient.create_from_sastoken(
        text, server_verification_cert=authority(), gateway_hostname="127.0.0.1"
    )
    within("connect", device.connect)
    within("send", lambda: device.send_message("by the gateway"))
    equal(records(device_id, 1)[0]["body"], "by the gateway", "telemetry")
    within("shutdown", device.shutdown)


@case("python.mqtt.model_id")
def announces_a_model():
    """A product info that begins with dtmi makes the SDK send model-id and another api-version."""
    identity = new_device("py-model")
    device = client(identity, product_info="dtmi:com:example:Thermostat;1")
    within("connect", device.connect)
    within("send", lambda: device.send_message("21"))
    equal(
        system(records(identity["deviceId"], 1)[0])["dt-dataschema"],
        "dtmi:com:example:Thermostat;1",
        "model of the record",
    )
    path = f"/twins/{identity['deviceId']}"
    equal(expect("GET", path).get("modelId"), "dtmi:com:example:Thermostat;1", "model of the twin")
    within("shutdown", device.shutdown)


@case("python.mqtt.keep_alive")
def pings_keep_it_open():
    """keep_alive of 4 s: after 12 idle seconds the connection is the same one."""
    identity = new_device("py-idle")
    device = client(identity, keep_alive=4)
    drops = Inbox()
    within("connect", device.connect)
    device.on_connection_state_change = lambda: drops.put(device.connected)
    # What is tested is the passing of time itself: three pings of the client's.
    time.sleep(12)
    assert drops.empty(), "the connection dropped while pings went"
    within("send", lambda: device.send_message("still here"))
    equal(len(runner.records(device=identity["deviceId"], count=1)), 1, "records")
    within("shutdown", device.shutdown)


main()
