"""`signalrcore` (Python) against realtime hubs: straight to the hub, in both protocols."""

import base64
import hashlib
import hmac
import json
import ssl
import time
import urllib.request
import uuid

from kit import Inbox, case, equal, hub, main
from signalrcore.hub_connection_builder import HubConnectionBuilder
from signalrcore.protocol.messagepack_protocol import MessagePackHubProtocol


def service():
    """Base address and key."""
    parts = dict(part.split("=", 1) for part in hub()["realtime"].split(";") if part)
    port = f":{parts['Port']}" if "Port" in parts else ""
    return parts["Endpoint"].rstrip("/") + port, parts["AccessKey"]


def token(audience, key, **claims):
    def encoded(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    body = {"aud": audience, "exp": int(time.time()) + 3600, **claims}
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, body)]
    signed = b".".join(parts)
    return (signed + b"." + encoded(hmac.new(key.encode(), signed, hashlib.sha256).digest())).decode()


def send(name, *arguments):
    base, key = service()
    url = f"{base}/api/v1/hubs/{name}"
    body = json.dumps({"target": "news", "arguments": arguments}).encode()
    headers = {"Authorization": f"Bearer {token(url, key)}", "Content-Type": "application/json"}
    trusted = ssl.create_default_context(cafile=hub()["authority"])
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), context=trusted) as answer:
        equal(answer.status, 202, "status of sending")


def check(protocol):
    base, key = service()
    name = f"h{uuid.uuid4().hex[:8]}"
    url = f"{base}/client/?hub={name}"
    builder = HubConnectionBuilder().with_url(
        url, options={"access_token_factory": lambda: token(url, key, nameid="py")}
    )
    if protocol is not None:
        builder = builder.with_hub_protocol(protocol())
    connection = builder.build()
    opened, news = Inbox(), Inbox()
    connection.on_open(lambda: opened.put(True))
    connection.on("news", news.put)
    connection.start()
    opened.next("open")
    send(name, 7, "ü", {"a": [None, 1.5]})
    equal(news.next("news"), [7, "ü", {"a": [None, 1.5]}], "arguments")
    connection.stop()


@case("realtime.python.signalrcore.json", "tiers")
def json_protocol():
    check(None)


@case("realtime.python.signalrcore.msgpack", "tiers")
def msgpack_protocol():
    check(MessagePackHubProtocol)


main()
