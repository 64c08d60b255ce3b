"""A hub of one or three real `fleetline` processes, with relays in front of them when a case breaks the network.

`run.py` starts one per kind of case (`KINDS`) and stops it before the next, because SDKs know no other
ports than 8883, 443 and 5671. Data folders and logs lie under `target/interop/run/KIND` and stay for reading.

Invariant: `Hub.start` returns when every node answers `/readyz`, `client/hub.json` is there, a REST
request succeeds and, in a cluster, every partition has all its replicas.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

from .proxy import Relay
from .records import Reader
from .rest import Rest
from .store import STORES, Store

# Nodes, and whether relays stand on 8883 and 443.
KINDS = {
    "single": (1, False),
    "stored-s3": (1, False),
    "stored-azure": (1, False),
    "relayed": (1, True),
    "cluster": (3, True),
    "tiers": (1, False),
    "tiers-cluster": (3, True),
}
# Where Python and Node functions find their packages (`broker/workers/setup.sh`); a kind named `tiers` runs them.
WORKERS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, os.pardir, "target", "workers"
)
MQTT, HTTPS, AMQP = ("127.0.0.1", 8883), ("127.0.0.1", 443), ("127.0.0.1", 5671)
START_S_MAX = 90


class NodeEnded(Exception):
    """A process ended that should run. Not a RuntimeError: waiting goes on over those."""


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(what, check, within_s=START_S_MAX):
    """Calls `check` until it gives something; the last error is in the message when it never does."""
    end, last = time.monotonic() + within_s, None
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except (OSError, RuntimeError, ValueError) as error:
            last = error
        time.sleep(0.1)
    raise RuntimeError(f"{what}: not within {within_s} s ({last})")


class Node:
    """One process. It keeps its ports and its folder over restarts."""

    def __init__(self, binary, folder, mqtt, https, amqp, environment=None):
        self.binary, self.folder, self.environment = binary, folder, environment
        self.mqtt, self.https, self.amqp = mqtt, https, amqp
        self.native, self.peer, self.ops, self.plain, self.http = (
            ("127.0.0.1", _free_port()) for _ in range(5)
        )
        self.process, self.workers = None, None

    def start(self, *more):
        arguments = [self.binary, "serve", "--data", self.folder]
        for flag, address in (
            ("listen", self.native),
            ("peer-listen", self.peer),
            ("ops-listen", self.ops),
            ("mqtt-listen", self.mqtt),
            ("mqtt-plain-listen", self.plain),
            ("https-listen", self.https),
            ("amqp-listen", self.amqp),
        ):
            arguments += [f"--{flag}", "%s:%d" % address]
        if self.workers:
            arguments += ["--workers", self.workers]
        with open(f"{self.folder}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*arguments, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def wait_ready(self):
        until(f"node {self.folder} ready", self._is_ready)

    def _is_ready(self):
        self.check_alive()
        with urllib.request.urlopen("http://%s:%d/readyz" % self.ops, timeout=5) as answer:
            return answer.status == 200

    def check_alive(self):
        if self.process is not None and self.process.poll() is not None:
            raise NodeEnded(f"node ended ({self.process.returncode}), see {self.folder}.log")

    def number(self):
        """The id that the cluster gave it."""
        with open(os.path.join(self.folder, "node.json"), encoding="utf-8") as file:
            return json.load(file)["node"]

    def kill(self):
        """SIGKILL, and waits until it is gone."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM, and waits until it has ended in good order."""
        self.process.terminate()
        self.process.wait()
        self.process = None


