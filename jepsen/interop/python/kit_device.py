"""Making device and module clients of `azure-iot-device`, and watching what they receive.

Used by the files whose cases drive that SDK. The SDK is used as published; only its options differ.
"""

import ssl
import threading
import urllib.parse
import urllib.request

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse

from kit import Inbox, authority, equal, expect, invoke, patch_desired, runner, send_command, until

TRANSPORTS = {"mqtt": {}, "ws": {"websockets": True}}


def client(identity, **options):
    """A client of a device or module that the runner has registered."""
    kind = IoTHubModuleClient if "moduleId" in identity else IoTHubDeviceClient
    options = {"server_verification_cert": authority(), **options}
    return kind.create_from_connection_string(identity["connectionString"], **options)


def within(what, call, seconds=60):
    """Runs an SDK call that has no time limit of its own, and fails when it doesn't end."""
    done = {}

    def run():
        try:
            done["result"] = call()
        except BaseException as error:
            done["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in done:
        raise done["error"]
    if "result" not in done:
        raise AssertionError(f"{what}: no end after {seconds} s")
    return done["result"]


def listen(device):
    """Attaches every handler a device can have. Gives inboxes for commands, methods and desired patches."""
    commands, methods, patches = Inbox(), Inbox(), Inbox()

    def answer(request):
        methods.put(request)
        device.send_method_response(
            MethodResponse.create_from_method_request(request, 200, {"echo": request.payload})
        )

    device.on_message_received = commands.put
    device.on_method_request_received = answer
    device.on_twin_desired_properties_patch_received = patches.put
    return commands, methods, patches


def check_reachable(identity, inboxes, mark):
    """A command, a method call and a desired change reach the device: its subscriptions live."""
    commands, methods, patches = inboxes
    device_id = identity["deviceId"]
    send_command(device_id, f"command {mark}")
    equal(commands.next(f"command {mark}").data, f"command {mark}".encode(), "command")
    # connect_s lets the hub wait for a device that is just coming back.
    equal(
        invoke(device_id, "echo", {"mark": mark}, connect_s=20)[1],
        {"status": 200, "payload": {"echo": {"mark": mark}}},
        f"method {mark}",
    )
    equal(methods.next("method request").name, "echo", "method name")
    version = patch_desired(device_id, {"mark": mark})
    # After a reconnect the SDK reads the twin and may report an older change first.
    patch = until(f"desired change {mark}", lambda: next_patch(patches, version))
    equal(patch, {"mark": mark, "$version": version}, "desired change")


def next_patch(patches, version):
    """The next patch of at least this version, or None when an older one came."""
    patch = patches.next(f"desired version {version}")
    return patch if patch["$version"] >= version else None


def new_device(prefix, **body):
    return runner.device(prefix=prefix, body=body)


def transfer(method, info, body=None, query=None, headers=None):
    """One HTTPS request to where the hub sent us, as a storage SDK makes it. Gives the body of the answer."""
    url = f"https://{info['hostName']}/{info['containerName']}/{urllib.parse.quote(info['blobName'])}{info['sasToken']}"
    if query:
        url += "&" + urllib.parse.urlencode(query)
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02", **(headers or {})}
    request = urllib.request.Request(url, body, headers, method=method)
    context = ssl.create_default_context(cadata=authority())
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        return answer.read()


__all__ = [
    "IoTHubDeviceClient",
    "IoTHubModuleClient",
    "Message",
    "TRANSPORTS",
    "check_reachable",
    "client",
    "expect",
    "listen",
    "new_device",
    "transfer",
    "within",
]
