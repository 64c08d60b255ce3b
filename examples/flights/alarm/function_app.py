"""Watches climbing and sinking aircraft, as a function for Azure would: nothing here knows Fleetline.

Each batch of telemetry is looked through. An aircraft that climbs or sinks faster than LIMIT raises an alarm,
which goes to every open page, and its twin says so until it is level again.
"""

import json
import logging
import os
from typing import List

import azure.functions as func

app = func.FunctionApp()

# Feet a minute.
LIMIT = float(os.environ.get("VERTICAL_RATE_LIMIT", "1700"))

# Aircraft whose alarm is on, as far as this worker has seen. Forgotten when it stops: then an alarm is said again.
alarmed = set()


def judge(device, reading):
    """What the reading changes: on, off or nothing."""
    fast = abs(reading.get("vertical_rate", 0)) >= LIMIT
    if fast and device not in alarmed:
        alarmed.add(device)
        return "on"
    if not fast and device in alarmed:
        alarmed.discard(device)
        return "off"
    return None


@app.function_name("alarm")
@app.event_hub_message_trigger(
    arg_name="events", event_hub_name="messages/events", connection="Hub", cardinality=func.Cardinality.MANY
)
@app.generic_output_binding(arg_name="pages", type="signalR", hubName="console", connectionStringSetting="Realtime")
@app.generic_output_binding(arg_name="twins", type="twin")
def alarm(events: List[func.EventHubEvent], pages: func.Out[str], twins: func.Out[str]) -> None:
    messages, patches = [], []
    for event in events:
        device = event.iothub_metadata.get("connection-device-id") if event.iothub_metadata else None
        try:
            reading = json.loads(event.get_body())
        except ValueError:
            continue
        if not device or not isinstance(reading, dict):
            continue
        change = judge(device, reading)
        if change is None:
            continue
        rate = reading.get("vertical_rate", 0)
        patches.append({"deviceId": device, "tags": {"alarm": {"steep": change == "on", "verticalRate": rate}}})
        if change == "on":
            word = "climbs" if rate > 0 else "sinks"
            text = f"{reading.get('callsign', device)} {word} at {abs(rate):,.0f} ft/min"
            logging.warning(text)
            alarm = {"device": device, "text": text, "value": rate, "at": reading.get("timestamp")}
            messages.append({"target": "alarm", "arguments": [alarm]})
    if messages:
        pages.set(json.dumps(messages))
    if patches:
        twins.set(json.dumps(patches))
