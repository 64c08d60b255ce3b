"""`azure-eventhub` (Python): reading the stream, over TCP (`events.python.tcp.*`) and WebSocket (`events.python.ws.*`).

Properties of hub and partitions, every starting position, owner levels, a pair of consumers that share the
partitions, and who is refused. Other cases send into the same hub: each looks at events of its own device only.
"""

import datetime
import threading

from azure.eventhub import EventHubConsumerClient, TransportType
from azure.eventhub.exceptions import EventHubError

from kit import Inbox, case, equal, expect, hub, main, primary_key, records, runner, token, until

TRANSPORTS = {"tcp": TransportType.Amqp, "ws": TransportType.AmqpOverWebsocket}
PARTITIONS = ["0", "1", "2", "3"]


def both(name):
    """Registers a case once for each transport."""

    def register(function):
        for label, transport in TRANSPORTS.items():
            case(f"events.python.{label}.{name}")(lambda chosen=transport: function(chosen))
        return function

    return register


def connection_string(**changes):
    """The hub as an event hub, by its service policy."""
    parts = dict(part.split("=", 1) for part in hub()["connectionStrings"]["service"].split(";"))
    host = parts["HostName"]
    found = {
        "Endpoint": f"sb://{host}/",
        "SharedAccessKeyName": parts["SharedAccessKeyName"],
        "SharedAccessKey": parts["SharedAccessKey"],
        "EntityPath": host.split(".")[0],
        **changes,
    }
    return ";".join(f"{name}={value}" for name, value in found.items())


def client(transport, changes=None, **options):
    """A consumer client that trusts the hub's authority."""
    options = {"consumer_group": "$Default", "retry_total": 0, **options}
    return EventHubConsumerClient.from_connection_string(
        connection_string(**(changes or {})),
        transport_type=transport,
        connection_verify=hub()["authority"],
        **options,
    )


def send(identity, *bodies, headers=None):
    """Telemetry of a device, in this order, over HTTPS."""
    name = identity["deviceId"]
    for body in bodies:
        expect(
            "POST",
            f"/devices/{name}/messages/events",
            body=body,
            headers=headers or {},
            token=token(name, primary_key(identity), 3600),
        )


