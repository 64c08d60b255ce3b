"""`azure-iot-hub` (Python), REST part: registry, modules, bulk, statistics, twins, methods, purge, query.

Sending commands is AMQP: `service_amqp.py`. `REQUESTS_CA_BUNDLE` is set by the runner.
"""

import uuid

from azure.iot.device import MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    ExportImportDevice,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError

from kit import case, equal, hub, main, send_command, until
from kit_device import client, new_device, within

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
OTHER_KEY = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="


def manager(policy="iothubowner"):
    return IoTHubRegistryManager.from_connection_string(hub()["connectionStrings"][policy])


def fresh(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def refused(status, code, call):
    """The call must fail with this HTTP status and error name."""
    try:
        call()
    except HttpOperationError as error:
        equal(error.response.status_code, status, f"status ({error.response.text[:200]})")
        message = error.response.json()["Message"]
        assert message.startswith(f"ErrorCode:{code};"), message
        equal(error.response.headers.get("iothub-errorcode"), code, "header iothub-errorcode")
        return
    raise AssertionError(f"succeeded, wanted {status} {code}")


@case("service.python.devices")
def devices():
    """Create with keys of one's own, get, list, update, delete; a second create is a conflict."""
    registry, name = manager(), fresh("svc")
    made = registry.create_device_with_sas(name, KEY, OTHER_KEY, "enabled", status_reason="new")
    equal(
        (made.device_id, made.status, made.status_reason, made.connection_state),
        (name, "enabled", "new", "Disconnected"),
        "created",
    )
    keys = made.authentication.symmetric_key
    equal((made.authentication.type, keys.primary_key, keys.secondary_key), ("sas", KEY, OTHER_KEY), "keys")
    assert made.generation_id and made.etag, made
    refused(409, "DeviceAlreadyExists", lambda: registry.create_device_with_sas(name, KEY, KEY, "enabled"))
    equal(registry.get_device(name).etag, made.etag, "etag of get")
    assert name in [device.device_id for device in registry.get_devices()], "not in the list"
    equal(len(registry.get_devices(max_number_of_devices=1)), 1, "a list of one")
    changed = registry.update_device_with_sas(name, made.etag, KEY, KEY, "disabled", status_reason="why")
    equal(
        (changed.status, changed.status_reason, changed.generation_id),
        ("disabled", "why", made.generation_id),
        "updated",
    )
    assert changed.etag != made.etag, "the etag is the same"
    registry.delete_device(name)
    refused(404, "DeviceNotFound", lambda: registry.get_device(name))


@case("service.python.etags")
def etags():
    """An update or delete on condition of an old etag is refused and changes nothing."""
    registry, name = manager(), fresh("svc-etag")
    first = registry.create_device_with_sas(name, KEY, KEY, "enabled")
    second = registry.update_device_with_sas(name, first.etag, KEY, OTHER_KEY, "enabled")
    refused(
        412,
        "PreconditionFailed",
        lambda: registry.update_device_with_sas(name, first.etag, KEY, KEY, "disabled"),
    )
    refused(412, "PreconditionFailed", lambda: registry.delete_device(name, first.etag))
    found = registry.get_device(name)
    equal((found.etag, found.status), (second.etag, "enabled"), "after refusals")
    registry.delete_device(name, second.etag)
    refused(404, "DeviceNotFound", lambda: registry.delete_device(name))


@case("service.python.generated_keys")
def generated_keys():
    """Without keys the hub makes two different ones of 32 bytes or more; a new registration has another generation."""
    registry, name = manager(), fresh("svc-gen")
    first = registry.create_device_with_sas(name, None, None, "enabled")
    keys = first.authentication.symmetric_key
    assert keys.primary_key and keys.secondary_key and keys.primary_key != keys.secondary_key
    registry.delete_device(name)
    second = registry.create_device_with_sas(name, None, None, "enabled")
    assert (
        first.generation_id != second.generation_id
        and second.authentication.symmetric_key.primary_key != keys.primary_key
    )


@case("service.python.x509_devices")
def x509_devices():
    registry = manager()
    made = registry.create_device_with_x509(fresh("svc-x509"), "A" * 40, "B" * 64, "enabled")
    prints = made.authentication.x509_thumbprint
    equal(
        (made.authentication.type, prints.primary_thumbprint, prints.secondary_thumbprint),
        ("selfSigned", "A" * 40, "B" * 64),
        "thumbprints",
    )
    authority = registry.create_device_with_certificate_authority(fresh("svc-ca"), "enabled")
    equal(authority.authentication.type, "certificateAuthority", "type")


@case("service.python.names")
def names():
    """Every character that an id may have survives paths; one that it may not is refused."""
    registry, tail = manager(), uuid.uuid4().hex[:6]
    for name in (f"a-:.+%_#*?!(),=@;$'{tail}", f"{tail}{'x' * 122}"):
        registry.create_device_with_sas(name, KEY, KEY, "enabled")
        equal(registry.get_device(name).device_id, name, "id")
        equal(registry.get_twin(name).device_id, name, "id of the twin")
        registry.delete_device(name)
    upper = registry.create_device_with_sas(f"Case{tail}", KEY, KEY, "enabled")
    refused(404, "DeviceNotFound", lambda: registry.get_device(upper.device_id.lower()))
    for name in ("with space", "ü", "x" * 129):
        try:
            registry.create_device_with_sas(name, KEY, KEY, "enabled")
        except HttpOperationError as error:
            equal(error.response.status_code, 400, f"status for {name!r}")
        else:
            raise AssertionError(f"{name!r} was accepted")


@case("service.python.modules")
def modules():
    registry, name = manager(), fresh("svc-mod")
    registry.create_device_with_sas(name, KEY, KEY, "enabled")
    made = registry.create_module_with_sas(name, "m1", "me", KEY, OTHER_KEY)
    equal((made.device_id, made.module_id, made.managed_by), (name, "m1", "me"), "module")
    refused(
        409,
        "ModuleAlreadyExistsOnDevice",
        lambda: registry.create_module_with_sas(name, "m1", "me", KEY, KEY),
    )
    registry.create_module_with_x509(name, "m2", None, "A" * 40, "B" * 40)
    equal(sorted(module.module_id for module in registry.get_modules(name)), ["m1", "m2"], "list")
    changed = registry.update_module_with_sas(name, "m1", "you", made.etag, KEY, KEY)
    equal(changed.managed_by, "you", "managed by")
    refused(412, "PreconditionFailed", lambda: registry.delete_module(name, "m1", made.etag))
    registry.delete_module(name, "m1")
    refused(404, "ModuleNotFound", lambda: registry.get_module(name, "m1"))
    twin = registry.get_module_twin(name, "m2")
    equal((twin.module_id, twin.properties.desired["$version"]), ("m2", 1), "module twin")
    twin = registry.update_module_twin(
        name, "m2", Twin(properties=TwinProperties(desired={"a": 1})), twin.etag
    )
    equal(twin.properties.desired["a"], 1, "module twin")
    registry.delete_device(name)
    refused(404, "ModuleNotFound", lambda: registry.get_module(name, "m2"))


@case("service.python.bulk")
def bulk():
    """Create, update, twin update and delete in bulk; a failure is told by id and name and harms no other."""
    registry, names = manager(), [fresh("svc-bulk") for _ in range(20)]
    result = registry.bulk_create_or_update_devices(
        [ExportImportDevice(id=name, import_mode="create", status="enabled") for name in names]
    )
    equal((result.is_successful, result.errors), (True, []), "create")
    both = [
        ExportImportDevice(id=names[0], import_mode="create"),
        ExportImportDevice(id=names[1], import_mode="update", status="disabled"),
        ExportImportDevice(
            id=names[2], import_mode="updateTwin", tags={"t": 1}, properties={"desired": {"d": 2}}
        ),
    ]
    try:
        result = registry.bulk_create_or_update_devices(both)
    except HttpOperationError as error:
        # A partial failure is a 400 whose body is the result; the SDK knows no more than the status then.
        equal(error.response.status_code, 400, "status")
        failure = error.response.json()
    else:
        failure = result.serialize(keep_readonly=True)
    equal(
        (failure["isSuccessful"], [(entry["deviceId"], entry["errorCode"]) for entry in failure["errors"]]),
        (False, [(names[0], "DeviceAlreadyExists")]),
        "a partial failure",
    )
    equal(registry.get_device(names[1]).status, "disabled", "updated beside a failure")
    twin = registry.get_twin(names[2])
    equal((twin.tags, twin.properties.desired["d"]), ({"t": 1}, 2), "twin updated beside a failure")
    result = registry.bulk_create_or_update_devices(
        [ExportImportDevice(id=name, import_mode="delete") for name in names]
    )
    equal(result.is_successful, True, "delete")
    refused(404, "DeviceNotFound", lambda: registry.get_device(names[19]))


@case("service.python.statistics")
def statistics():
    registry = manager()
    name = fresh("svc-stat")
    registry.create_device_with_sas(name, KEY, KEY, "disabled")
    found = registry.get_device_registry_statistics()
    assert found.total_device_count >= 1 and found.disabled_device_count >= 1, found
    equal(found.enabled_device_count + found.disabled_device_count, found.total_device_count, "sum")
    device = client(new_device("svc-statconn"))
    within("connect", device.connect)
    until(
        "a connected device is counted", lambda: registry.get_service_statistics().connected_device_count >= 1
    )
    within("shutdown", device.shutdown)


@case("service.python.twins")
def twins():
    """Get, patch, replace; etags and versions; removal by null; metadata; an old etag is refused."""
    registry, name = manager(), fresh("svc-twin")
    registry.create_device_with_sas(name, KEY, KEY, "enabled")
    twin = registry.get_twin(name)
    equal(
        (twin.version, twin.etag, twin.status, twin.authentication_type),
        (1, "AAAAAAAAAAE=", "enabled", "sas"),
        "new twin",
    )
    patch = Twin(
        tags={"site": {"floor": 1, "room": "a"}},
        properties=TwinProperties(desired={"rate": 5, "list": [1, 2]}),
    )
    changed = registry.update_twin(name, patch, twin.etag)
    equal(
        (changed.tags, changed.properties.desired["rate"], changed.properties.desired["list"]),
        ({"site": {"floor": 1, "room": "a"}}, 5, [1, 2]),
        "patched",
    )
    assert changed.version > twin.version and changed.etag != twin.etag, changed
    metadata = changed.properties.desired["$metadata"]["rate"]
    assert metadata["$lastUpdated"] and metadata["$lastUpdatedVersion"] == 2, metadata
    refused(412, "PreconditionFailed", lambda: registry.update_twin(name, patch, twin.etag))
    changed = registry.update_twin(
        name, Twin(tags={"site": {"room": None}}, properties=TwinProperties(desired={"list": None}))
    )
    equal(
        (changed.tags, "list" in changed.properties.desired),
        ({"site": {"floor": 1}}, False),
        "removed by null",
    )
    replaced = registry.replace_twin(
        name, Twin(tags={"only": True}, properties=TwinProperties(desired={"x": 1})), changed.etag
    )
    desired = {key: value for key, value in replaced.properties.desired.items() if not key.startswith("$")}
    equal(
        (replaced.tags, desired, replaced.properties.desired["$version"]),
        ({"only": True}, {"x": 1}, 4),
        "replaced",
    )
    refused(412, "PreconditionFailed", lambda: registry.replace_twin(name, Twin(tags={}), changed.etag))
    refused(404, "DeviceNotFound", lambda: registry.get_twin("nobody-here"))


@case("service.python.twin_limits")
def twin_limits():
    registry, name = manager(), fresh("svc-limit")
    registry.create_device_with_sas(name, KEY, KEY, "enabled")
    for what, patch in (
        ("tags of 9 KiB", Twin(tags={f"k{n}": "x" * 3000 for n in range(3)})),
        (
            "desired of 33 KiB",
            Twin(properties=TwinProperties(desired={f"k{n}": "x" * 4000 for n in range(9)})),
        ),
        ("a dot", Twin(tags={"a.b": 1})),
        ("a long string", Twin(tags={"k": "x" * 4097})),
    ):
        try:
            registry.update_twin(name, patch)
        except HttpOperationError as error:
            assert error.response.status_code in (400, 413), f"{what}: {error.response.status_code}"
        else:
            raise AssertionError(f"{what}: was accepted")
    equal(registry.get_twin(name).version, 1, "version after refusals")


@case("service.python.methods")
def methods():
    registry, identity = manager(), new_device("svc-method")
    name = identity["deviceId"]
    refused(
        404,
        "DeviceNotOnline",
        lambda: registry.invoke_device_method(name, CloudToDeviceMethod(method_name="m")),
    )
    refused(
        404,
        "DeviceNotFound",
        lambda: registry.invoke_device_method("nobody-here", CloudToDeviceMethod(method_name="m")),
    )
    device = client(identity)
    within("connect", device.connect)
    device.on_method_request_received = lambda request: device.send_method_response(
        MethodResponse(request.request_id, 201, {"name": request.name, "got": request.payload})
    )
    answer = registry.invoke_device_method(
        name,
        CloudToDeviceMethod(
            method_name="do", payload={"a": 1}, response_timeout_in_seconds=20, connect_timeout_in_seconds=20
        ),
    )
    equal((answer.status, answer.payload), (201, {"name": "do", "got": {"a": 1}}), "answer")
    within("shutdown", device.shutdown)


@case("service.python.purge")
def purge():
    registry, identity = manager(), new_device("svc-purge")
    for number in range(3):
        send_command(identity["deviceId"], f"{number}")
    equal(registry.get_device(identity["deviceId"]).cloud_to_device_message_count, 3, "count")
    result = registry.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue(
        identity["deviceId"]
    )
    equal((result.total_messages_purged, result.device_id), (3, identity["deviceId"]), "result")
    equal(registry.get_device(identity["deviceId"]).cloud_to_device_message_count, 0, "count")


def tagged(registry, mark, count):
    """Devices whose twins carry a tag that no other case has."""
    names = [fresh("svc-query") for _ in range(count)]
    for number, name in enumerate(names):
        registry.create_device_with_sas(name, KEY, KEY, "enabled" if number % 2 == 0 else "disabled")
        registry.update_twin(
            name,
            Twin(tags={"mark": mark, "n": number}, properties=TwinProperties(desired={"rate": number * 10})),
        )
    return names


@case("service.python.query")
def query():
    """Conditions over tags, properties and built-in fields give the right twins, whole."""
    registry, mark = manager(), uuid.uuid4().hex
    names = tagged(registry, mark, 6)

    def found(condition):
        text = f"SELECT * FROM devices WHERE tags.mark = '{mark}' AND ({condition})"
        result = registry.query_iot_hub(QuerySpecification(query=text))
        equal(result.type, "Twin", "x-ms-item-type")
        return sorted(names.index(twin.device_id) for twin in result.items)

    for condition, wanted in (
        ("tags.n >= 0", [0, 1, 2, 3, 4, 5]),
        ("tags.n >= 3", [3, 4, 5]),
        ("tags.n < 1 OR tags.n = 5", [0, 5]),
        ("NOT tags.n IN [0, 1, 2]", [3, 4, 5]),
        ("properties.desired.rate <> 20", [0, 1, 3, 4, 5]),
        ("status = 'disabled'", [1, 3, 5]),
        (f"deviceId = '{names[2]}'", [2]),
        ("is_defined(tags.none)", []),
        ("is_defined(tags.n) and connectionState = 'Disconnected'", [0, 1, 2, 3, 4, 5]),
        ("tags.n = '3'", []),
    ):
        equal(found(condition), wanted, condition)
    twin = registry.query_iot_hub(
        QuerySpecification(query=f"SELECT * FROM devices WHERE deviceId = '{names[4]}'")
    ).items[0]
    equal(
        (twin.tags, twin.properties.desired["rate"], twin.etag),
        ({"mark": mark, "n": 4}, 40, registry.get_twin(names[4]).etag),
        "row",
    )
    try:
        registry.query_iot_hub(QuerySpecification(query="SELECT * FROM"))
    except HttpOperationError as error:
        equal(error.response.status_code, 400, "status of a broken query")
    else:
        raise AssertionError("a broken query was accepted")


@case("service.python.query_paging")
def query_paging():
    """Pages of two: every row once, and no continuation after the last."""
    registry, mark = manager(), uuid.uuid4().hex
    names, found, token, pages = tagged(registry, mark, 5), [], None, 0
    specification = QuerySpecification(query=f"SELECT * FROM devices WHERE tags.mark = '{mark}'")
    while True:
        page = registry.query_iot_hub(specification, token, 2)
        assert len(page.items) <= 2, f"{len(page.items)} rows in a page of two"
        found += [twin.device_id for twin in page.items]
        pages, token = pages + 1, page.continuation_token
        if not token:
            break
        assert pages < 20, "pages without end"
    equal(sorted(found), sorted(names), "rows of all pages")


@case("service.python.policies")
def policies():
    """Each policy may do what it is for and nothing else; a wrong key may do nothing."""
    identity = new_device("svc-policy")
    name = identity["deviceId"]

    def status(policy, call):
        try:
            call(manager(policy))
        except HttpOperationError as error:
            return error.response.status_code
        return 200

    read = lambda registry: registry.get_device(name)
    write = lambda registry: registry.update_device_with_sas(name, None, KEY, KEY, "enabled")
    twin = lambda registry: registry.get_twin(name)
    wanted = {
        "iothubowner": (200, 200, 200),
        "registryRead": (200, 401, 401),
        "registryReadWrite": (200, 200, 401),
        "service": (401, 401, 200),
        "device": (401, 401, 401),
    }
    for policy, codes in wanted.items():
        found = tuple(status(policy, call) for call in (read, write, twin))
        # Who is known but not allowed may be told 403 as well.
        equal(tuple(401 if code == 403 else code for code in found), codes, f"read, write, twin of {policy}")
    text = hub()["connectionStrings"]["iothubowner"]
    wrong = IoTHubRegistryManager.from_connection_string(
        text.split("SharedAccessKey=")[0] + f"SharedAccessKey={KEY}"
    )
    refused(401, "IotHubUnauthorized", lambda: wrong.get_device(name))


main()
