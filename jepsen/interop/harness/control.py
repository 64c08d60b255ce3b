"""What cases ask of the runner, as JSON over HTTP on a loopback port: `POST /NAME {arguments}` gives the result.

One function per command in `Commands`; `python/kit.py` and `node/kit.js` call them. Cases run in their
own processes and in two languages, so what both need (REST, devices, records, faults) is here once.
"""

import http.server
import itertools
import json
import os
import threading

from . import certs
from .rest import connection_string_parts, sas_token

RECORDS_WAIT_S = 30


class Commands:
    """The commands. `self.hub` is the hub that runs now; `run.py` sets it."""

    def __init__(self, home):
        self.hub = None
        self._home = home
        self._numbers = itertools.count(1)

    def info(self):
        """Where things are."""
        return {
            "hub": self.hub.rest.hub,
            "plain": self.hub.nodes[0].plain[1],
            "nodes": len(self.hub.nodes),
            "contexts": [os.path.join(node.folder, "client") for node in self.hub.nodes],
            "processes": [node.process and node.process.pid for node in self.hub.nodes],
            "store": self.hub.store and self.hub.store.place,
        }

    def rest(self, method, path, body=None, headers=None, policy="iothubowner", token=None):
        """One REST request to the hub; see `Rest.request`."""
        return self.hub.rest.request(method, path, body, headers, policy, token)

    def token(self, resource, key, expiry, policy=None):
        """A shared access signature."""
        return sas_token(resource, key, expiry, policy)

    def device(self, prefix, body=None):
        """Registers a new device with made-up keys. Gives its identity, with `connectionString` added."""
        device_id = f"{prefix}-{next(self._numbers)}"
        wanted = {
            "deviceId": device_id,
            "status": "enabled",
            "authentication": {"type": "sas"},
            **(body or {}),
        }
        device = self.hub.rest.expect("PUT", f"/devices/{device_id}", body=wanted)
        key = (device["authentication"].get("symmetricKey") or {}).get("primaryKey")
        auth = f"SharedAccessKey={key}" if key else "x509=true"
        device["connectionString"] = f"HostName={self._host()};DeviceId={device_id};{auth}"
        return device

    def module(self, device, module):
        """Registers a module. Gives its identity, with `connectionString` added."""
        path = f"/devices/{device}/modules/{module}"
        body = {"deviceId": device, "moduleId": module, "authentication": {"type": "sas"}}
        identity = self.hub.rest.expect("PUT", path, body=body)
        key = identity["authentication"]["symmetricKey"]["primaryKey"]
        host = self._host()
        identity["connectionString"] = (
            f"HostName={host};DeviceId={device};ModuleId={module};SharedAccessKey={key}"
        )
        return identity

    def certificate(self, name):
        """A self-signed certificate; see `certs.self_signed`."""
        return certs.self_signed(os.path.join(self._home, "certs"), name)

    def deploy(self, folder, app, settings):
        """Deploys a function app; see `Hub.deploy`."""
        self.hub.deploy(folder, app, settings)

    def made(self, device, source, count, timeout_s=RECORDS_WAIT_S):
        """Records that the hub itself has put into the stream for a device; see `Reader.of_source`."""
        return self.hub.reader.of_source(device, source, count, timeout_s)

    def records(self, device, count, timeout_s=RECORDS_WAIT_S):
        """Stored records of a device; see `Reader.of_device`."""
        return self.hub.reader.of_device(device, count, timeout_s)

    def cut(self, relay="mqtt"):
        """Resets every connection through a relay. Gives how many there were."""
        return self.hub.relays[relay].cut()

    def accepted(self, relay="mqtt"):
        """How many connections a relay has seen."""
        return self.hub.relays[relay].accepted

    def hold(self, relay=None):
        """New connections to one port, or to both, are closed at once, until `release`."""
        for name in [relay] if relay else self.hub.relays:
            self.hub.relays[name].hold()

    def release(self):
        """New connections pass again."""
        for relay in self.hub.relays.values():
            relay.release()

    def kill(self, node=0):
        """SIGKILL to a node."""
        self.hub.nodes[node].kill()

    def start(self, node=0):
        """Starts a killed node again and waits until it is ready."""
        self.hub.nodes[node].start()
        self.hub.nodes[node].wait_ready()

    def leader(self, device):
        """The node that leads the partition of a device."""
        return self.hub.leader_of(device)

    def target(self, node):
        """New connections go to this node."""
        for name, relay in self.hub.relays.items():
            relay.target(getattr(self.hub.nodes[node], name))

    def _host(self):
        return connection_string_parts(self.hub.rest.hub["connectionStrings"]["iothubowner"])["HostName"]


def serve(commands):
    """Serves the commands on a free port until the process ends. Gives the base address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):  # noqa: N802, the name that http.server calls
            arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            try:
                name = self.path.strip("/")
                if name.startswith("_"):
                    raise AttributeError(name)
                answer, status = getattr(commands, name)(**arguments), 200
            except Exception as error:  # whatever it was, the case is told
                answer, status = f"{type(error).__name__}: {error}", 500
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A case that ended in the middle of a command is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return "http://127.0.0.1:%d" % server.server_address[1]
