"""Credentials with `azure-iot-device` (Python): every way to make a client, X.509 thumbprints, and what is refused.

A refusal must be CONNACK 4 or 5, which the SDK reports as `CredentialError`; anything else makes it retry for ever.
"""

import time

from azure.iot.device import X509
from azure.iot.device.exceptions import CredentialError

from kit import (
    Inbox,
    authority,
    case,
    equal,
    expect,
    main,
    primary_key,
    records,
    runner,
    send_command,
    token,
    until,
)
from kit_device import IoTHubDeviceClient, client, new_device, within


def sends(device, device_id, body):
    within("connect", device.connect)
    within("send", lambda: device.send_message(body))
    equal(records(device_id, 1)[0]["body"], body, "telemetry")
    within("shutdown", device.shutdown)


def refused(device, what):
    """connect() must end with CredentialError."""
    try:
        within(what, device.connect)
    except CredentialError:
        return
    raise AssertionError(f"{what}: was let in")


@case("python.create.connection_string")
def by_connection_string():
    identity = new_device("py-cs")
    sends(client(identity), identity["deviceId"], "connection string")


@case("python.create.secondary_key")
def by_secondary_key():
    identity = new_device("py-cs2")
    key = identity["authentication"]["symmetricKey"]["secondaryKey"]
    device = IoTHubDeviceClient.create_from_symmetric_key(
        key, "localhost", identity["deviceId"], server_verification_cert=authority()
    )
    sends(device, identity["deviceId"], "secondary key")


@case("python.create.symmetric_key")
def by_symmetric_key():
    identity = new_device("py-key")
    key = primary_key(identity)
    device = IoTHubDeviceClient.create_from_symmetric_key(
        key, "localhost", identity["deviceId"], server_verification_cert=authority()
    )
    sends(device, identity["deviceId"], "symmetric key")


@case("python.create.sastoken")
def by_token():
    identity = new_device("py-sas")
    text = token(identity["deviceId"], primary_key(identity), 600)
    sends(
        IoTHubDeviceClient.create_from_sastoken(text, server_verification_cert=authority()),
        identity["deviceId"],
        "token",
    )


@case("python.create.policy_token")
def by_policy_token():
    """A token of the hub's `device` policy may speak for any device."""
    identity = new_device("py-policy")
    key = next(
        part.removeprefix("SharedAccessKey=")
        for part in runner.info()["hub"]["connectionStrings"]["device"].split(";")
        if part.startswith("SharedAccessKey=")
    )
    text = token(identity["deviceId"], key, 600, policy="device")
    sends(
        IoTHubDeviceClient.create_from_sastoken(text, server_verification_cert=authority()),
        identity["deviceId"],
        "policy",
    )


def x509_device(prefix, thumbprint, place="primaryThumbprint"):
    certificate = runner.certificate(name=prefix)
    prints = {"primaryThumbprint": None, "secondaryThumbprint": None, place: certificate[thumbprint]}
    identity = new_device(prefix, authentication={"type": "selfSigned", "x509Thumbprint": prints})
    return identity["deviceId"], X509(certificate["cert"], certificate["key"])


def by_certificate(prefix, thumbprint, place="primaryThumbprint", **options):
    device_id, x509 = x509_device(prefix, thumbprint, place)
    device = IoTHubDeviceClient.create_from_x509_certificate(
        x509, "localhost", device_id, server_verification_cert=authority(), **options
    )
    sends(device, device_id, "certificate")


@case("python.x509.sha1")
def by_sha1():
    by_certificate("py-x509-sha1", "sha1")


@case("python.x509.sha256_secondary")
def by_sha256():
    by_certificate("py-x509-sha256", "sha256", "secondaryThumbprint")


@case("python.x509.websocket")
def by_certificate_over_websocket():
    by_certificate("py-x509-ws", "sha256", websockets=True)


@case("python.x509.wrong_certificate")
def wrong_certificate():
    device_id, _ = x509_device("py-x509-own", "sha1")
    other = runner.certificate(name="py-x509-other")
    x509 = X509(other["cert"], other["key"])
    refused(
        IoTHubDeviceClient.create_from_x509_certificate(
            x509, "localhost", device_id, server_verification_cert=authority()
        ),
        "a certificate that is not the device's",
    )


