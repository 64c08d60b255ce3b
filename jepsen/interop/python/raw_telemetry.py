"""Telemetry as bare MQTT: every form of a property bag that some SDK writes, QoS, retain, limits, order, wills.

The forms are those of the published SDKs: Python and Node encode everything, Java leaves `$`, C encodes nothing,
.NET and Node's outputs end in `/`, samples begin with `?`.
"""

from kit import case, equal, main, properties, records, runner, system
from kit_device import new_device
from kit_raw import opened

# name, bag as published, application properties, system properties that must be among the record's.
FORMS = [
    (
        "encoded",
        "%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%2Bd%2Fe",
        {"a b": "c+d/e"},
        {"content-type": "application/json", "content-encoding": "utf-8"},
    ),
    ("literal_dollar", "$.mid=m1&$.cid=c1&k=v", {"k": "v"}, {"message-id": "m1", "correlation-id": "c1"}),
    (
        "unencoded",
        "k=v w&%24.ct=application/json&p=a/b/c",
        {"k": "v w", "p": "a/b/c"},
        {"content-type": "application/json"},
    ),
    ("trailing_slash", "k=v&%24.ct=text%2Fplain/", {"k": "v"}, {"content-type": "text/plain"}),
    ("leading_question_mark", "?k=v&%24.mid=m2", {"k": "v"}, {"message-id": "m2"}),
    ("key_without_value", "bare&k=v", {"bare": "", "k": "v"}, {}),
    ("empty_value", "empty=&k=v", {"empty": "", "k": "v"}, {}),
    ("equals_in_value", "k=a=b==", {"k": "a=b=="}, {}),
    ("plus_and_space", "k=a%2Bb%20c", {"k": "a+b c"}, {}),
    ("unicode", "%D0%BA=%E2%9C%93&raw=ü", {"к": "✓", "raw": "ü"}, {}),
    ("output", "%24.on=alerts/", {}, {"$.on": "alerts"}),
    (
        "all_system",
        "%24.uid=u&%24.exp=2036-01-01T00%3A00%3A00.0000000Z&%24.ctime=2026-01-01T00%3A00%3A00.0000000Z"
        "&%24.sub=part&%24.ifid=urn%3Ax&%24.schema=s1",
        {},
        {
            "user-id": "u",
            "absolute-expiry-time": "2036-01-01T00:00:00.0000000Z",
            "iothub-creation-time-utc": "2026-01-01T00:00:00.0000000Z",
            "dt-subject": "part",
            "iothub-interface-id": "urn:x",
        },
    ),
    ("empty_bag", "", {}, {}),
]


def round_trip(bag, wanted, wanted_system):
    identity = new_device("raw-bag")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.publish(f"devices/{device_id}/messages/events/{bag}", "body")
    device.close()
    record = records(device_id, 1)[0]
    equal(record["body"], "body", "body")
    equal(properties(record), wanted, "application properties")
    if wanted_system:
        found = system(record)
        equal({name: found.get(name) for name in wanted_system}, wanted_system, "system properties")


for _name, _bag, _wanted, _system in FORMS:
    case(f"raw.bag.{_name}")(lambda bag=_bag, wanted=_wanted, named=_system: round_trip(bag, wanted, named))


@case("raw.bag.no_slash")
def topic_without_slash():
    """`.../messages/events`, with no slash and no bag, is telemetry too."""
    identity = new_device("raw-noslash")
    device = opened(identity)
    device.publish(f"devices/{identity['deviceId']}/messages/events", "body")
    equal(records(identity["deviceId"], 1)[0]["body"], "body", "body")
    device.close()


@case("raw.bag.sender_is_stamped")
def sender_is_stamped():
    """What a device claims about itself is replaced by what the hub knows."""
    identity = new_device("raw-stamp")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.publish(
        f"devices/{device_id}/messages/events/%24.cdid=somebody-else&iothub-connection-device-id=liar", "body"
    )
    equal(system(records(device_id, 1)[0])["iothub-connection-device-id"], device_id, "sender")
    device.close()


@case("raw.telemetry.qos0")
def qos0_is_stored():
    identity = new_device("raw-qos0")
    device = opened(identity)
    topic = f"devices/{identity['deviceId']}/messages/events/"
    for number in range(10):
        device.publish(topic, f"q{number}", qos=0)
    # The PUBACK of what follows on the same connection says that the hub has read what came before.
    device.publish(topic, "end")
    equal(
        [record["body"] for record in records(identity["deviceId"], 11)],
        [*(f"q{n}" for n in range(10)), "end"],
        "bodies",
    )
    device.close()


@case("raw.telemetry.qos2_closes")
def qos2_closes():
    identity = new_device("raw-qos2")
    device = opened(identity)
    device.publish(f"devices/{identity['deviceId']}/messages/events/", "x", qos=2)
    device.expect_close("a QoS 2 publish")


