"""Uploaded files on S3 and on Azure: what a device sends arrives there, whole, and comes back from there.

The hub is told by its environment only; the device is `azure-iot-device`, and what a storage SDK would
send is sent by hand: one PUT, or blocks and their list. The store is asked what it really has.
"""

import base64
import os
import urllib.parse
import urllib.request
import xml.etree.ElementTree

from kit import case, equal, main, runner
from kit_device import client, new_device, transfer, within

# More than one part of 5 MiB, and not a multiple of it.
LARGE = os.urandom((11 << 20) + 7)


def everywhere(name):
    """Registers a case once per store."""

    def register(function):
        for store in ("s3", "azure"):
            case(f"stored.{store}.{name}", f"stored-{store}")(function)
        return function

    return register


def in_store(device):
    """What the store has of a device: the names, with the bytes of each."""
    place = runner.info()["store"]

    def get(url):
        request = urllib.request.Request(url, headers=place["headers"])
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    listed = xml.etree.ElementTree.fromstring(get(place["list"]))
    names = [name.text for name in listed.findall(f".//{{*}}{place['tag']}") if f"/{device}/" in name.text]
    return {name: get(f"{place['files']}/{urllib.parse.quote(name)}") for name in names}


def begun(name):
    """A device that has asked where to put a file. Gives its client, its id, the answer, and the name in the store."""
    identity = new_device("py-stored")
    device = client(identity)
    info = within("storage info", lambda: device.get_storage_info_for_blob(name))
    stored = f"{runner.info()['store']['prefix']}/{info['containerName']}/{info['blobName']}"
    return device, identity["deviceId"], info, stored


def finish(device, info):
    within("notify", lambda: device.notify_blob_upload_status(info["correlationId"], True, 201, "created"))


@everywhere("blob_upload")
def small_file():
    """A file of one request, with a name that wants quoting; it is the only thing that the store has of the device."""
    device, device_id, info, stored = begun("folder/a b+c.bin")
    transfer("PUT", info, b"content of the file")
    finish(device, info)
    equal(transfer("GET", info), b"content of the file", "the file")
    equal(in_store(device_id), {stored: b"content of the file"}, "the store")


@everywhere("large_blob_upload")
def large_file():
    """A file that the hub hands on in parts; whole, and a range of it across two of them."""
    device, device_id, info, stored = begun("large.bin")
    transfer("PUT", info, LARGE)
    finish(device, info)
    assert transfer("GET", info) == LARGE, "the file came back changed"
    first, last = (5 << 20) - 10, (5 << 20) + 9
    part = transfer("GET", info, headers={"x-ms-range": f"bytes={first}-{last}"})
    equal(part, LARGE[first : last + 1], "a range")
    assert in_store(device_id) == {stored: LARGE}, "the store has something else"


@everywhere("blocks")
def blocks():
    """Blocks in another order than their list, one of them larger than a part, one not in the list. No block stays."""
    device, device_id, info, stored = begun("blocks.bin")
    sent = {"b": LARGE[: 6 << 20], "a": b"first", "c": b"last", "x": b"not wanted"}
    ids = {name: base64.b64encode(f"block-{name}".encode()).decode() for name in sent}
    for name, content in sent.items():
        transfer("PUT", info, content, {"comp": "block", "blockid": ids[name]})
    equal(len(in_store(device_id)), len(sent), "blocks that wait")
    listed = "".join(f"<Latest>{ids[name]}</Latest>" for name in "abc")
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
    transfer("PUT", info, body, {"comp": "blocklist"})
    finish(device, info)
    wanted = sent["a"] + sent["b"] + sent["c"]
    assert transfer("GET", info) == wanted, "the file came back changed"
    assert in_store(device_id) == {stored: wanted}, "the store has something else"


main()
