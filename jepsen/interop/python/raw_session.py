"""Logins and sessions as bare MQTT: forms of the user name, refusals, persistent subscriptions, takeover, expiry."""

import time

import paho.mqtt.client as mqtt

from kit import case, equal, main, primary_key, records, runner, send_command, token, until
from kit_device import new_device
from kit_raw import Raw, opened, raw, user_of

LOGINS = [
    ("usual", "localhost/{d}/?api-version=2021-04-12"),
    (
        "client_type",
        "localhost/{d}/?api-version=2020-09-30&DeviceClientType=azure-iot-device%2F1.17%20(node%20v20)",
    ),
    (
        "model_unencoded",
        "localhost/{d}/?api-version=2021-04-12&model-id=dtmi:com:example:T;1&DeviceClientType=x",
    ),
    (
        "model_encoded",
        "localhost/{d}/?api-version=2020-09-30&DeviceClientType=x&model-id=dtmi%3Acom%3Aexample%3AT%3B1",
    ),
    ("no_question_mark", "localhost/{d}/api-version=2016-11-14&DeviceClientType=x"),
    ("port", "localhost:8883/{d}/?api-version=2021-04-12"),
    ("address", "127.0.0.1/{d}/?api-version=2021-04-12"),
    ("upper_case_host", "LOCALHOST/{d}/?api-version=2021-04-12"),
    ("unknown_keys", "localhost/{d}/?api-version=2021-04-12&auth-chain=x&other=1"),
]


def logs_in(user):
    identity = new_device("raw-login")
    device_id = identity["deviceId"]
    device = opened(identity, user=user.format(d=device_id))
    device.publish(f"devices/{device_id}/messages/events/", "in")
    equal(records(device_id, 1)[0]["body"], "in", "telemetry")
    device.close()


for _name, _user in LOGINS:
    case(f"raw.login.{_name}")(lambda user=_user: logs_in(user))


def refused(what, connection, wanted):
    """CONNACK with one of `wanted`, then the end of the connection."""
    code, present = connection.open()
    assert code in wanted, f"{what}: CONNACK {code}, wanted one of {wanted}"
    equal(present, 0, f"{what}: session present of a refusal")
    connection.closed.next(f"{what}: end after the refusal")


@case("raw.refused.credentials")
def bad_credentials():
    """Bad tokens, unknown devices and other devices' tokens: CONNACK 5 (4 for what isn't a token at all)."""
    identity, other = new_device("raw-refused"), new_device("raw-other")
    device_id, key = identity["deviceId"], primary_key(identity)
    refused("wrong key", raw(identity, password=token(device_id, primary_key(other), 600)), {5})
    refused("expired", raw(identity, life_s=-3600), {5})
    refused(
        "token of another device",
        raw(identity, password=token(other["deviceId"], primary_key(other), 600)),
        {5},
    )
    refused("token of a longer id", raw(identity, password=token(device_id + "x", key, 600)), {5})
    refused(
        "changed expiry", raw(identity, password=token(device_id, key, -60).replace("&se=", "&se=9")), {4, 5}
    )
    refused("no token", raw(identity, password=None), {4, 5})
    refused("not a token", raw(identity, password="secret"), {4, 5})
    refused("unknown device", Raw("nobody", user_of("nobody"), token("nobody", key, 600)), {5})
    refused(
        "policy without DeviceConnect", raw(identity, password=policy_token(device_id, "registryRead")), {5}
    )


def policy_token(device_id, policy):
    text = runner.info()["hub"]["connectionStrings"][policy]
    key = dict(part.split("=", 1) for part in text.split(";"))["SharedAccessKey"]
    return token(device_id, key, 600, policy=policy)


@case("raw.refused.user_name")
def bad_user_names():
    """A user name that doesn't fit the client id or the hub: any refusal, and no connection."""
    identity, other = new_device("raw-user"), new_device("raw-user")
    device_id = identity["deviceId"]
    for what, user in (
        ("another device", user_of(other["deviceId"])),
        ("another host", f"elsewhere.example/{device_id}/?api-version=2021-04-12"),
        ("no host", device_id),
        ("empty", ""),
        ("a module", user_of(device_id, "m")),
    ):
        refused(what, raw(identity, user=user), {2, 4, 5})
    refused("no user name", raw(identity, user=None), {2, 4, 5})


@case("raw.refused.no_api_version")
def no_api_version():
    """`api-version` is required; its value is not looked at."""
    identity = new_device("raw-noversion")
    refused(
        "no api-version",
        raw(identity, user=f"localhost/{identity['deviceId']}/?DeviceClientType=x"),
        {2, 4, 5},
    )


@case("raw.refused.protocol_level")
def old_protocol():
    """MQTT 3.1 (level 3, `MQIsdp`): CONNACK 1, or an end without one."""
    connection = raw(new_device("raw-level"), protocol=mqtt.MQTTv31)
    connection.client.connect("localhost", 8883)
    connection.client.loop_start()
    connection.closed.next("end of an MQTT 3.1 connection")
    if not connection.connacks.empty():
        equal(connection.connacks.next("CONNACK")[0], 1, "CONNACK")


@case("raw.session.present")
def session_present():
    """0 the first time, 1 when the session was kept, 0 after a clean one."""
    identity = new_device("raw-present")
    filter_ = f"devices/{identity['deviceId']}/messages/devicebound/#"
    device = raw(identity)
    equal(device.open(), (0, 0), "first")
    equal(device.subscribe(filter_), [1], "granted")
    device.close()
    device = raw(identity)
    equal(device.open(), (0, 1), "resumed")
    device.close()
    device = raw(identity, clean=True)
    equal(device.open(), (0, 0), "clean")
    device.close()
    device = raw(identity)
    equal(device.open(), (0, 0), "after a clean one")
    device.close()