@case("raw.telemetry.retain")
def retain_becomes_a_property():
    """RETAIN=1 retains nothing: the record has the property `mqtt-retain`."""
    identity = new_device("raw-retain")
    device = opened(identity)
    device.publish(f"devices/{identity['deviceId']}/messages/events/k=v", "x", retain=True)
    equal(properties(records(identity["deviceId"], 1)[0]), {"k": "v", "mqtt-retain": "true"}, "properties")
    device.close()


@case("raw.telemetry.foreign_topic_closes")
def foreign_topics_close():
    """A topic of another device, or none that the hub knows, ends the connection and stores nothing."""
    other = new_device("raw-victim")
    for topic in (
        f"devices/{other['deviceId']}/messages/events/",
        "any/topic",
        "$iothub/unknown/GET/?$rid=1",
        f"devices/{other['deviceId'].upper()}/messages/events/",
    ):
        device = opened(new_device("raw-foreign"))
        device.client.publish(topic, "intruder", 1)
        device.expect_close(f"publish to {topic}")
    equal(runner.records(device=other["deviceId"], count=1, timeout_s=1), [], "records of the other device")


@case("raw.telemetry.size_limit")
def size_limit():
    """262144 bytes of body and properties are the most; one more ends the connection."""
    identity = new_device("raw-size")
    device_id = identity["deviceId"]
    device = opened(identity)
    device.publish(f"devices/{device_id}/messages/events/k=v", b"x" * (262_144 - 2))
    equal(len(records(device_id, 1)[0]["body"]), 262_142, "stored length")
    device.client.publish(f"devices/{device_id}/messages/events/k=v", b"x" * (262_144 - 1), 1)
    device.expect_close("a message that is too large")
    equal(len(runner.records(device=device_id, count=2, timeout_s=1)), 1, "records")


@case("raw.telemetry.bad_escape_closes")
def bad_escape():
    identity = new_device("raw-escape")
    device = opened(identity)
    device.client.publish(f"devices/{identity['deviceId']}/messages/events/k=%zz", "x", 1)
    device.expect_close("a broken percent escape")


@case("raw.telemetry.puback_order")
def pubacks_keep_order():
    """1000 publishes in flight at once: PUBACKs come in the order of the publishes, as .NET demands, and all are stored."""
    identity = new_device("raw-order")
    device_id = identity["deviceId"]
    device = opened(identity)
    sent = [
        device.client.publish(f"devices/{device_id}/messages/events/n={n}", str(n), 1).mid
        for n in range(1000)
    ]
    equal([device.pubacks.next("PUBACK") for _ in sent], sent, "order of PUBACKs")
    equal(
        [record["body"] for record in records(device_id, 1000)],
        [str(n) for n in range(1000)],
        "order of records",
    )
    device.close()


@case("raw.telemetry.module_topic")
def module_topic():
    """A module publishes under its own topic; under its device's topic it may not."""
    device_id = new_device("raw-mod")["deviceId"]
    identity = runner.module(device=device_id, module="m")
    module = opened(identity)
    module.publish(f"devices/{device_id}/modules/m/messages/events/%24.on=o/", "x")
    equal(system(records(device_id, 1)[0])["iothub-connection-module-id"], "m", "module")
    module.client.publish(f"devices/{device_id}/messages/events/", "x", 1)
    module.expect_close("a module publishes as its device")


@case("raw.will.sent_after_a_drop")
def will_after_a_drop():
    """A connection that dies leaves its will as telemetry with `iothub-MessageType: Will`."""
    identity = new_device("raw-will")
    device_id = identity["deviceId"]
    device = opened(identity, will=(f"devices/{device_id}/messages/events/k=v", "gone", 1, False))
    device.drop()
    record = records(device_id, 1)[0]
    equal((record["body"], properties(record)), ("gone", {"k": "v", "iothub-MessageType": "Will"}), "will")


@case("raw.will.not_after_disconnect")
def no_will_after_disconnect():
    identity = new_device("raw-nowill")
    device_id = identity["deviceId"]
    device = opened(identity, will=(f"devices/{device_id}/messages/events/", "gone", 1, False))
    device.close()
    # A later message of the same device shows that nothing came before it.
    device = opened(identity)
    device.publish(f"devices/{device_id}/messages/events/", "after")
    equal([record["body"] for record in records(device_id, 1)], ["after"], "records")
    device.close()


@case("raw.plain.telemetry")
def over_plain_tcp():
    """The optional listener without TLS speaks the same protocol."""
    identity = new_device("raw-plain")
    device_id = identity["deviceId"]
    device = opened(identity, port=runner.info()["plain"], tls=False)
    device.publish(f"devices/{device_id}/messages/events/k=v", "plain")
    equal(records(device_id, 1)[0]["body"], "plain", "body")
    device.close()


main()