class Reading:
    """A consumer at work on a thread of its own: what it brings of one device, and how it failed."""

    def __init__(self, consumer, device, **options):
        self.consumer, self.events, self.errors, self.given = consumer, Inbox(), Inbox(), Inbox()

        def bring(context, event):
            if event and event.system_properties[b"iothub-connection-device-id"] == device.encode():
                event.partition = context
                self.events.put(event)

        def run():
            try:
                consumer.receive(
                    on_event=bring,
                    on_error=lambda context, error: self.errors.put(error),
                    on_partition_close=lambda context, reason: self.given.put((context.partition_id, reason)),
                    **options,
                )
            except Exception as error:  # told to the case, whatever it is
                self.errors.put(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def bodies(self, count):
        return [self.events.next(f"event {place + 1} of {count}").body_as_str() for place in range(count)]

    def close(self):
        self.consumer.close()
        self._thread.join(30)
        assert not self._thread.is_alive(), "receive didn't end with its client"


def sent(prefix, *bodies):
    """A device that has sent these: its identity, and their stored records."""
    identity = runner.device(prefix=prefix)
    send(identity, *bodies)
    return identity, records(identity["deviceId"], len(bodies))


@both("properties")
def properties(transport):
    _, found = sent("eh-info", "a", "b")
    with client(transport) as consumer:
        about = consumer.get_eventhub_properties()
        equal(sorted(about["partition_ids"]), PARTITIONS, "partitions")
        equal(about["eventhub_name"], hub()["hostName"].split(".")[0], "name")
        now = datetime.datetime.now(datetime.timezone.utc)
        age = now - about["created_at"]
        assert datetime.timedelta(0) <= age < datetime.timedelta(hours=2), f"created at {about['created_at']}"
        equal(sorted(consumer.get_partition_ids()), PARTITIONS, "partition ids")
        partition = consumer.get_partition_properties(str(found[1]["partition"]))
        equal(partition["id"], str(found[1]["partition"]), "id")
        equal(partition["is_empty"], False, "is_empty")
        assert partition["last_enqueued_sequence_number"] >= found[1]["offset"], partition
        assert partition["beginning_sequence_number"] <= found[0]["offset"], partition
        age = now - partition["last_enqueued_time_utc"]
        assert abs(age) < datetime.timedelta(minutes=10), f"last event at {partition['last_enqueued_time_utc']}"


@both("positions")
def positions(transport):
    identity, found = sent("eh-from", "one", "two", "three")
    partition = str(found[0]["partition"])

    def read(position, inclusive, count):
        reading = Reading(
            client(transport),
            identity["deviceId"],
            partition_id=partition,
            starting_position=position,
            starting_position_inclusive=inclusive,
        )
        events = [reading.events.next(f"event from {position!r}") for _ in range(count)]
        reading.close()
        return events

    def bodies(*asked):
        return [event.body_as_str() for event in read(*asked)]

    whole = read("-1", False, 3)
    equal([event.body_as_str() for event in whole], ["one", "two", "three"], "from the beginning")
    equal([event.sequence_number for event in whole], [record["offset"] for record in found], "numbers")
    second = whole[1]
    equal(bodies(second.sequence_number, True, 2), ["two", "three"], "from a number")
    equal(bodies(second.sequence_number, False, 1), ["three"], "after a number")
    equal(bodies(second.offset, False, 1), ["three"], "after an offset")
    equal(bodies(whole[0].enqueued_time, True, 3), ["one", "two", "three"], "from the time of the first")


@both("latest")
def latest(transport):
    """`@latest` brings what comes after the attach, and nothing from before."""
    identity, found = sent("eh-latest", "before")
    reading = Reading(
        client(transport),
        identity["deviceId"],
        partition_id=str(found[0]["partition"]),
        starting_position="@latest",
        track_last_enqueued_event_properties=True,
    )
    # Nothing tells when the link is attached: what arrives first says so. Over WebSocket the SDK hands events over
    # only when nothing has come for a second, so there is a pause between two.
    number, first = 0, None
    while first is None:
        send(identity, f"after {number}")
        number += 1
        try:
            first = reading.events.next("first event", 3)
        except AssertionError:
            assert number < 10, "nothing came from @latest"
    assert first.body_as_str().startswith("after "), first.body_as_str()
    send(identity, "last")
    while (event := reading.events.next("the last event")).body_as_str() != "last":
        assert event.body_as_str().startswith("after "), event.body_as_str()
    metric = event.partition.last_enqueued_event_properties
    assert metric["sequence_number"] >= event.sequence_number, metric
    reading.close()


@both("layout")
def layout(transport):
    """What a reader sees of an event: properties, annotations, a body of any size."""
    identity = runner.device(prefix="eh-layout")
    device = identity["deviceId"]
    headers = {
        "iothub-app-colour": "blue",
        "iothub-messageid": "m-1",
        "iothub-correlationid": "c-1",
        "iothub-contenttype": "application/json",
        "iothub-contentencoding": "utf-8",
    }
    send(identity, '{"a":1}', headers=headers)
    send(identity, "x" * 200_000, "")
    found = records(device, 3)
    reading = Reading(
        client(transport), device, partition_id=str(found[0]["partition"]), starting_position="-1"
    )
    event = reading.events.next("first event")
    equal(event.properties, {b"colour": b"blue"}, "application properties")
    equal(event.body_as_json(), {"a": 1}, "body")
    equal((event.message_id, event.correlation_id), ("m-1", "c-1"), "ids")
    written = event.raw_amqp_message.properties
    equal((event.content_type, written.content_encoding), ("application/json", b"utf-8"), "content")
    equal(event.partition_key, device.encode(), "partition key")
    system = event.system_properties
    equal(
        system[b"iothub-connection-auth-generation-id"], identity["generationId"].encode(), "generation"
    )
    equal(system[b"iothub-message-source"], b"Telemetry", "source")
    assert b"iothub-enqueuedtime" in system and b"iothub-connection-auth-method" in system, system
    equal([len(body) for body in reading.bodies(2)], [200_000, 0], "sizes")
    reading.close()


@both("owner_level")
def owner_level(transport):
    """A higher level takes the partition; a lower one, and one without, is refused."""
    identity, found = sent("eh-owner", "one")
    partition, group = str(found[0]["partition"]), f"owners-{identity['deviceId']}"

    def reading(**options):
        return Reading(
            client(transport, consumer_group=group),
            identity["deviceId"],
            partition_id=partition,
            starting_position="-1",
            **options,
        )

    low = reading(owner_level=1)
    equal(low.bodies(1), ["one"], "the first owner")
    high = reading(owner_level=2)
    equal(high.bodies(1), ["one"], "the second owner")
    error = low.errors.next("the first owner's loss")
    assert "stolen" in str(error).lower(), repr(error)
    low.close()
    for level in (1, None):
        late = reading(owner_level=level)
        error = late.errors.next(f"refusal of level {level}")
        assert isinstance(error, EventHubError) and late.events.empty(), repr(error)
        late.close()
    send(identity, "two")
    equal(high.bodies(1), ["two"], "the owner reads on")
    high.close()


@case("events.python.balance")
def balance():
    """Two clients with one store share the partitions; when one goes, the other has them all."""
    from azure.eventhub._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore

    identity, found = sent("eh-balance", "one")
    store, owned = InMemoryCheckpointStore(), {}
    group = f"balance-{identity['deviceId']}"

    def reading(name):
        owned[name] = set()
        consumer = client(
            TransportType.Amqp,
            consumer_group=group,
            checkpoint_store=store,
            load_balancing_interval=1,
            partition_ownership_expiration_interval=6,
            retry_total=3,
        )
        return Reading(
            consumer,
            identity["deviceId"],
            starting_position="-1",
            on_partition_initialize=lambda context: owned[name].add(context.partition_id),
        )

    def shares():
        found = store.list_ownership(hub()["hostName"], hub()["hostName"].split(".")[0], group)
        counts = {}
        for one in found:
            counts[one["owner_id"]] = counts.get(one["owner_id"], 0) + 1
        return sorted(count for owner, count in counts.items() if owner)

    first = reading("first")
    until("the first has every partition", lambda: shares() == [4], 60)
    equal(first.bodies(1), ["one"], "the first reads")
    second = reading("second")
    until("both have two", lambda: shares() == [2, 2], 60)
    until("the second reads its partitions", lambda: len(owned["second"]) >= 2, 60)
    first.close()
    until("the second has every partition", lambda: owned["second"] == set(PARTITIONS), 60)
    send(identity, "two")
    while second.events.next("the event after the change").body_as_str() != "two":
        pass
    second.close()


@both("refused")
def refused(transport):
    """A wrong key, a policy without the right, an unknown hub and partition."""
    parts = dict(part.split("=", 1) for part in hub()["connectionStrings"]["device"].split(";"))
    device = {"SharedAccessKeyName": "device", "SharedAccessKey": parts["SharedAccessKey"]}
    for what, changes in (
        ("a wrong key", {"SharedAccessKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
        ("a policy of devices", device),
        ("an unknown policy", {"SharedAccessKeyName": "nobody"}),
        ("an unknown hub", {"EntityPath": "elsewhere"}),
    ):
        with client(transport, changes) as consumer:
            try:
                found = consumer.get_eventhub_properties()
            except EventHubError as error:
                print(what, repr(error))
                continue
            raise AssertionError(f"{what}: succeeded, {found}")
    with client(transport) as consumer:
        try:
            found = consumer.get_partition_properties("77")
        except EventHubError as error:
            print("an unknown partition", repr(error))
        else:
            raise AssertionError(f"an unknown partition: {found}")


main()
