"""The five handlers for every Python: indexing (`index`) and calls (`calls`) on `azure.functions` alone.

Unlike the vendor's packages, a function that can't be loaded doesn't take the others along: what is
wrong with it is answered when the node loads it.
"""

import concurrent.futures
import logging
import os
import platform

from . import calls, index, messages

# What this worker understands (§6.4).
CAPABILITIES = {
    name: "true"
    for name in (
        "RawHttpBodyBytes",
        "TypedDataCollection",
        "RpcHttpBodyOnly",
        "RpcHttpTriggerMetadataRemoved",
    )
}
# §5: the host sets PYTHON_THREADPOOL_THREAD_COUNT; this many when someone has unset it.
THREADS = 16

logger = logging.getLogger("fleetline.worker")


class Engine:
    def __init__(self, link, root, script):
        self.link = link
        self.protos = link.protos
        self.root = root
        self.script = script
        self.functions = {}
        self.errors = {}

    async def init(self, message):
        reply = self.protos.WorkerInitResponse(
            capabilities=CAPABILITIES, worker_metadata=self.about(), result=messages.success(self.protos)
        )
        try:
            self.pool = concurrent.futures.ThreadPoolExecutor(threads(), thread_name_prefix="function")
            self.found = index.app(self.script) if self.script else None
        except BaseException as error:
            reply.result.CopyFrom(messages.failure(self.protos, error))
        return reply

    def about(self):
        return self.protos.WorkerMetadata(
            runtime_name="python",
            runtime_version=platform.python_version(),
            worker_version="fleetline",
            worker_bitness=platform.machine(),
        )

    async def metadata(self, message):
        protos = self.protos
        if self.found is None:
            # The v1 model: the host reads each function.json.
            return protos.FunctionMetadataResponse(
                use_default_metadata_indexing=True, result=messages.success(protos)
            )
        results = [self.describe(function) for function in self.found]
        return protos.FunctionMetadataResponse(
            function_metadata_results=results, result=messages.success(protos)
        )

    def describe(self, function):
        name = function.get_function_name()
        try:
            self.functions[name] = index.function_of_app(function, self.root)
        except Exception as error:
            self.errors[name] = error
        return self.protos.RpcFunctionMetadata(
            name=name,
            function_id=name,
            directory=self.root,
            script_file=self.script,
            entry_point=name,
            language="python",
            raw_bindings=function.get_raw_bindings(),
            retry_options=index.retry(self.protos, function),
        )

    async def load(self, message):
        request = message.function_load_request
        name = request.function_id
        reply = self.protos.FunctionLoadResponse(function_id=name, result=messages.success(self.protos))
        try:
            if name in self.errors:
                raise self.errors[name]
            if name not in self.functions:
                function = index.function_of_folder(self.protos, request.metadata, self.root)
                self.functions[name] = function
        except BaseException as error:
            reply.result.CopyFrom(messages.failure(self.protos, error))
        return reply

    async def invoke(self, message):
        request = message.invocation_request
        return await calls.invoke(self.protos, self.pool, self.functions.get(request.function_id), request)


def threads():
    text = os.environ.get("PYTHON_THREADPOOL_THREAD_COUNT", "")
    try:
        return max(1, min(int(text), 1000))
    except ValueError:
        return THREADS
