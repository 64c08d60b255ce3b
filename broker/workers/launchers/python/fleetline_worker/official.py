"""Passes the node's messages on to `azure-functions-runtime` (v2 model) or `-runtime-v1` (§1.1).

Both are handlers without a transport. They are given what their own host would give them: the
message, the message classes, and the address.
"""

import importlib
import types

from . import logs, messages


class Engine:
    def __init__(self, link, name):
        self.protos = link.protos
        self.library = importlib.import_module(name)
        self.properties = {"protos": link.protos, "host": link.args.host}
        link.handler.invocation = self.invocation
        self.library.start_threadpool_executor()

    def invocation(self):
        return self.library.invocation_id_cv.get() or logs.current()

    def event(self, name, message):
        return types.SimpleNamespace(name=name, request=message, properties=self.properties)

    async def init(self, message):
        return await self.library.worker_init_request(self.event("worker_init_request", message))

    async def metadata(self, message):
        event = self.event("functions_metadata_request", message)
        return await self.library.functions_metadata_request(event)

    async def load(self, message):
        return await self.library.function_load_request(self.event("function_load_request", message))

    async def invoke(self, message):
        # Coroutines log in this task's context, threads of the pool in the library's own.
        invocation = message.invocation_request.invocation_id
        logs.INVOCATION.set(invocation)
        try:
            reply = await self.library.invocation_request(self.event("invocation_request", message))
        except SystemExit as error:  # a function doesn't end the worker
            result = messages.failure(self.protos, error)
            return self.protos.InvocationResponse(invocation_id=invocation, result=result)
        exception = reply.result.exception
        if exception.message and not exception.type:
            # The library writes the type into the message alone: `ValueError: text`.
            exception.type = exception.message.partition(":")[0]
        return reply
