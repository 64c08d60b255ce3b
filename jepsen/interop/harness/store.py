"""Stores that stand in for the public clouds, for hubs that keep uploaded files there: moto (S3) and Azurite (Azure).

`hub.py` starts one before the nodes of a kind that names one in `STORES`. Both keep everything in memory. Azurite
checks the signatures of requests, moto does not. Cases look into a store over plain HTTP, at `place`.
"""

import base64
import email.utils
import hashlib
import hmac
import os
import subprocess
import time
import urllib.request

NAME, PREFIX = "fleet", "hub/files"
START_S_MAX = 60
# The account that every Azurite has, and its key, which is no secret.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class S3:
    """moto's server."""

    def __init__(self, packages, port):
        self.command = [f"{packages}/moto/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
        self.endpoint = f"http://127.0.0.1:{port}"
        files = f"{self.endpoint}/{NAME}"
        self.place = {"files": files, "list": f"{files}?list-type=2", "tag": "Key", "prefix": PREFIX}
        # Files aren't given to nobody, but any name will do.
        self.place["headers"] = {"Authorization": "AWS interop:unchecked"}

    def make(self):
        """The request that makes the bucket."""
        return urllib.request.Request(self.place["files"], method="PUT")

    def variables(self):
        return {
            "FLEETLINE_OBJECTS": f"s3://{NAME}/{PREFIX}",
            "AWS_ACCESS_KEY_ID": "interop",
            "AWS_SECRET_ACCESS_KEY": "interop-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }


class Azure:
    """Azurite."""

    def __init__(self, packages, port):
        self.command = [
            *["node", f"{packages}/azurite/node_modules/.bin/azurite-blob", "--inMemoryPersistence"],
            *["--disableTelemetry", "--skipApiVersionCheck", "--silent"],
            *["--blobHost", "127.0.0.1", "--blobPort", str(port)],
        ]
        self.endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        files = f"{self.endpoint}/{NAME}"
        listing = f"{files}?restype=container&comp=list"
        self.place = {"files": files, "list": listing, "tag": "Name", "prefix": PREFIX, "headers": {}}

    def make(self):
        """The request that makes a container which everybody may read."""
        headers = {
            "x-ms-blob-public-access": "container",
            "x-ms-date": email.utils.formatdate(usegmt=True),
            "x-ms-version": "2021-12-02",
        }
        lines = "\n".join(f"{name}:{value}" for name, value in headers.items())
        text = "PUT" + "\n" * 12 + f"{lines}\n/{ACCOUNT}/{ACCOUNT}/{NAME}\nrestype:container"
        mac = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"
        url = f"{self.place['files']}?restype=container"
        return urllib.request.Request(url, headers=headers, method="PUT")

    def variables(self):
        return {
            "FLEETLINE_OBJECTS": f"azure://{NAME}/{PREFIX}",
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }


# The store of a kind of hub.
STORES = {"stored-s3": S3, "stored-azure": Azure}


class Store:
    """A running store. `place` tells cases where to look."""

    def __init__(self, what, log_path):
        self.what, self.place = what, what.place
        with open(log_path, "ab") as log:
            self._process = subprocess.Popen(what.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_ready(self):
        """Waits until the store answers, and makes the bucket or container."""
        end = time.monotonic() + START_S_MAX
        while True:
            try:
                with urllib.request.urlopen(self.what.make(), timeout=5):
                    return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the store of files doesn't answer: {error}") from None
                time.sleep(0.05)

    def environment(self):
        """The environment of a node that keeps its files here."""
        # Proxies of the surroundings must not stand between a node and the store.
        return {**os.environ, **self.what.variables(), "NO_PROXY": "127.0.0.1"}

    def close(self):
        self._process.kill()
        self._process.wait()
