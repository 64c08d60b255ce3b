"""The way of log lines from Python's `logging` to the node, with the invocation that wrote them.

An invocation is known by a context variable (coroutines, and threads of the pool) or by the
thread-local storage of its context (threads that a function starts itself).
"""

import contextvars
import logging
import threading

INVOCATION = contextvars.ContextVar("invocation", default="")
THREAD = threading.local()

# Names of loggers whose lines are the worker's own, not the app's.
SYSTEM = ("fleetline", "azure.functions", "azure_functions_worker", "azure_functions_runtime")
# A line longer than this is cut by the node anyway.
LONGEST_LINE = 64 * 1024


def current():
    return INVOCATION.get() or getattr(THREAD, "invocation_id", None) or ""


class Handler(logging.Handler):
    """Hands each record to the stream. Never blocks and never fails the code that logs."""

    def __init__(self, link, protos, invocation=current):
        super().__init__()
        self.link = link
        self.protos = protos
        self.invocation = invocation

    def emit(self, record):
        try:
            self.link.log(self.line(record))
        except Exception:
            self.handleError(record)

    def line(self, record):
        log = self.protos.RpcLog
        if record.levelno >= logging.CRITICAL:
            level = log.Critical
        elif record.levelno >= logging.ERROR:
            level = log.Error
        elif record.levelno >= logging.WARNING:
            level = log.Warning
        elif record.levelno >= logging.INFO:
            level = log.Information
        elif record.levelno >= logging.DEBUG:
            level = log.Debug
        else:
            level = log.Trace
        system = any(record.name == name or record.name.startswith(name + ".") for name in SYSTEM)
        return log(
            level=level,
            message=self.format(record)[:LONGEST_LINE],
            category=record.name,
            invocation_id=self.invocation() or "",
            log_category=log.System if system else log.User,
        )


def install(handler):
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return root
