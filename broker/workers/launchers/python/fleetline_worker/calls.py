"""Calls a function: arguments from the request, the call on a thread or the loop, results back."""

import asyncio
import contextvars
import functools

from . import logs, messages, values


class TraceContext:
    def __init__(self, context):
        self.trace_parent = context.trace_parent
        self.trace_state = context.trace_state
        self.attributes = dict(context.attributes)
        # Older names of the same.
        self.Traceparent, self.Tracestate = self.trace_parent, self.trace_state
        self.Attributes = self.attributes


class RetryContext:
    def __init__(self, context):
        self.retry_count = context.retry_count
        self.max_retry_count = context.max_retry_count
        # The documented name, and the one that the vendor's worker has.
        self.exception = context.exception
        self.rpc_exception = context.exception


class Context:
    """What a function that asks for `context` is given (`azure.functions.Context`)."""

    def __init__(self, function, request):
        self.invocation_id = request.invocation_id
        self.function_name = function.name
        self.function_directory = function.directory
        self.thread_local_storage = logs.THREAD
        self.trace_context = TraceContext(request.trace_context)
        self.retry_context = RetryContext(request.retry_context)


class Out:
    """An output parameter (`azure.functions.Out`)."""

    def __init__(self):
        self._value = None

    def set(self, value):
        self._value = value

    def get(self):
        return self._value


async def invoke(protos, pool, function, request):
    reply = protos.InvocationResponse(invocation_id=request.invocation_id)
    logs.INVOCATION.set(request.invocation_id)
    try:
        if function is None:
            raise LookupError(f"there is no function {request.function_id}")
        arguments = make_arguments(function, request)
        returned = await call(pool, function, arguments, request.invocation_id)
        take_results(protos, function, arguments, returned, reply)
        reply.result.CopyFrom(messages.success(protos))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # SystemExit too: a function doesn't end the worker
        reply = protos.InvocationResponse(
            invocation_id=request.invocation_id, result=messages.failure(protos, error)
        )
    return reply


def make_arguments(function, request):
    metadata = {name: values.datum_of(data) for name, data in request.trigger_metadata.items()}
    arguments = {}
    for binding in request.input_data:
        parameter = function.inputs.get(binding.name)
        if parameter is None:
            raise LookupError(f"the function {function.name} has no input {binding.name}")
        arguments[binding.name] = values.decode(parameter.kind, binding.data, metadata)
    for name in function.outputs:
        arguments[name] = Out()
    if function.wants_context:
        arguments["context"] = Context(function, request)
    return arguments


async def call(pool, function, arguments, invocation):
    if function.is_async:
        return await function.call(**arguments)
    work = functools.partial(on_thread, function.call, arguments, invocation)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool, context.run, work)


def on_thread(function, arguments, invocation):
    logs.THREAD.invocation_id = invocation
    try:
        return function(**arguments)
    except StopIteration as error:  # can't be carried by a future
        raise RuntimeError("the function raised StopIteration") from error
    finally:
        logs.THREAD.invocation_id = None


def take_results(protos, function, arguments, returned, reply):
    if returned is not None and function.returns is None:
        message = f"function {function.name!r} without a $return binding returned a non-None value"
        raise RuntimeError(message)
    for name, parameter in function.outputs.items():
        value = arguments[name].get()
        if value is None:
            continue
        data = values.encode(protos, parameter.kind, value, parameter.annotation)
        if data is not None:
            reply.output_data.append(protos.ParameterBinding(name=name, data=data))
    if function.returns is not None:
        kind = function.returns.kind
        data = values.encode(protos, kind, returned, function.returns.annotation)
        if data is not None:
            reply.return_value.CopyFrom(data)