@case("raw.session.resumed_without_subscribe")
def resumed():
    """Every filter lives on in the session, QoS 0 ones too; an UNSUBSCRIBE is kept as well."""
    identity = new_device("raw-resume")
    device_id = identity["deviceId"]
    commands = f"devices/{device_id}/messages/devicebound/#"
    device = opened(identity)
    equal(
        device.subscribe(
            (commands, 1),
            ("$iothub/twin/res/#", 0),
            ("$iothub/twin/PATCH/properties/desired/#", 0),
            ("$iothub/methods/POST/#", 0),
        ),
        [1, 0, 0, 0],
        "granted",
    )
    device.unsubscribe("$iothub/twin/PATCH/properties/desired/#")
    device.drop()
    device = raw(identity)
    equal(device.open(), (0, 1), "resumed")
    device.publish("$iothub/twin/GET/?$rid=7", " ")
    equal(device.message("twin reply")[0], "$iothub/twin/res/200/?$rid=7", "topic")
    runner.rest(
        method="PATCH",
        path=f"/twins/{device_id}",
        body={"properties": {"desired": {"a": 1}}},
        headers={"If-Match": "*"},
    )
    send_command(device_id, "c")
    # Were the desired filter still there, the change would come before the command.
    topic, payload = device.message("command")
    assert topic.startswith(f"devices/{device_id}/messages/devicebound/"), topic
    equal(payload, b"c", "command")
    device.close()


@case("raw.session.clean")
def clean_session():
    """After a clean session nothing is pushed until a SUBSCRIBE, and then what waited comes."""
    identity = new_device("raw-clean")
    device_id = identity["deviceId"]
    commands = f"devices/{device_id}/messages/devicebound/#"
    device = opened(identity)
    device.subscribe(commands)
    device.close()
    send_command(device_id, "waits")
    device = opened(identity, clean=True)
    device.publish(f"devices/{device_id}/messages/events/", "x")
    assert device.messages.empty(), "pushed without a subscription"
    device.subscribe(commands)
    equal(device.message("command")[1], b"waits", "command")
    device.close()


@case("raw.subscribe.codes")
def suback_codes():
    """Granted is at most 1; a filter that isn't the device's own is refused by 0x80; five in one packet, as C does."""
    identity = new_device("raw-filters")
    device_id = identity["deviceId"]
    device = opened(identity)
    equal(device.subscribe((f"devices/{device_id}/messages/devicebound/#", 2)), [1], "QoS 2")
    codes = device.subscribe(
        (f"devices/{device_id}/messages/devicebound/#", 1),
        ("$iothub/methods/POST/#", 0),
        ("$iothub/twin/res/#", 0),
        ("$iothub/twin/PATCH/properties/desired/#", 1),
        ("devices/somebody-else/messages/devicebound/#", 1),
    )
    equal(codes, [1, 0, 0, 1, 0x80], "five filters")
    equal(device.subscribe("#"), [0x80], "everything")
    equal(device.subscribe(f"devices/{device_id}/messages/events/#"), [0x80], "its own telemetry")
    device.publish(f"devices/{device_id}/messages/events/", "alive")
    device.close()


@case("raw.subscribe.module_filters")
def module_filters():
    """Every filter that some SDK uses for a module is granted."""
    device_id = new_device("raw-modfilters")["deviceId"]
    module = opened(runner.module(device=device_id, module="m"))
    base = f"devices/{device_id}/modules/m"
    equal(module.subscribe(f"{base}/inputs/#"), [1], "inputs")
    equal(module.subscribe(f"{base}/#"), [1], "all of the module")
    equal(module.subscribe(f"{base}/messages/devicebound/#"), [1], "commands")
    equal(module.subscribe(f"devices/{device_id}/modules/other/inputs/#"), [0x80], "another module")
    module.close()


@case("raw.takeover")
def takeover():
    """The newer connection wins, and both sides may repeat that without an end of the hub."""
    identity = new_device("raw-takeover")
    device = opened(identity)
    for _ in range(5):
        newer = opened(identity)
        device.expect_close("takeover")
        device = newer
    device.publish(f"devices/{identity['deviceId']}/messages/events/", "newest")
    equal(records(identity["deviceId"], 1)[0]["body"], "newest", "telemetry")
    device.close()


@case("raw.keep_alive")
def silence_closes():
    """No packet for one and a half keep-alives: the hub ends the connection and the registry says so."""
    identity = new_device("raw-silent")
    device = raw(identity, keep_alive=2)
    device.client.connect("localhost", 8883, keepalive=2)
    # Only reading, never the housekeeping that would send a PINGREQ.
    began = time.monotonic()
    while device.connacks.empty():
        device.client.loop_read()
        device.client.loop_write()
    until(
        "closed by the hub",
        lambda: device.client.loop_read() != mqtt.MQTT_ERR_SUCCESS or not device.closed.empty(),
    )
    assert time.monotonic() - began >= 2.5, "closed before one and a half keep-alives"


@case("raw.token_expiry")
def expiry_closes():
    """The connection ends when the token does (a grace of up to a minute is allowed for)."""
    identity = new_device("raw-expiry")
    began = time.monotonic()
    device = opened(identity, life_s=10)
    device.publish(f"devices/{identity['deviceId']}/messages/events/", "before")
    device.closed.next("end of the token", within_s=75)
    assert time.monotonic() - began > 8, "closed before the token ended"


main()