@case("python.x509.token_refused")
def token_for_certificate_device():
    """A device that authenticates by certificate has no key: a token of any key is refused."""
    device_id, _ = x509_device("py-x509-tok", "sha1")
    text = token(device_id, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 600)
    refused(IoTHubDeviceClient.create_from_sastoken(text, server_verification_cert=authority()), "a token")


@case("python.x509.certificate_refused")
def certificate_for_key_device():
    """A device that authenticates by keys doesn't enter by any certificate."""
    identity, certificate = new_device("py-x509-no"), runner.certificate(name="py-x509-nobody")
    x509 = X509(certificate["cert"], certificate["key"])
    refused(
        IoTHubDeviceClient.create_from_x509_certificate(
            x509, "localhost", identity["deviceId"], server_verification_cert=authority()
        ),
        "a certificate",
    )


@case("python.refused.wrong_key")
def wrong_key():
    for options in ({}, {"websockets": True}):
        identity = new_device("py-wrongkey")
        identity["connectionString"] = identity["connectionString"].replace(
            primary_key(identity), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        )
        refused(client(identity, **options), f"a wrong key {options}")


@case("python.refused.unknown_device")
def unknown_device():
    refused(
        client(
            {
                "connectionString": "HostName=localhost;DeviceId=nobody-here;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAA="
            }
        ),
        "an unknown device",
    )


@case("python.refused.disabled_device")
def disabled_device():
    """Disabling cuts the live connection and refuses the next; enabling lets it in again."""
    identity = new_device("py-disabled")
    device_id = identity["deviceId"]
    device = client(identity, connection_retry=False)
    dropped = Inbox()
    within("connect", device.connect)
    device.on_connection_state_change = lambda: dropped.put(device.connected)
    path = f"/devices/{device_id}"
    described = expect("GET", path)
    expect("PUT", path, body={**described, "status": "disabled"}, headers={"If-Match": "*"})
    equal(dropped.next("disabling cuts the connection"), False, "state")
    refused(device, "a disabled device")
    expect("PUT", path, body={**described, "status": "enabled"}, headers={"If-Match": "*"})
    within("connect after enabling", device.connect)
    within("shutdown", device.shutdown)


@case("python.refused.deleted_device")
def deleted_device():
    """Deleting cuts the live connection; the id registered anew is another device with another key."""
    identity = new_device("py-deleted")
    device_id = identity["deviceId"]
    device = client(identity, connection_retry=False)
    dropped = Inbox()
    within("connect", device.connect)
    device.on_connection_state_change = lambda: dropped.put(device.connected)
    expect("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})
    equal(dropped.next("deleting cuts the connection"), False, "state")
    again = expect("PUT", f"/devices/{device_id}", body={"deviceId": device_id})
    assert again["generationId"] != identity["generationId"], "the generation is the same"
    refused(device, "the key of the deleted device")


@case("python.takeover")
def newest_stays():
    """Two clients with one id: the newest stays, the older is cut, and what is sent arrives at the newest."""
    identity = new_device("py-takeover")
    older, newer = (client(identity, connection_retry=False) for _ in range(2))
    dropped, commands = Inbox(), Inbox()
    within("connect older", older.connect)
    older.on_connection_state_change = lambda: dropped.put(older.connected)
    within("connect newer", newer.connect)
    equal(dropped.next("the older is cut"), False, "state")
    newer.on_message_received = commands.put
    send_command(identity["deviceId"], "for the newest")
    equal(commands.next("command").data, b"for the newest", "command")
    assert newer.connected and not older.connected
    within("shutdown", newer.shutdown)


@case("python.token_expiry")
def expiry_closes():
    """A connection ends when its token does, and not before. The hub may grant a grace; a minute is looked at."""
    identity = new_device("py-expiry")
    began = time.monotonic()
    # The SDK asks for a new token 120 s before the end and complains; it doesn't disconnect by itself.
    device = IoTHubDeviceClient.create_from_sastoken(
        token(identity["deviceId"], primary_key(identity), 15),
        server_verification_cert=authority(),
        connection_retry=False,
    )
    within("connect", device.connect)
    until("closed at the end of the token", lambda: not device.connected, within_s=75)
    # The expiry is a whole second, and the hub's clock is this one.
    assert time.monotonic() - began > 13, "closed before the token ended"


main()