class Hub:
    """The nodes of one kind, their relays, REST, the reader of their stream and the store of their files."""

    def __init__(self, binary, home, kind, packages):
        self.binary, self.kind, self.packages = binary, kind, packages
        self.home = os.path.join(home, kind)
        self.nodes, self.relays, self.reader, self.rest, self.store = [], {}, None, None, None

    def start(self):
        count, relayed = KINDS[self.kind]
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(self.home)
        if what := STORES.get(self.kind):
            self.store = Store(what(self.packages, _free_port()), os.path.join(self.home, "store.log"))
            self.store.wait_ready()
        environment = self.store and self.store.environment()
        for number in range(1, count + 1):
            mqtt, https, amqp = (
                (("127.0.0.1", _free_port()) for _ in range(3)) if relayed else (MQTT, HTTPS, AMQP)
            )
            node = Node(self.binary, os.path.join(self.home, f"n{number}"), mqtt, https, amqp, environment)
            node.workers = os.path.realpath(WORKERS) if self.kind.startswith("tiers") else None
            self.nodes.append(node)
            node.start(*(["--join", self._token()] if number > 1 else ["--partitions", "4"]))
            node.wait_ready()
        if relayed:
            self.relays = {
                "mqtt": Relay(MQTT, self.nodes[0].mqtt),
                "https": Relay(HTTPS, self.nodes[0].https),
            }
        if count > 1:
            until("every partition replicated", self._is_replicated)
        self.path = os.path.join(self.context, "hub.json")
        hub = until("client/hub.json", self._read_hub)
        self.rest = Rest(hub)
        self.wait_rest()
        self.write_endpoints()
        self.reader = Reader(self.binary, self.context, os.path.join(self.home, "reader.log"))

    @property
    def context(self):
        return os.path.join(self.nodes[0].folder, "client")

    def _read_hub(self):
        with open(self.path, encoding="utf-8") as file:
            return json.load(file)

    def wait_rest(self):
        until("REST answers", lambda: self.rest.request("GET", "/devices?top=1")["status"] == 200)

    def write_endpoints(self):
        """All nodes, so that the reader lives on when one is down."""
        with open(os.path.join(self.context, "endpoints"), "w", encoding="utf-8") as file:
            file.writelines("%s:%d\n" % node.native for node in self.nodes)

    def _fleetline(self, *arguments):
        command = [self.binary, *arguments, "--context", self.context]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"fleetline {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def deploy(self, folder, app, settings):
        """Deploys a function app as its user does, and waits until it runs. Once is enough."""
        given = [word for name, value in settings.items() for word in ("--setting", f"{name}={value}")]
        authority, https = self.rest.hub["authority"], "localhost:%d" % self.running().https[1]
        self._fleetline(
            "functions", "--https", https, "--authority", authority, "deploy", folder, "--app", app, *given
        )

    def running(self):
        """The first node that runs."""
        return next(node for node in self.nodes if node.process is not None)

    def _token(self):
        words = self._fleetline("cluster", "token").split()
        return next(word for word in words if word.startswith("flt1."))

    def _partition_states(self):
        return json.loads(self._fleetline("cluster", "status", "--json"))["partitions"]

    def leader_of(self, device):
        """The place of the node that leads the partition of a device."""
        partitions = self.reader.partitions
        until(f"partition of {device}", lambda: device in partitions)
        partition = partitions[device]
        leader = until(f"leader of partition {partition}", lambda: self._leader(partition))
        return next(place for place, node in enumerate(self.nodes) if node.number() == leader)

    def _leader(self, partition):
        return next(state["leader"] for state in self._partition_states() if state["partition"] == partition)

    def _is_replicated(self):
        partitions = self._partition_states()
        return partitions and all(
            len(p["voters"]) == len(self.nodes) and p["leader"] is not None for p in partitions
        )

    def restore(self):
        """Everything as after `start`: relays open and on the first node, every node running. Between cases."""
        for node in self.nodes:
            if node.process is None:
                node.start()
        for node in self.nodes:
            node.wait_ready()
        for name, relay in self.relays.items():
            relay.target(getattr(self.nodes[0], name))
            relay.release()
        if len(self.nodes) > 1:
            until("every partition replicated", self._is_replicated)
        self.wait_rest()

    def close(self):
        if self.reader:
            self.reader.close()
        for relay in self.relays.values():
            relay.close()
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        if self.store:
            self.store.close()
