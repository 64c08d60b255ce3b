"""The hub's REST interface as a service sees it: shared access signatures and one request at a time.

Called by the runner (readiness, devices, `control.py`). The cases that test the REST interface itself
use the public service SDKs; this is only the tool for everything around them.
"""

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse

API_VERSION = "2021-04-12"


def connection_string_parts(text):
    """`HostName=…;SharedAccessKey=…` as a dictionary."""
    return dict(part.split("=", 1) for part in text.split(";") if part)


def sas_token(resource, key, expiry, policy=None):
    """A token over `resource` with a base64 `key`, valid until `expiry` (seconds since 1970)."""
    quoted = urllib.parse.quote(resource, safe="")
    mac = hmac.new(base64.b64decode(key), f"{quoted}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(mac).decode(), safe="")
    token = f"SharedAccessSignature sr={quoted}&sig={signature}&se={expiry}"
    return token if policy is None else f"{token}&skn={policy}"


class Rest:
    """Requests to one hub, signed with the policies of its `hub.json`."""

    def __init__(self, hub, port=443):
        self.hub = hub
        self.port = port
        self._context = ssl.create_default_context(cafile=hub["authority"])

    def token(self, policy):
        parts = connection_string_parts(self.hub["connectionStrings"][policy])
        return sas_token(parts["HostName"], parts["SharedAccessKey"], int(time.time()) + 3600, policy)

    def request(self, method, path, body=None, headers=None, policy="iothubowner", token=None):
        """One request. Gives status, headers (names in lower case) and body text. `policy=None` sends no token."""
        headers = dict(headers or {})
        if token or policy:
            headers["Authorization"] = token or self.token(policy)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        if "api-version" not in path:
            path += ("&" if "?" in path else "?") + f"api-version={API_VERSION}"
        if isinstance(body, str):
            body = body.encode()
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self._context)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            named = {name.lower(): value for name, value in answer.getheaders()}
            return {"status": answer.status, "headers": named, "body": text}
        finally:
            connection.close()

    def expect(self, method, path, wanted=(200, 201, 204), **options):
        """Like `request`, but anything else than `wanted` is an error. Gives the parsed body, if any."""
        answer = self.request(method, path, **options)
        if answer["status"] not in wanted:
            raise RuntimeError(f"{method} {path}: {answer['status']} {answer['body'][:300]}")
        return json.loads(answer["body"]) if answer["body"].strip() else None
