"""A bare MQTT client for the cases that look at the wire: paho-mqtt 1.6.1, with waiting built in.

Used by `raw_*.py`. It connects once, doesn't reconnect, and keeps what it was told.
"""

import socket
import ssl

import paho.mqtt.client as mqtt

from kit import Inbox, equal, hub, primary_key, token

API = "?api-version=2021-04-12"


class Raw:
    """One connection of one client id. `open` gives the CONNACK's code."""

    def __init__(
        self,
        client_id,
        user=None,
        password=None,
        clean=False,
        will=None,
        certificate=None,
        keep_alive=60,
        protocol=mqtt.MQTTv311,
        port=8883,
        tls=True,
    ):
        self.client_id, self.port, self.keep_alive = client_id, port, keep_alive
        self.client = mqtt.Client(
            client_id, clean_session=clean, protocol=protocol, reconnect_on_failure=False
        )
        if tls:
            context = ssl.create_default_context(cafile=hub()["authority"])
            if certificate:
                context.load_cert_chain(*certificate)
            self.client.tls_set_context(context)
        if user is not None:
            self.client.username_pw_set(user, password)
        if will:
            self.client.will_set(*will)
        # Nothing is held back by the client: pipelining is what some cases are about.
        self.client.max_inflight_messages_set(0)
        self.connacks, self.closed, self.messages = Inbox(), Inbox(), Inbox()
        self.pubacks, self.subacks, self.unsubacks = Inbox(), Inbox(), Inbox()
        self.client.on_connect = lambda _c, _u, flags, code: self.connacks.put(
            (code, flags["session present"])
        )
        self.client.on_disconnect = lambda _c, _u, code: self.closed.put(code)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_publish = lambda _c, _u, mid: self.pubacks.put(mid)
        self.client.on_subscribe = lambda _c, _u, mid, granted: self.subacks.put(list(granted))
        self.client.on_unsubscribe = lambda _c, _u, mid: self.unsubacks.put(mid)

    def open(self):
        """Connects; gives the code of the CONNACK and whether a session was present."""
        self.client.connect("localhost", self.port, keepalive=self.keep_alive)
        self.client.loop_start()
        return self.connacks.next("CONNACK")

    def subscribe(self, *filters):
        """One SUBSCRIBE with all `filters` (text, or text and QoS). Gives the return codes."""
        self.client.subscribe([entry if isinstance(entry, tuple) else (entry, 1) for entry in filters])
        return self.subacks.next("SUBACK")

    def unsubscribe(self, text):
        self.client.unsubscribe(text)
        self.unsubacks.next("UNSUBACK")

    def publish(self, topic, payload=b"", qos=1, retain=False):
        """One PUBLISH; with QoS 1 waits for its PUBACK, with QoS 0 until it is written."""
        info = self.client.publish(topic, payload, qos, retain)
        if qos < 2:
            equal(self.pubacks.next(f"PUBACK of {topic[:80]}"), info.mid, "packet id of the PUBACK")

    def message(self, what):
        """The next PUBLISH from the hub: topic and payload."""
        message = self.messages.next(what)
        return message.topic, message.payload

    def expect_close(self, what):
        """The hub ends the connection. Any code but 0 is an end that we didn't ask for."""
        code = self.closed.next(what)
        assert code != 0, f"{what}: we closed"

    def close(self):
        """DISCONNECT, and the end of the connection."""
        self.client.disconnect()
        self.closed.next("end after DISCONNECT")
        self.client.loop_stop()

    def drop(self):
        """Ends the TCP connection without DISCONNECT."""
        self.client.socket().shutdown(socket.SHUT_RDWR)


def user_of(device_id, module=None, query=API):
    return f"localhost/{device_id}/{module}/{query}" if module else f"localhost/{device_id}/{query}"


def raw(identity, life_s=600, **options):
    """A client of a registered device or module."""
    device_id, module = identity["deviceId"], identity.get("moduleId")
    client_id = f"{device_id}/{module}" if module else device_id
    scope = f"{device_id}/modules/{module}" if module else device_id
    options = {
        "user": user_of(device_id, module),
        "password": token(scope, primary_key(identity), life_s),
        **options,
    }
    return Raw(client_id, **options)


def opened(identity, **options):
    """Like `raw`, and connected."""
    connection = raw(identity, **options)
    code, _ = connection.open()
    equal(code, 0, "CONNACK")
    return connection
