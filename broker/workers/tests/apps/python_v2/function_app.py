"""A function app as it would be written for the public host, with a function for each thing to try."""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from typing import List

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="hello/{name}", methods=["GET", "POST"])
def hello(req: func.HttpRequest) -> func.HttpResponse:
    body = {
        "method": req.method,
        "url": req.url,
        "name": req.route_params["name"],
        "q": req.params.get("q"),
        "header": req.headers.get("X-Fleet"),
        "body": req.get_body().decode("utf-8"),
    }
    response = func.HttpResponse(json.dumps(body), status_code=201, mimetype="application/json")
    response.headers.add("Set-Cookie", "session=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=60")
    return response


@app.route(route="text")
async def text(req: func.HttpRequest) -> str:
    await asyncio.sleep(0)
    return "just text"


@app.function_name(name="one_event")
@app.event_hub_message_trigger(arg_name="event", event_hub_name="messages/events", connection="HUB")
@app.event_hub_output(arg_name="$return", event_hub_name="out", connection="HUB")
@app.retry(strategy="fixed_delay", max_retry_count="3", delay_interval="00:00:10")
def one(event: func.EventHubEvent, context: func.Context) -> str:
    logging.info("one event from %s", event.iothub_metadata["connection-device-id"])
    retry = context.retry_context
    return json.dumps(
        {
            "body": event.get_body().decode(),
            "sequence": event.sequence_number,
            "offset": event.offset,
            "device": event.iothub_metadata["connection-device-id"],
            "retry": [retry.retry_count, retry.max_retry_count, retry.rpc_exception.message],
            "invocation": context.invocation_id,
            "trace": context.trace_context.trace_parent,
            "function": context.function_name,
        }
    )


@app.event_hub_message_trigger(
    arg_name="events", event_hub_name="messages/events", connection="HUB", cardinality=func.Cardinality.MANY
)
@app.event_hub_output(arg_name="out", event_hub_name="out", connection="HUB")
async def many_events(events: List[func.EventHubEvent], out: func.Out[List[str]]) -> None:
    out.set([f"{event.sequence_number}:{event.get_body().decode()}" for event in events])


@app.timer_trigger(schedule="0 */5 * * * *", arg_name="timer")
@app.generic_output_binding(arg_name="messages", type="signalR", hub_name="fleet")
def tick(timer: func.TimerRequest, messages: func.Out[str]) -> None:
    messages.set(json.dumps({"target": "tick", "arguments": [timer.past_due, timer.schedule_status["Next"]]}))


def wrong(value: dict) -> None:
    """Its annotation doesn't fit the binding."""


# The vendor's own packages, used from 3.13 on, refuse a whole app for one such function.
if sys.version_info < (3, 13):
    app.generic_trigger(arg_name="value", type="queueTrigger", data_type="string")(wrong)


@app.generic_trigger(arg_name="command", type="commandTrigger")
@app.generic_output_binding(arg_name="$return", type="answer")
def act(command: str):
    """Does what it is told, for what a test wants to see."""
    return ACTIONS[command]()


def boom():
    raise ValueError("the boiler is too hot")


def log():
    logging.debug("not shown")
    logging.warning("watch %d", 7)
    thread_id = threading.get_ident()
    print("printed")
    print("to stderr", file=sys.stderr)
    return str(thread_id)


def about():
    return json.dumps(
        {
            "uid": os.getuid(),
            "groups": os.getgroups(),
            "group": os.getpgrp() == os.getpid(),
            "cwd": os.getcwd(),
            "umask": os.umask(0o077),
            "environment": dict(os.environ),
            "pid": os.getpid(),
            "modules": sorted(name for name in os.listdir(sys.path[0])),
        }
    )


def hang():
    while True:
        time.sleep(60)


def slow():
    time.sleep(1)
    return "slow but done"


def flood():
    for number in range(200_000):
        print(f"line {number} " + "x" * 50)
    sys.stdout.write("y" * 5_000_000 + "\n")
    return "flooded"


def log_flood():
    for number in range(50_000):
        logging.info("line %d", number)
    return "flooded"


def eat():
    held = []
    while True:
        held.append(bytearray(b"x" * (8 << 20)))


def child():
    """Leaves a process behind that would outlive this one."""
    import subprocess

    return str(subprocess.Popen(["sleep", "1000"]).pid)


ACTIONS = {
    "boom": boom,
    "log": log,
    "about": about,
    "hang": hang,
    "slow": slow,
    "flood": flood,
    "log_flood": log_flood,
    "eat": eat,
    "child": child,
    "exit": lambda: sys.exit(5),
    "die": lambda: os._exit(3),
    "restart": lambda: os._exit(200),
    "nothing": lambda: None,
    "number": lambda: 7,
    "object": lambda: {"a": [1, 2]},
    "bytes": lambda: b"\x00\xff",
    "odd": lambda: object(),
    "large": lambda: b"x" * (3 << 20),
}
