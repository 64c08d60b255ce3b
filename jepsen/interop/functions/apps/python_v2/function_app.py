"""A function app in the Python v2 model, as one writes it for the cloud. `cases.js` says what it has to do.

Telemetry of devices whose id begins with DEVICES tells what to do with it:

    {"say": x}          realtime clients get it, with all that is known about the record
    {"command": text}   the device gets a command
    {"twin": n}         its twin gets a desired property and a tag
    {"gate": path}      writes the worker's process id to `path.pid` and waits until `path` exists
    {"fail": path}      adds the attempt to the file and raises
"""

import json
import os
import time
from typing import List

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
DEVICES = os.environ["DEVICES"]


def wait_at_gate(path):
    if os.path.exists(path):
        return
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", f"{path}.pid")
    while not os.path.exists(path):
        time.sleep(0.05)


@app.function_name("events")
@app.event_hub_message_trigger(
    arg_name="events", event_hub_name="messages/events", connection="Hub", cardinality=func.Cardinality.MANY
)
@app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:01")
@app.generic_output_binding(arg_name="pages", type="signalR", hubName="%REALTIME_HUB%", connectionStringSetting="Realtime")
@app.generic_output_binding(arg_name="commands", type="command")
@app.generic_output_binding(arg_name="twins", type="twin")
def events(
    events: List[func.EventHubEvent],
    pages: func.Out[str],
    commands: func.Out[str],
    twins: func.Out[str],
    context: func.Context,
) -> None:
    said, sent, patched = [], [], []
    for event in events:
        device = event.iothub_metadata["connection-device-id"]
        if not DEVICES or not device.startswith(DEVICES):
            continue
        body = json.loads(event.get_body())
        if "gate" in body:
            wait_at_gate(body["gate"])
        if "fail" in body:
            with open(body["fail"], "a") as file:
                file.write(f"{context.retry_context.retry_count if context.retry_context else 0}\n")
            raise ValueError(f"{device} can't be processed")
        if "say" in body:
            known = {
                "say": body["say"],
                "device": device,
                "properties": event.metadata["PropertiesArray"][events.index(event)],
                "sequence": event.sequence_number,
                "offset": event.offset,
                "enqueued": event.enqueued_time.isoformat(),
                "system": event.iothub_metadata,
            }
            said.append({"target": "said", "arguments": [known]})
        if "command" in body:
            sent.append({"deviceId": device, "body": body["command"]})
        if "twin" in body:
            n = body["twin"]
            patched.append({"deviceId": device, "tags": {"n": n}, "properties": {"desired": {"n": n}}})
    for output, items in ((pages, said), (commands, sent), (twins, patched)):
        if items:
            output.set(json.dumps(items))


@app.route(route="hello/{name}", methods=["GET", "POST"])
def hello(req: func.HttpRequest) -> func.HttpResponse:
    body = {"name": req.route_params["name"], "query": dict(req.params), "body": req.get_body().decode()}
    return func.HttpResponse(json.dumps(body), status_code=201, mimetype="application/json", headers={"x-mark": "1"})


@app.route(route="negotiate", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@app.generic_input_binding(
    arg_name="info",
    type="signalRConnectionInfo",
    hubName="%REALTIME_HUB%",
    userId="{query.user}",
    connectionStringSetting="Realtime",
)
def negotiate(req: func.HttpRequest, info) -> func.HttpResponse:
    return func.HttpResponse(info, mimetype="application/json")


@app.timer_trigger(arg_name="timer", schedule="*/2 * * * * *", use_monitor=False)
@app.generic_output_binding(arg_name="pages", type="signalR", hubName="%REALTIME_HUB%", connectionStringSetting="Realtime")
def tick(timer: func.TimerRequest, pages: func.Out[str]) -> None:
    pages.set(json.dumps({"target": "tick", "arguments": [timer.past_due]}))


@app.event_grid_trigger(arg_name="event")
@app.generic_output_binding(arg_name="pages", type="signalR", hubName="%REALTIME_HUB%", connectionStringSetting="Realtime")
def lifecycle(event: func.EventGridEvent, pages: func.Out[str]) -> None:
    pages.set(json.dumps({"target": "lifecycle", "arguments": [event.event_type, event.get_json()]}))


@app.generic_trigger(
    arg_name="call",
    type="signalRTrigger",
    hubName="%REALTIME_HUB%",
    category="messages",
    event="add",
    parameterNames=["a", "b"],
    connectionStringSetting="Realtime",
)
def add(call: str) -> str:
    first, second = json.loads(call)["Arguments"]
    return json.dumps(first + second)
