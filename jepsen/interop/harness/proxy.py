"""A TCP relay that stands between the SDKs and the nodes, so that a case can break the network.

SDKs can't be told another port than 8883 and 443, so the relay has these ports and the nodes others.
`run.py` makes one relay for MQTT and one for HTTPS; cases command them through `control.py`.

Invariants: bytes are never changed or held back while the relay is open; an end of either side is
passed on to the other. While held, a connection attempt is accepted and closed at once, as a load
balancer without a healthy node does.

Not here: TLS (it passes through), delays and loss of single packets.
"""

import socket
import threading

CHUNK_BYTES = 65536


class Relay:
    """Listens on `listen` and passes every connection to `target`, both (host, port)."""

    def __init__(self, listen, target):
        self._target = target
        self._held = False
        self._lock = threading.Lock()
        self._open = set()
        self.accepted = 0
        self._listener = socket.create_server(listen, backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def target(self, target):
        """New connections go to `target`; open ones stay."""
        with self._lock:
            self._target = target

    def hold(self):
        """New connections are closed at once, until `release`."""
        with self._lock:
            self._held = True

    def release(self):
        """New connections pass again."""
        with self._lock:
            self._held = False

    def cut(self):
        """Resets every open connection on both sides. Gives how many there were."""
        with self._lock:
            pairs = list(self._open)
            self._open.clear()
        for pair in pairs:
            for end in pair:
                _reset(end)
        return len(pairs)

    def close(self):
        """Stops listening and resets what is open."""
        # shutdown wakes the accept call, close alone doesn't.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                target, held = self._target, self._held
            if held:
                client.close()
                continue
            threading.Thread(target=self._connect, args=(client, target), daemon=True).start()

    def _connect(self, client, target):
        try:
            node = socket.create_connection(target, timeout=10)
        except OSError:
            client.close()
            return
        node.settimeout(None)
        for end in (client, node):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, node)
        with self._lock:
            self._open.add(pair)
        threading.Thread(target=self._copy, args=(client, node, pair), daemon=True).start()
        self._copy(node, client, pair)

    def _copy(self, source, sink, pair):
        try:
            while chunk := source.recv(CHUNK_BYTES):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            with self._lock:
                self._open.discard(pair)
            for end in pair:
                _reset(end)


def _reset(end):
    try:
        # Linger of zero: the peer sees a reset, as after a crash, not an orderly end.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        end.close()
